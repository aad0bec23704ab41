"""Filters act in their declared order and are accounted for; the draw is pure and follows the stated distribution."""

import math

import pytest
import torch
from transformers.generation import logits_process as reference

from gpt.lexicon import Lexicon
from gpt.params import FILTERS, ORDER, SamplingParams
from gpt.sampling import Shaped, Step, next_mu, pick, shape_logits, uniform
from gpt.tokenizer import Tokenizer

V = 258  # of the byte tokenizer
SEEN = [3, 7, 7, 7, 250]
EVERY = dict(
    logit_bias=(((5,), 2.0), ((7, 9), 1.0)), repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.1,
    dry_multiplier=0.8, no_repeat_ngram=2, banned=("b", "xy"), min_new_tokens=9, grammar=("regex", r"(?s:.*)"),
    temperature=1.1, dynatemp_range=0.3, top_k=90, top_p=0.98, min_p=0.001, typical_p=0.97, top_a=0.01, tfs_z=0.98,
    top_n_sigma=2.5, epsilon_cutoff=0.001, eta_cutoff=0.001, xtc_probability=0.5, xtc_threshold=0.15,
    mirostat_tau=5.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def lexicon(tokenizer: Tokenizer) -> Lexicon:
    return Lexicon(tokenizer, V)


def some_logits(seed: int, ties: bool = False) -> torch.Tensor:
    logits = 3 * torch.randn(V, generator=torch.Generator().manual_seed(seed))
    return logits.round() if ties else logits


def shape(lexicon: Lexicon, logits: torch.Tensor, history=(), *, step=None, trail=False, **values) -> Shaped:
    params = SamplingParams(**{"temperature": 1.0, **values})
    return shape_logits(logits, params, step or Step(history), lexicon, trail)


@pytest.mark.parametrize("ties", [False, True])
def test_filters_in_order_equal_the_reference_chain(lexicon, ties):
    logits = some_logits(9, ties)
    values = dict(temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.2, typical_p=0.95)
    chain = [
        reference.RepetitionPenaltyLogitsProcessor(1.2), reference.TemperatureLogitsWarper(0.8),
        reference.TopKLogitsWarper(40), reference.TopPLogitsWarper(0.9), reference.MinPLogitsWarper(0.02),
        reference.TypicalLogitsWarper(0.95),
    ]  # fmt: skip
    expected = logits.clone()[None]
    for step in chain:
        expected = step(torch.tensor([SEEN]), expected)
    ours, theirs = shape(lexicon, logits, SEEN, **values).final, expected[0].softmax(0)
    if ties:  # of equals the reference cuts off any
        ours, theirs = ours.sort().values, theirs.sort().values
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
    assert torch.equal(ours > 0, theirs > 0)


def test_the_order_of_filters_is_as_declared(lexicon):
    """Half of the mass is one token, the other half ten equal ones: top-p first cuts among those, top-k all of them."""
    logits = torch.tensor([0.5, *[0.05] * 10]).log()
    values = {"top_k": 1, "top_p": 0.58, "temperature": 1.0}
    first_k = shape(lexicon, logits, order=("top_k", "top_p"), **values)
    first_p = shape(lexicon, logits, order=("top_p", "top_k"), **values)
    assert [(s.name, s.tokens) for s in first_k.stages] == [("top_k", 1), ("top_p", 1)]
    assert [(s.name, s.tokens) for s in first_p.stages] == [("top_p", 3), ("top_k", 1)]
    assert first_k.removed_by(10) == "top_k"
    assert (first_p.removed_by(10), first_p.removed_by(1)) == ("top_k", "top_p")


def test_a_stage_tells_how_many_tokens_and_how_much_mass_it_left(lexicon):
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    shaped = shape(lexicon, logits, top_k=3, min_p=0.6, frequency_penalty=0.1)
    assert [(s.name, s.tokens, pytest.approx(s.kept)) for s in shaped.stages] == [
        ("frequency_penalty", 4, 1.0), ("top_k", 3, 0.9), ("min_p", 2, 7 / 9),
    ]  # fmt: skip
    assert shaped.final.tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert [shaped.removed_by(t) for t in range(4)] == [None, None, "min_p", "top_k"]


@pytest.mark.parametrize("order", [ORDER, ORDER[::-1], (*ORDER[9:], *ORDER[:9])])
@pytest.mark.parametrize("seed", range(6))
def test_every_filter_is_accounted_for_in_any_order(lexicon, order, seed):
    """What the stages say is what the trail shows, and the trail is what the filters do one at a time."""
    step = Step([60, *SEEN, 60, 60], 3, 3, coin=0.3 * (seed % 3), mu=4.0)
    shaped = shape(lexicon, some_logits(seed), step=step, trail=True, order=order, **EVERY)
    assert [s.name for s in shaped.stages] == list(order)
    assert len(shaped.trail) == len(order)
    before, gone = shaped.probs, torch.zeros(V, dtype=torch.bool)
    for stage, after in zip(shaped.stages, shaped.trail, strict=True):
        assert after.sum().item() == pytest.approx(1, abs=1e-5)
        assert not (after[gone] > 0).any()
        removed = (before > 0) & (after == 0)
        assert stage.tokens == (after > 0).sum()
        assert {shaped.removed_by(t) for t in removed.nonzero().flatten().tolist()} <= {stage.name}
        if removed.any():
            assert stage.kept == pytest.approx(1 - before[removed].sum().item(), abs=1e-5)
            torch.testing.assert_close(after, torch.where(removed, 0, before) / stage.kept, atol=1e-6, rtol=1e-4)
        else:
            assert stage.kept == 1
        before, gone = after, gone | removed
    torch.testing.assert_close(shaped.final, before)
    assert [t for t in range(V) if shaped.removed_by(t) is None] == shaped.final.nonzero().flatten().tolist()


def test_a_trail_is_kept_only_when_asked_for(lexicon):
    assert shape(lexicon, some_logits(1), top_k=5).trail == ()


def test_a_filter_that_would_leave_nothing_is_left_out_and_named(lexicon, tokenizer):
    logits = torch.zeros(V)
    logits[tokenizer.encode("a")] = 9
    shaped = shape(lexicon, logits, top_k=1, banned=("a",), order=("top_k", "banned"))
    assert shaped.ignored == ("banned",)
    assert [(s.tokens, s.kept) for s in shaped.stages][1:] == [(1, 1.0)]
    done = shape(lexicon, logits, tokenizer.encode("yes"), grammar=("choice", "yes"), min_new_tokens=9,
                 order=("grammar", "min_new_tokens"))  # fmt: skip
    assert done.ignored == ("min_new_tokens",)
    assert done.final.nonzero().flatten().tolist() == [1]
    every_ngram = shape(lexicon, torch.zeros(3), [0, 1, 2], no_repeat_ngram=1)
    assert every_ngram.ignored == ("no_repeat_ngram",)


def test_end_tokens_wait_for_the_shortest_length_of_the_reply(lexicon):
    for length, ends in ((2, False), (3, True)):
        step = Step([9] * 10 + [8] * length, reply_start=10)
        assert (shape(lexicon, some_logits(1), step=step, min_new_tokens=3).final[1] > 0).item() is ends


def test_penalties_look_at_their_window_only(lexicon):
    shaped = shape(lexicon, torch.zeros(V), [5, 6, 6, 7], presence_penalty=1.0, penalty_window=2)
    assert (shaped.final < shaped.final[0] * 0.9).nonzero().flatten().tolist() == [6, 7]


def test_logits_of_minus_infinity_are_no_tokens(lexicon):
    logits = torch.zeros(V)
    logits[100:] = -math.inf
    for values in ({}, {"top_k": 500}, {"typical_p": 0.99999}, {"top_n_sigma": 9.0}, {"min_p": 1e-9}, EVERY):
        shaped = shape(lexicon, logits, [9], **values)
        assert not shaped.final[100:].any()
        assert shaped.final.sum().item() == pytest.approx(1, abs=1e-5)
        assert shaped.entropy == pytest.approx(math.log(100), abs=1e-5)


def test_shaping_leaves_the_logits_as_they_are(lexicon):
    logits = some_logits(1)
    before = logits.clone()
    shape(lexicon, logits, SEEN, **EVERY)
    assert torch.equal(logits, before)


# ---- what is said of the model's own distribution -------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("values", [{}, EVERY])
def test_rank_entropy_and_top_are_those_of_the_raw_distribution(lexicon, values, ties):
    logits = some_logits(3, ties)
    shaped = shape(lexicon, logits, SEEN, **values)
    torch.testing.assert_close(shaped.logprobs, logits.log_softmax(0))
    torch.testing.assert_close(shaped.probs, logits.softmax(0))
    assert shaped.entropy == pytest.approx(torch.distributions.Categorical(logits=logits).entropy().item(), abs=1e-5)
    order = sorted(range(V), key=lambda t: (-logits[t].item(), t))
    assert shaped.top(20) == order[:20]
    assert shaped.top(V + 50) == order
    assert [shaped.rank(t) for t in order[:30]] == [1 + int((logits > logits[t]).sum()) for t in order[:30]]


# ---- mirostat's state -------------------------------------------------------------------------------


def test_mirostat_moves_its_bound_by_what_surprised_it():
    params = SamplingParams(mirostat_tau=3.0, mirostat_eta=0.5)
    assert next_mu(None, params, -3 * math.log(2)) == pytest.approx(6)  # as surprising as wished: stays at 2 tau
    assert next_mu(5.0, params, -1 * math.log(2)) == pytest.approx(6)
    assert next_mu(5.0, params, -7 * math.log(2)) == pytest.approx(3)
    assert next_mu(5.0, params, -math.inf) == 5.0
    assert next_mu(None, params, -math.inf) == 6.0
    assert next_mu(5.0, SamplingParams(), -1.0) is None


def test_mirostat_starts_at_twice_its_target(lexicon):
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()  # 1, 1.74, 2.74 and 4.32 bits
    for mu, kept in ((None, 3), (2.0, 2), (0.5, 1), (-300.0, 1), (900.0, 4)):
        shaped = shape(lexicon, logits, step=Step(mu=mu), mirostat_tau=1.5)
        assert (shaped.final > 0).sum() == kept


# ---- the draw ---------------------------------------------------------------------------------------


def test_pick_inverts_the_cumulative_distribution_in_descending_order():
    probs = torch.tensor([0.2, 0.5, 0.0, 0.3])
    assert [pick(probs, u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 0.999999)] == [1, 1, 3, 3, 0, 0]


def test_tokens_after_the_head_follow_by_id():
    probs = torch.tensor([0.02] * 10 + [0.04] * 20)
    expected = [*range(10, 30), *range(10)]
    edges = torch.tensor([0.04] * 20 + [0.02] * 10, dtype=torch.float64).cumsum(0)
    assert [pick(probs, u - 0.001) for u in edges.tolist()] == expected
    sparse = torch.zeros(9_000).index_copy_(0, torch.arange(0, 9_000, 300), probs)
    assert [pick(sparse, u - 0.001) for u in edges.tolist()] == [300 * t for t in expected]
    assert pick(probs[10:], math.nextafter(1, 0)) == 19
    assert pick(probs, math.nextafter(1, 0)) == 9


def test_rounding_errors_in_the_tail_do_not_change_the_draw():
    logits = torch.cat((torch.linspace(8, 4, 20), torch.randn(50_000, generator=torch.Generator().manual_seed(5))))
    noise = 1e-5 * torch.randn(50_020, generator=torch.Generator().manual_seed(6))
    draws = [uniform(1, position) for position in range(300)]
    first, second = ([pick(x.softmax(0), u) for u in draws] for x in (logits, logits + noise))
    assert sum(t >= 20 for t in first) > 100
    assert (
        sum(a != b for a, b in zip(first, second, strict=True)) <= 15
    )  # in order of probability, nearly all of the 100


SEVERAL = [
    {"temperature": 1.5, "top_k": 12},
    {"temperature": 1.3, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    {"temperature": 2.0, "typical_p": 0.8, "xtc_probability": 1.0, "xtc_threshold": 0.1, "dry_multiplier": 0.8},
    {"dynatemp_range": 0.8, "top_n_sigma": 2.0, "mirostat_tau": 6.0, "banned": ("e", "th"), "no_repeat_ngram": 1},
]


@pytest.mark.parametrize("values", SEVERAL, ids=str)
def test_draws_follow_the_stated_distribution(lexicon, values):
    """Chi-square of 20,000 draws; tokens that are expected less than 5 times are counted together."""
    probs = shape(lexicon, some_logits(2), SEEN, **values).final
    n = 20_000
    drawn = torch.tensor([pick(probs, uniform(11, position)) for position in range(n)])
    counts = drawn.bincount(minlength=V).double()
    assert counts[probs == 0].sum() == 0
    often = n * probs >= 5
    observed = torch.cat((counts[often], counts[~often].sum()[None]))
    expected = n * torch.cat((probs[often], probs[~often].sum()[None])).double()
    observed, expected = observed[expected >= 5], expected[expected >= 5]
    chi2 = ((observed - expected) ** 2 / expected).sum().item()
    degrees = len(expected) - 1
    assert degrees >= 8
    # Wilson and Hilferty's approximation of the quantile, p = 0.001.
    assert chi2 < degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3


def test_the_draw_depends_on_seed_position_and_stream_only_and_stays_below_one():
    assert uniform(5, 9) == uniform(5, 9) == uniform(5, 9, 0)
    draws = [uniform(seed, position, stream) for seed in range(25) for position in range(50) for stream in (0, 1)]
    assert len(set(draws)) == 2500
    assert all(0 <= u < 1 for u in draws)
    assert sum(draws) / 2500 == pytest.approx(0.5, abs=0.02)
    pairs = torch.tensor([[uniform(1, p), uniform(1, p, 1)] for p in range(2000)]).T
    assert abs(torch.corrcoef(pairs)[0, 1].item()) < 0.06


def test_the_draws_of_records_made_before_stay_the_same():
    assert [uniform(0, 0), uniform(7, 12), uniform(2**40, 999)] == [
        0.5079605879681605,
        0.24974068853068987,
        0.8998330894911695,
    ]


def test_xtc_acts_as_often_as_its_probability_says(lexicon):
    logits = some_logits(5)
    acted = 0
    for position in range(400):
        step = Step(coin=uniform(3, position, 1))
        acted += shape(lexicon, logits, step=step, xtc_probability=0.25, xtc_threshold=0.05).stages[0].tokens < V
    assert acted == pytest.approx(100, abs=30)


def test_every_filter_of_the_parameters_is_there(lexicon):
    assert {stage.name for stage in shape(lexicon, some_logits(1), SEEN, **EVERY).stages} == set(FILTERS)
