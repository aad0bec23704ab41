"""The model equals the reference implementation, with and without a cache."""

import pytest
import torch

from gpt.cache import KVCache, PackedCaches

FAMILIES = ("gpt2", "llama", "gemma2")
TOKENS = torch.randint(0, 101, (30,), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def fed(model, pieces):
    """Logits (T, V) of the pieces fed one after another through a cache, and the cache."""
    cache, logits = KVCache(model.config), []
    for piece in pieces:
        n = len(piece)
        cache.reserve(n)
        logits.append(model(piece[None], torch.arange(cache.length, cache.length + n), cache)[0])
        cache.advance(n)
    return torch.cat(logits), cache


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_reference(references, family):
    reference, model = references[family]
    with torch.inference_mode():
        ours, theirs = model(TOKENS[None], torch.arange(30))[0], reference(TOKENS[None]).logits[0]
    assert theirs.std() > 0.1  # not a comparison of two constants
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_one_pass(references, family):
    _, model = references[family]
    with torch.inference_mode():
        whole = model(TOKENS[None], torch.arange(30))[0]
    torch.testing.assert_close(fed(model, [TOKENS[:10], *TOKENS[10:].split(1)])[0], whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_in_chunks_equals_prefill_at_once(references, family):
    _, model = references[family]
    chunked, cache = fed(model, TOKENS.split(7))
    whole, other = fed(model, [TOKENS])
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(cache.queries(), other.queries(), atol=1e-5, rtol=0)


def test_the_same_steps_give_the_same_bits(references):
    _, model = references["llama"]
    first, second = (fed(model, [TOKENS[:10], *TOKENS[10:].split(1)])[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_several_sequences_in_one_forward_do_not_see_each_other(references, family):
    _, model = references[family]
    _, cache_a = fed(model, [TOKENS[:5]])
    _, cache_b = fed(model, [TOKENS[5:12]])
    packed = PackedCaches([cache_a, cache_b], [3, 1])  # one reads a chunk while the other decodes
    with torch.inference_mode():
        packed.reserve()
        mixed = torch.cat((TOKENS[12:15], TOKENS[15:16]))[None]
        logits = model(mixed, torch.tensor([5, 6, 7, 7]), packed)[0]
        packed.advance()
    torch.testing.assert_close(logits[:3], fed(model, [TOKENS[:5], TOKENS[12:15]])[0][5:], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[3:], fed(model, [TOKENS[5:12], TOKENS[15:16]])[0][7:], atol=1e-4, rtol=0)
    assert (cache_a.length, cache_b.length) == (8, 8)


def test_only_the_rows_asked_for_are_unembedded(references):
    _, model = references["gpt2"]
    with torch.inference_mode():
        whole = model(TOKENS[None], torch.arange(30))
        rows = model(TOKENS[None], torch.arange(30), rows=torch.tensor([3, 29]))
    torch.testing.assert_close(rows, whole[:, [3, 29]], atol=1e-5, rtol=0)
