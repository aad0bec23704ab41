"""Parameters refuse what they cannot mean, by name, and survive JSON."""

import json

import pytest

from gpt.params import FILTERS, LIMITS, NEUTRAL, ORDER, PRESETS, SamplingParams

EVERYTHING = SamplingParams(
    temperature=0.8, dynatemp_range=0.2, top_k=40, banned=("a", "b"), stop=["\n"], dry_multiplier=0.8,
    logit_bias=[[[5, 6], -3], [[7], 2.5]], grammar=["regex", "a+"], order=["top_k", "temperature"],
)  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": "hot"}, {"temperature": True},
        {"temperature": None}, {"temperature": 5.1}, {"dynatemp_exponent": 0}, {"top_k": 2.5}, {"top_k": -1},
        {"top_p": 0}, {"top_p": 1.1}, {"min_p": 2}, {"typical_p": 0}, {"top_a": -1}, {"tfs_z": 0},
        {"top_n_sigma": float("inf")}, {"epsilon_cutoff": 2}, {"eta_cutoff": -1}, {"xtc_probability": 1.5},
        {"xtc_threshold": float("nan")}, {"mirostat_tau": -1}, {"mirostat_eta": 2}, {"repetition_penalty": 0},
        {"presence_penalty": float("inf")}, {"frequency_penalty": [1]}, {"penalty_window": 0.5}, {"dry_base": 0.9},
        {"dry_multiplier": -1}, {"dry_allowed_length": 0}, {"no_repeat_ngram": -2}, {"min_new_tokens": -1},
        {"max_new_tokens": 0}, {"stop": "text"}, {"stop": ("",)}, {"banned": "text"}, {"banned": [3]}, {"banned": 3},
        {"dry_breakers": ("a", "")}, {"logit_bias": 5}, {"logit_bias": [[5, 1]]}, {"logit_bias": [[[], 1]]},
        {"logit_bias": [[[-1], 1]]}, {"logit_bias": [[[True], 1]]}, {"logit_bias": [[[1], float("nan")]]},
        {"logit_bias": [[[1], 101]]}, {"grammar": "a+"}, {"grammar": ["lark", "a"]}, {"grammar": ["regex", " "]},
        {"grammar": ["regex"]}, {"grammar": ["regex", 3]}, {"order": ["top_k", "top_k"]}, {"order": ["top_z"]},
        {"order": "top_k"},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=rf"^{name} (must|needs)"):
        SamplingParams(**bad)
    with pytest.raises(ValueError, match=rf"^{name} (must|needs)"):
        EVERYTHING.replace(**bad)


@pytest.mark.parametrize(("name", "limits"), LIMITS.items())
def test_limits_themselves_are_allowed_but_for_those_that_must_be_above(name, limits):
    low, high = limits
    assert getattr(SamplingParams(**{name: high}), name) == high
    if name in ("top_p", "typical_p", "tfs_z"):
        with pytest.raises(ValueError, match=f"^{name} must be a number above 0"):
            SamplingParams(**{name: low})
    else:
        assert getattr(SamplingParams(**{name: low}), name) == low


@pytest.mark.parametrize("params", [SamplingParams(), EVERYTHING, *(SamplingParams(**p) for p in PRESETS.values())])
def test_every_value_survives_json(params):
    assert SamplingParams(**json.loads(json.dumps(params.as_dict(), allow_nan=False))) == params


def test_lists_become_tuples_and_whole_numbers_stay_whole():
    assert EVERYTHING.stop == ("\n",)
    assert EVERYTHING.logit_bias == (((5, 6), -3.0), ((7,), 2.5))
    assert EVERYTHING.grammar == ("regex", "a+")
    assert SamplingParams(top_k=3.0).top_k == 3
    assert isinstance(SamplingParams(top_k=3.0).top_k, int)
    assert hash(EVERYTHING) == hash(EVERYTHING.replace())


def test_an_unknown_parameter_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no sampling parameter heat; there are temperature, top_k"):
        SamplingParams().replace(heat=1)


def test_filters_that_do_nothing_are_not_active():
    assert SamplingParams(temperature=1).active() == ()
    assert SamplingParams(temperature=1, **{k: v for k, v in NEUTRAL.items() if k != "temperature"}).active() == ()
    assert SamplingParams(temperature=0).active() == ("temperature",)
    assert SamplingParams(temperature=1, dynatemp_range=0.1).active() == ("temperature",)
    assert SamplingParams(temperature=1, penalty_window=5, dry_base=2, mirostat_eta=0.5).active() == ()


def test_the_order_is_as_declared_and_what_it_leaves_out_follows():
    assert EVERYTHING.order[:2] == ("top_k", "temperature")
    assert sorted(EVERYTHING.order) == sorted(ORDER)
    assert EVERYTHING.active() == ("top_k", "temperature", "logit_bias", "dry", "banned", "grammar")


def test_every_filter_has_a_switch_with_a_neutral_value():
    assert all(switches[0] in NEUTRAL for switches in FILTERS.values())
    assert {name for names in FILTERS.values() for name in names} <= set(SamplingParams().as_dict())
