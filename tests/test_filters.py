"""Every filter leaves the same tokens, with the same probabilities, as transformers' and llama.cpp's own."""

import math
import random

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as reference

from gpt import filters
from gpt.lexicon import Lexicon
from gpt.params import FILTERS, NEUTRAL, SamplingParams
from gpt.sampling import Step, shape_logits
from gpt.tokenizer import Tokenizer

V = 258  # of the byte tokenizer
SEEN = [3, 7, 7, 7, 250, 9, 3, 7]
START = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def lexicon(tokenizer: Tokenizer) -> Lexicon:
    return Lexicon(tokenizer, V)


@pytest.fixture(scope="module")
def llamacpp():
    pytest.importorskip("xllamacpp")  # there are no wheels for every platform
    from tests import llamacpp

    return llamacpp


def some_logits(seed: int, ties: bool = False, size: int = V) -> torch.Tensor:
    logits = 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return logits.round() if ties else logits


def shape(lexicon: Lexicon, logits: torch.Tensor, history=SEEN, *, coin=0.0, mu=None, **values):
    params = SamplingParams(**{"temperature": 1.0, **values})
    return shape_logits(logits, params, Step(history, 0, 0, coin, mu), lexicon)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, which_is_open: bool = False) -> None:
    """Equal token by token. Where the reference leaves open which of several equal logits go (it sorts unstably), as
    many must survive, with the same probabilities."""
    if which_is_open:
        ours, theirs = ours.sort().values, theirs.sort().values
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=2e-5)


SEQUENCES = [[[5], 2.5], [[3, 7, 11], -4.0], [[250, 7, 12], 9.0], [[5, 7, 3], 1.5]]


def min_new_tokens(n: int) -> reference.LogitsProcessor:
    return reference.MinNewTokensLengthLogitsProcessor(0, n, [1], device="cpu")


TRANSFORMERS = [
    ({"logit_bias": SEQUENCES}, lambda: reference.SequenceBiasLogitsProcessor(SEQUENCES)),
    ({"repetition_penalty": 1.3}, lambda: reference.RepetitionPenaltyLogitsProcessor(1.3)),
    ({"repetition_penalty": 0.7}, lambda: reference.RepetitionPenaltyLogitsProcessor(0.7)),
    *[({"no_repeat_ngram": n}, lambda n=n: reference.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3, 4, 9, 20)],
    *[({"min_new_tokens": n}, lambda n=n: min_new_tokens(n)) for n in (8, 9)],
    ({"temperature": 0.6}, lambda: reference.TemperatureLogitsWarper(0.6)),
    ({"temperature": 3.0}, lambda: reference.TemperatureLogitsWarper(3.0)),
    *[({"top_k": k}, lambda k=k: reference.TopKLogitsWarper(k)) for k in (1, 7, 100, 1000)],
    *[({"top_p": p}, lambda p=p: reference.TopPLogitsWarper(p)) for p in (0.01, 0.5, 0.8, 0.999)],
    *[({"min_p": p}, lambda p=p: reference.MinPLogitsWarper(p)) for p in (0.1, 0.001, 1.0)],
    *[({"typical_p": p}, lambda p=p: reference.TypicalLogitsWarper(p)) for p in (0.05, 0.4, 0.9)],
    *[({"epsilon_cutoff": e}, lambda e=e: reference.EpsilonLogitsWarper(e)) for e in (0.002, 0.9)],
    *[({"eta_cutoff": e}, lambda e=e: reference.EtaLogitsWarper(e)) for e in (0.0003, 0.1, 0.9)],
]  # fmt: skip


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("values", "theirs"), TRANSFORMERS, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_a_filter_equals_that_of_transformers(lexicon, values, theirs, seed, ties):
    logits = some_logits(seed, ties)
    expected = theirs()(torch.tensor([SEEN]), logits.clone()[None])[0]
    shaped = shape(lexicon, logits, **values)
    assert_same(shaped.final, expected.softmax(0), which_is_open=ties and "top_p" in values)
    assert shaped.ignored == ()


@pytest.mark.parametrize("size", [5_000, 40_000])
@pytest.mark.parametrize("values", [{"top_k": 50}, {"top_p": 0.9}, {"typical_p": 0.9}, {"min_p": 0.01}], ids=str)
def test_partial_selection_in_a_large_vocabulary_equals_the_reference(lexicon, values, size):
    (name, value), logits = next(iter(values.items())), some_logits(3, size=size)
    theirs = {
        "top_k": reference.TopKLogitsWarper,
        "top_p": reference.TopPLogitsWarper,
        "typical_p": reference.TypicalLogitsWarper,
        "min_p": reference.MinPLogitsWarper,
    }[name](value)
    for sharpness in (0.3, 1, 4):
        scaled = sharpness * logits
        expected = theirs(torch.tensor([SEEN]), scaled[None])[0].softmax(0)
        ours = shape(lexicon, scaled, history=[], **values).final
        # Sums over thousands of tokens differ in the last bits: a token at the very edge may go either way.
        assert ((ours > 0) != (expected > 0)).sum() <= 1
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-3)


def test_bans_of_words_of_one_token_equal_bad_words(lexicon, tokenizer):
    logits = some_logits(1)
    theirs = reference.NoBadWordsLogitsProcessor([tokenizer.encode("q"), tokenizer.encode("bc")], eos_token_id=1)
    history = tokenizer.encode("xyzb")
    expected = theirs(torch.tensor([history]), logits[None])[0]
    assert_same(shape(lexicon, logits, history, banned=("q", "bc")).final, expected.softmax(0))


LLAMACPP = [
    ({"top_k": 9}, ("top_k", 9)),
    ({"top_p": 0.85}, ("top_p", 0.85, 1)),
    ({"min_p": 0.03}, ("min_p", 0.03, 1)),
    ({"typical_p": 0.7}, ("typical", 0.7, 1)),
    ({"temperature": 1.2, "dynatemp_range": 0.5}, ("temp_ext", 1.2, 0.5, 1.0)),
    ({"temperature": 0.4, "dynatemp_range": 0.8, "dynatemp_exponent": 2.5}, ("temp_ext", 0.4, 0.8, 2.5)),
    ({"top_n_sigma": 1.0}, ("top_n_sigma", 1.0)),
    ({"top_n_sigma": 2.3}, ("top_n_sigma", 2.3)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.05}, ("xtc", 1.0, 0.05, 1, 0)),
    ({"xtc_probability": 1.0, "xtc_threshold": 0.6}, ("xtc", 1.0, 0.6, 1, 0)),
    ({"mirostat_tau": 2.0}, ("mirostat_v2", 0, 2.0, 0.1)),
    ({"mirostat_tau": 0.3}, ("mirostat_v2", 0, 0.3, 0.1)),
    ({"repetition_penalty": 1.4, "presence_penalty": 0.6, "frequency_penalty": 0.2},
     ("penalties", V, 64, 1.4, 0.2, 0.6)),
    ({"repetition_penalty": 1.4, "frequency_penalty": -0.5, "penalty_window": 3}, ("penalties", V, 3, 1.4, -0.5, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("values", "call"), LLAMACPP, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_a_filter_equals_that_of_llamacpp(lexicon, llamacpp, values, call, seed, ties):
    logits = some_logits(seed, ties)
    expected = llamacpp.sample(*call, logits=logits, history=SEEN).softmax(0)
    ours = shape(lexicon, logits, **values).final
    if ties and {"top_k", "typical_p"} & set(values):  # we keep all that equal the last one, as transformers
        assert ours[expected > 0].gt(0).all()
        assert logits[ours > 0].unique().numel() == logits[expected > 0].unique().numel()
    else:
        assert_same(ours, expected, which_is_open=ties)


def test_bias_equals_that_of_llamacpp(lexicon, llamacpp):
    logits = some_logits(4)
    expected = llamacpp.bias({5: 2.5, 9: -7.0}, logits).softmax(0)
    assert_same(shape(lexicon, logits, logit_bias=(((5,), 2.5), ((9,), -7.0))).final, expected)


@pytest.mark.parametrize("seed", range(40))
def test_dry_equals_that_of_llamacpp(lexicon, llamacpp, tokenizer, seed):
    rng, logits = random.Random(seed), some_logits(seed)
    text = "".join(rng.choices("ab:", weights=(6, 4, seed % 3), k=rng.randint(1, 60)))
    window = rng.choice([0, 7, 25])
    history, allowed, base = tokenizer.encode(text), rng.randint(1, 4), rng.choice([1.0, 1.2, 3.0])
    breakers = [tokenizer.encode(":")[0]]
    expected = llamacpp.dry(0.8, base, allowed, window or 1000, breakers, logits, history)
    values = {"dry_multiplier": 0.8, "dry_base": base, "dry_allowed_length": allowed, "penalty_window": window}
    assert_same(shape(lexicon, logits, history, dry_breakers=(":",), **values).final, expected.softmax(0))


def test_a_long_loop_is_penalised_as_by_llamacpp_without_overflow(lexicon, llamacpp):
    history, logits = [50, 51] * 300, some_logits(2)
    expected = llamacpp.dry(0.8, 1.75, 2, 1000, [10], logits, history)
    values = {"dry_multiplier": 0.8, "dry_breakers": ()}
    assert_same(shape(lexicon, logits, history, **values).final, expected.softmax(0))


# ---- filters that neither program has: their definition, by hand ---------------------------------


def test_top_a_compares_with_the_square_of_the_greatest_probability(lexicon):
    probs = torch.tensor([0.5, 0.26, 0.14, 0.06, 0.04])  # a * 0.5 ** 2 = 0.05 with a = 0.2
    assert (shape(lexicon, probs.log(), history=[], top_a=0.2).final > 0).tolist() == [True] * 4 + [False]


def test_the_tail_begins_where_the_sorted_probabilities_no_longer_bend(lexicon):
    """First differences .2 .15 .05 .03 .01, second ones .05 .1 .02 .02, of 0.19 in all: 26, 79, 89 and 100 %."""
    probs = torch.tensor([0.45, 0.25, 0.10, 0.05, 0.02, 0.01])
    logits = probs.log()
    kept = {z: int((shape(lexicon, logits, history=[], tfs_z=z).final > 0).sum()) for z in (0.2, 0.5, 0.8, 0.95)}
    assert kept == {0.2: 1, 0.5: 2, 0.8: 3, 0.95: 4}


def test_a_distribution_without_a_bend_has_no_tail(lexicon):
    assert (shape(lexicon, torch.zeros(6), history=[], tfs_z=0.1).final > 0).all()


# ---- what is said of equals, edges and neutral values ---------------------------------------------


def test_of_equal_logits_top_p_keeps_the_highest_ids(lexicon):
    assert shape(lexicon, torch.zeros(4), history=[], top_p=0.5).final.tolist() == [0, 0, 0.5, 0.5]


def test_of_equal_logits_top_k_keeps_all_and_greedy_the_lowest_id(lexicon):
    logits = torch.tensor([1.0, 3.0, 3.0, 3.0, 2.0])
    assert (shape(lexicon, logits, history=[], top_k=2).final > 0).tolist() == [False, True, True, True, False]
    assert shape(lexicon, logits, history=[], temperature=0).final.tolist() == [0, 1, 0, 0, 0]


def test_of_equal_top_choices_xtc_leaves_the_highest_id(lexicon):
    logits = torch.tensor([5.0, 5.0, 5.0, 0.0])
    values = {"xtc_probability": 0.5, "xtc_threshold": 0.1}
    assert (shape(lexicon, logits, history=[], coin=0.4, **values).final > 0).tolist() == [False, False, True, True]
    assert (shape(lexicon, logits, history=[], coin=0.5, **values).final > 0).all()


def test_presence_counts_once_and_frequency_every_time(lexicon):
    presence = shape(lexicon, torch.zeros(V), presence_penalty=0.5).final
    frequency = shape(lexicon, torch.zeros(V), frequency_penalty=0.5).final
    assert (presence[7] / presence[0]).item() == pytest.approx(math.exp(-0.5))
    assert (frequency[7] / frequency[0]).item() == pytest.approx(math.exp(-2))
    assert (frequency[250] / frequency[0]).item() == pytest.approx(math.exp(-0.5))


def test_a_cold_temperature_overflows_nothing(lexicon):
    final = shape(lexicon, torch.tensor([30.0, 29.0, -40.0]), history=[], temperature=1e-44).final
    assert final.tolist() == [1, 0, 0]


NEUTRALS = [(name, {switch: NEUTRAL[switch]}) for name, (switch, *_) in FILTERS.items()]


@pytest.mark.parametrize(("name", "neutral"), NEUTRALS)
def test_a_filter_at_its_neutral_value_is_not_there(lexicon, name, neutral):
    shaped = shape(lexicon, some_logits(1), **neutral)
    assert shaped.stages == ()
    assert shaped.final is shaped.probs


NEARLY_NEUTRAL = {
    "temperature": 1.0 + 1e-7, "top_k": V, "top_p": 0.9999999999, "min_p": 1e-12, "typical_p": 0.9999999999,
    "top_a": 1e-12, "tfs_z": 0.9999999999, "top_n_sigma": 99.0, "epsilon_cutoff": 1e-12, "eta_cutoff": 1e-12,
    "xtc_probability": 1e-12, "mirostat_tau": 19.0, "repetition_penalty": 1 + 1e-7, "presence_penalty": 1e-7,
    "frequency_penalty": 1e-7, "dry_multiplier": 1e-7, "no_repeat_ngram": 999, "logit_bias": (((5,), 1e-7),),
    "banned": ("\0\0\0",), "min_new_tokens": 1, "grammar": ("regex", r"(?s:.*)"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NEARLY_NEUTRAL.items())
def test_a_filter_near_its_neutral_value_changes_nothing(lexicon, name, value):
    shaped = shape(lexicon, some_logits(1), history=[70, 71, 70], coin=0.5, **{name: value})
    assert len(shaped.stages) == 1
    allowed = shaped.final > 0
    if name == "grammar":  # control tokens and broken characters are no text
        assert allowed[2:130].all()
    else:
        assert allowed.sum() >= V - 2 * (name == "tfs_z")
    expected = torch.where(allowed, shaped.probs, 0)
    torch.testing.assert_close(shaped.final, expected / expected.sum(), atol=1e-6, rtol=1e-5)


# ---- the parts that select ------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 3, 40, 900, 5000])
def test_the_largest_are_those_that_reach_the_kth(k, ties):
    values = some_logits(k, ties, size=3_000).numpy()
    kth = np.sort(values)[-k] if k <= values.size else -np.inf
    assert filters.largest(values, k).tolist() == np.flatnonzero(values >= kth).tolist()


def test_repeats_are_what_followed_the_longest_common_endings():
    past = np.array([1, 2, 3, 9, 2, 3, 5, 1, 2, 3])
    tokens, lengths = filters.longest(*filters.repeats(past, 10))
    assert dict(zip(tokens.tolist(), lengths.tolist(), strict=True)) == {9: 3, 5: 2}
    assert filters.repeats(past, 2)[1].tolist() == [2, 2]
    assert filters.repeats(past[:0], 5)[0].size == 0
    assert filters.repeats(past[:1], 5)[0].size == 0
