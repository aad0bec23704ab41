"""Every family computes what transformers computes: logits and every pattern of attention, read at once or in steps."""

import pytest
import torch

from gpt.cache import KVCache
from gpt.checkpoint import open_checkpoint
from gpt.interp import attention_pattern
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.families import LENGTH, TOKENS, VARIANTS, answers, made
from tests.test_model import fed


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """A reference, and the folder that it was saved in."""
    reference, folder = made(request.param), tmp_path_factory.mktemp("family")
    reference.save_pretrained(folder)
    return reference, folder


@pytest.fixture(scope="module")
def ours(pair):
    return open_checkpoint(pair[1]).model()


@pytest.fixture(scope="module")
def theirs(pair):
    logits, patterns = answers(pair[0])
    assert logits.std() > 0.1  # not a comparison of two constants
    assert patterns.std() > 0.02
    return logits, patterns


def read(model, pieces):
    """A session that read TOKENS in pieces of these lengths, the rest one by one; the logits after each piece."""
    session, runner, logits = Session(KVCache(model.config)), EagerRunner(model), []
    session.rewrite(TOKENS.tolist())
    for piece in (*pieces, *[1] * (LENGTH - sum(pieces))):
        start = session.cache.length
        logits.append(runner.run([(session.cache, session.tokens[start : start + piece])])[0])
    return session, torch.stack(logits)


def patterns_of(session):
    """Every pattern, (L, H, T, T)."""
    return torch.stack([attention_pattern(session, layer) for layer in range(session.cache.config.n_layer)])


def assert_equal(logits, expected):
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_logits_equal_the_reference_with_and_without_a_cache(ours, theirs):
    with torch.inference_mode():
        assert_equal(ours(TOKENS[None], torch.arange(LENGTH))[0], theirs[0])
    assert_equal(fed(ours, [TOKENS])[0], theirs[0])


@pytest.mark.parametrize("pieces", [(LENGTH,), (9, 13, 5), (1, 1)], ids=str)
def test_patterns_and_logits_equal_the_reference_however_a_text_was_read(ours, theirs, pieces):
    session, logits = read(ours, pieces)
    ends = torch.tensor([*pieces, *[1] * (LENGTH - sum(pieces))]).cumsum(0) - 1
    assert_equal(logits, theirs[0][ends])
    torch.testing.assert_close(patterns_of(session), theirs[1], atol=1e-5, rtol=0)
