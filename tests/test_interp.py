"""Derived patterns are the reference's own attention; head metrics equal their definitions written out."""

import math

import pytest
import torch

from gpt.cache import KVCache
from gpt.interp import METRICS, HeadMetrics, attention_pattern
from gpt.runner import EagerRunner
from gpt.session import Session

TOKENS = torch.randint(0, 101, (40,), generator=torch.Generator().manual_seed(2)).tolist()


def session_of(model, prompt: int, steps: int) -> Session:
    """A session that read `prompt` tokens at once and then `steps` more, one at a time."""
    session, runner = Session(KVCache(model.config)), EagerRunner(model)
    session.rewrite(TOKENS[: prompt + steps])
    runner.run([(session.cache, TOKENS[:prompt])])
    for token in TOKENS[prompt : prompt + steps]:
        runner.run([(session.cache, [token])])
    return session


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("steps", [0, 20])
def test_patterns_of_every_head_equal_the_reference(references, family, steps):
    reference, model = references[family]
    session = session_of(model, 12, steps)
    with torch.inference_mode():
        theirs = reference(torch.tensor([TOKENS[: 12 + steps]]), output_attentions=True).attentions
    assert max(a.std().item() for a in theirs) > 0.05
    for layer, expected in enumerate(theirs):
        torch.testing.assert_close(attention_pattern(session, layer), expected[0], atol=1e-5, rtol=0)


def test_rows_and_heads_can_be_chosen(references):
    session = session_of(references["llama"][1], 10, 0)
    whole = attention_pattern(session, 1)
    assert whole.shape == (6, 10, 10)
    torch.testing.assert_close(attention_pattern(session, 1, heads=[5, 2], rows=[9, 3]), whole[[5, 2]][:, [9, 3]])
    torch.testing.assert_close(attention_pattern(session, 1, heads=4), whole[[4]])


@pytest.mark.parametrize(
    ("layer", "heads", "rows", "named"), [(3, 0, [0], "layer 3"), (0, 6, [0], "head 6"), (0, 0, [10], "row 10")]
)
def test_what_does_not_exist_is_named(references, layer, heads, rows, named):
    with pytest.raises(IndexError, match=f"no {named}"):
        attention_pattern(session_of(references["llama"][1], 10, 0), layer, heads, rows)


def brute_force(pattern: list[list[float]]) -> dict[str, float]:
    """The metrics of one head from their definitions, with loops."""
    sums = dict.fromkeys(METRICS, 0.0)
    for q, row in list(enumerate(pattern))[1:]:
        sums["first"] += row[0]
        sums["previous"] += row[q - 1]
        sums["entropy"] += -sum(a * math.log(a) for a in row[: q + 1] if a > 0) / math.log(q + 1)
        sums["distance"] += sum(a * (q - k) for k, a in enumerate(row[: q + 1]))
    return {name: total / (len(pattern) - 1) for name, total in sums.items()}


def test_head_metrics_equal_their_definitions(references):
    session = session_of(references["gpt2"][1], 30, 0)
    metrics = HeadMetrics().update(session)
    for layer in range(3):
        for head, pattern in enumerate(attention_pattern(session, layer).tolist()):
            for name, expected in brute_force(pattern).items():
                assert metrics[name][layer, head].item() == pytest.approx(expected, abs=1e-5)


def test_head_metrics_kept_up_to_date_equal_those_computed_at_once(references):
    model = references["llama"][1]
    session, metrics = session_of(model, 8, 0), HeadMetrics()
    metrics.update(session)
    for text in (TOKENS[:30], [*TOKENS[:12], *TOKENS[20:40]]):  # a longer text, then one that leaves it after 12 tokens
        session.rewrite(text)
        EagerRunner(model).run([(session.cache, text[session.cache.length :])])
        updated, fresh = metrics.update(session), HeadMetrics().update(session)
        for name in METRICS:
            torch.testing.assert_close(updated[name], fresh[name], atol=1e-5, rtol=0)


def test_metrics_of_an_empty_session_are_zero(references):
    metrics = HeadMetrics().update(Session(KVCache(references["llama"][1].config)))
    assert all(metrics[name].shape == (3, 6) and not metrics[name].any() for name in METRICS)
