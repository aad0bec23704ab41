"""Filters equal the reference's; the draw is a pure function and follows the stated distribution."""

import math

import pytest
import torch
from transformers.generation import logits_process as reference

from gpt.sampling import ORDER, SamplingParams, pick, shape_logits, uniform

SEEN = [3, 7, 7, 7, 250]


def some_logits(seed: int, ties: bool) -> torch.Tensor:
    logits = 3 * torch.randn(300, generator=torch.Generator().manual_seed(seed))
    return logits.round() if ties else logits


def assert_same_distribution(ours: torch.Tensor, theirs: torch.Tensor, ties: bool) -> None:
    """Equal token by token. Which of several equal logits top-p cuts off is left open by the reference (it sorts
    unstably); ours keeps the highest ids. Then as many must survive, with the same probabilities."""
    if ties:
        ours, theirs = ours.sort().values, theirs.sort().values
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
    assert torch.equal(ours > 0, theirs > 0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "value", "theirs"),
    [
        ("temperature", 0.6, reference.TemperatureLogitsWarper(0.6)),
        ("top_k", 7, reference.TopKLogitsWarper(7)),
        ("top_k", 1000, reference.TopKLogitsWarper(1000)),
        ("top_p", 0.8, reference.TopPLogitsWarper(0.8)),
        ("top_p", 0.01, reference.TopPLogitsWarper(0.01)),
        ("min_p", 0.1, reference.MinPLogitsWarper(0.1)),
        ("repetition_penalty", 1.3, reference.RepetitionPenaltyLogitsProcessor(1.3)),
    ],
)
def test_a_filter_equals_the_reference(name, value, theirs, seed, ties):
    logits = some_logits(seed, ties)
    params = SamplingParams(**{"temperature": 1.0, name: value})
    expected = theirs(torch.tensor([SEEN]), logits.clone()[None])[0]
    shaped = shape_logits(logits, params, SEEN)
    assert_same_distribution(shaped.final, expected.softmax(0), ties=ties and name == "top_p")


@pytest.mark.parametrize("ties", [False, True])
def test_all_filters_in_order_equal_the_reference_chain(ties):
    logits = some_logits(9, ties)
    params = SamplingParams(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.2)
    chain = [
        reference.RepetitionPenaltyLogitsProcessor(1.2), reference.TemperatureLogitsWarper(0.8),
        reference.TopKLogitsWarper(40), reference.TopPLogitsWarper(0.9), reference.MinPLogitsWarper(0.02),
    ]  # fmt: skip
    expected = logits.clone()[None]
    for step in chain:
        expected = step(torch.tensor([SEEN]), expected)
    assert_same_distribution(shape_logits(logits, params, SEEN).final, expected[0].softmax(0), ties)


def test_presence_counts_once_and_frequency_every_time():
    logits = torch.zeros(300)
    presence = shape_logits(logits, SamplingParams(temperature=1.0, presence_penalty=0.5), SEEN).final
    frequency = shape_logits(logits, SamplingParams(temperature=1.0, frequency_penalty=0.5), SEEN).final
    assert (presence[7] / presence[0]).item() == pytest.approx(math.exp(-0.5))
    assert (frequency[7] / frequency[0]).item() == pytest.approx(math.exp(-1.5))
    assert (frequency[3] / frequency[0]).item() == pytest.approx(math.exp(-0.5))


def test_each_removed_token_names_the_first_filter_that_removed_it():
    logits = torch.tensor([5.0, 4.0, 3.0, 0.0, -1.0])
    shaped = shape_logits(logits, SamplingParams(temperature=1.0, top_k=3, top_p=0.85, min_p=0.5), [])
    assert [shaped.removed_by(t) for t in range(5)] == [None, "min_p", "top_p", "top_k", "top_k"]
    assert shaped.final.tolist() == [1, 0, 0, 0, 0]
    assert shaped.probs.sum().item() == pytest.approx(1)


def test_the_first_filter_is_the_one_that_is_named():
    assert ORDER == (
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
    )


def test_of_equal_logits_top_p_keeps_the_highest_ids():
    final = shape_logits(torch.zeros(4), SamplingParams(temperature=1.0, top_p=0.5), []).final
    assert final.tolist() == [0, 0, 0.5, 0.5]


def test_temperature_zero_keeps_only_the_largest():
    shaped = shape_logits(torch.tensor([1.0, 3.0, 3.0]), SamplingParams(temperature=0), [])
    assert shaped.final.tolist() == [0, 1, 0]
    assert shaped.removed_by(2) == "temperature"


def test_pick_inverts_the_cumulative_distribution_in_descending_order():
    probs = torch.tensor([0.2, 0.5, 0.0, 0.3])
    assert [pick(probs, u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.999999)] == [1, 1, 3, 3, 0, 0]


def test_rounding_errors_in_the_tail_do_not_change_the_draw():
    logits = torch.cat((torch.linspace(8, 4, 20), torch.randn(50_000, generator=torch.Generator().manual_seed(5))))
    noise = 1e-5 * torch.randn(50_020, generator=torch.Generator().manual_seed(6))
    draws = [uniform(1, position) for position in range(300)]
    first, second = ([pick(x.softmax(0), u) for u in draws] for x in (logits, logits + noise))
    assert sum(t >= 20 for t in first) > 100
    assert (
        sum(a != b for a, b in zip(first, second, strict=True)) <= 15
    )  # in order of probability, nearly all of the 100


def test_draws_follow_the_stated_distribution():
    probs = shape_logits(some_logits(2, False), SamplingParams(temperature=1.5, top_k=12), []).final
    n = 20_000
    counts = torch.zeros(300)
    for position in range(n):
        counts[pick(probs, uniform(11, position))] += 1
    alive = probs > 0
    chi2 = ((counts[alive] - n * probs[alive]) ** 2 / (n * probs[alive])).sum().item()
    assert counts[~alive].sum() == 0
    assert chi2 < 31.3  # 11 degrees of freedom, p = 0.001


def test_the_draw_depends_on_seed_and_position_only_and_stays_below_one():
    assert uniform(5, 9) == uniform(5, 9)
    draws = [uniform(seed, position) for seed in range(50) for position in range(50)]
    assert len(set(draws)) == 2500
    assert all(0 <= u < 1 for u in draws)
    assert sum(draws) / 2500 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": "hot"}, {"temperature": True},
        {"top_k": 2.5}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2}, {"repetition_penalty": 0},
        {"max_new_tokens": 0}, {"presence_penalty": float("inf")}, {"stop": "text"}, {"stop": ("",)},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingParams(**bad)


def test_an_unknown_parameter_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no sampling parameter heat; there are temperature, top_k"):
        SamplingParams().replace(heat=1)
