"""The cache keeps what it was given, grows by blocks, and cuts and copies without a trace."""

from collections.abc import Callable

import pytest
import torch

from gpt.cache import BLOCK, KVCache
from gpt.config import GPTConfig

CONFIG = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=16, head_dim=4, d_mlp=8, block_size=1024, vocab_size=9)

POSITION = (2 * (4 + 2 + 2) * 4 + 16) * 4  # bytes


def filled(n: int, seed: int = 0) -> KVCache:
    cache, generator = KVCache(CONFIG), torch.Generator().manual_seed(seed)
    cache.extend(*columns(n, lambda *shape: torch.randn(*shape, generator=generator)))
    return cache


def columns(n: int, make: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    """Queries, keys, values and hidden states of n positions."""
    return [*(make(2, heads, n, 4) for heads in (4, 2, 2)), make(n, 16)]


def test_growing_keeps_what_was_there():
    cache = filled(BLOCK - 1)
    before = cache.queries().clone(), cache.keys().clone(), cache.values().clone()
    assert cache.capacity == BLOCK
    cache.reserve(2)
    assert cache.capacity == 2 * BLOCK
    for old, new in zip(before, (cache.queries(), cache.keys(), cache.values()), strict=True):
        assert torch.equal(old, new)


def test_a_reader_keeps_its_rows_while_the_cache_grows():
    cache = filled(BLOCK)
    seen = cache.queries()
    copy = seen.clone()
    cache.extend(*columns(BLOCK, torch.ones))
    assert torch.equal(seen, copy)


def test_append_writes_every_layer_and_advance_counts_once():
    cache = filled(3)
    q, k, v = (torch.full((1, heads, 2, 4), float(heads)) for heads in (4, 2, 2))
    cache.reserve(2)
    for layer in range(2):
        ((_, keys, values, mask, causal),) = cache.append(layer, q, k, v)
        assert keys.shape == values.shape == (1, 2, 5, 4)
        assert not causal
        assert mask.tolist() == [[True, True, True, True, False], [True] * 5]
    assert cache.length == 3
    cache.advance(2)
    assert cache.length == 5
    assert torch.equal(cache.queries()[:, :, 3:], torch.full((2, 4, 2, 4), 4.0))


def test_reads_remember_where_each_began_as_long_as_it_is_there():
    cache = filled(5)
    for n in (1, 3):
        cache.extend(*columns(n, torch.ones))
    assert (cache.reads, cache.boundaries) == ([0, 5, 6], (0, 5, 6, 9))
    cache.truncate(6)
    assert cache.boundaries == (0, 5, 6)
    assert cache.fork(2).boundaries == (0, 2)


def test_a_fork_is_independent_of_its_origin():
    cache = filled(10)
    copy = cache.fork(6)
    cache.truncate(2)
    cache.extend(*columns(4, torch.zeros))
    assert torch.equal(copy.keys(), filled(10).keys()[:, :, :6])
    assert torch.equal(copy.hidden(), filled(10).hidden()[:6])
    assert copy.nbytes == 6 * POSITION


def test_nbytes_is_what_the_buffers_hold():
    assert KVCache(CONFIG).nbytes == 0
    assert filled(1).nbytes == BLOCK * POSITION


@pytest.mark.parametrize("length", [-1, 4])
def test_truncating_to_what_is_not_there_is_refused(length):
    with pytest.raises(ValueError, match="between 0 and 3"):
        filled(3).truncate(length)
