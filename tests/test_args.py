"""What comes in is read with care: parameters whole or not at all, tokens as ids or text, every refusal named."""

import json
import math
import threading

import pytest

from demo.args import MAX_TOKENS, Invalid, number, patched, token_ids
from demo.live import MAX_SETTINGS
from demo.stream import run
from gpt.params import LIMITS, SamplingParams
from tests.page import WARM, Page

WRONG = [
    *(("temperature", -1), ("temperature", math.nan), ("temperature", math.inf), ("top_k", 1.5), ("top_p", 0)),
    *(("top_p", "0.5"), ("min_p", True), ("max_new_tokens", 0), ("stop", "x"), ("nonsense", 1)),
    *(("banned", [""]), ("banned", [5]), ("dry_breakers", None), ("logit_bias", [[[1], 101]]), ("self", 1)),
    *(("logit_bias", [[[], 1]]), ("logit_bias", 7), ("logit_bias", [[["a"], 1]]), ("grammar", ["regex"])),
    *(("grammar", "a+"), ("grammar", ["perl", "a"]), ("order", ["top_k", "top_k"]), ("order", ["beauty"])),
    *(("temperature", 10**400), ("logit_bias", [[[1], 10**400]]), ("xtc_probability", 2), ("mirostat_tau", [])),
]


@pytest.fixture
def page(engine):
    return Page(engine)


def test_parameters_are_patched_and_a_wrong_one_is_named(page):
    assert page.call("set_params", temperature=0, top_k=5)["params"]["top_k"] == 5
    for name, value in WRONG:
        reply = page.functions["set_params"]({"sid": page.sid, name: value})
        assert (reply["code"], reply["field"]) == ("invalid", name), (name, value, reply)
        assert name in reply["error"]
    assert page.session.params == WARM.replace(temperature=0, top_k=5)


@pytest.mark.parametrize("value", [0, -2.5, 7, 1e300])
def test_a_finite_number_is_taken_and_a_missing_one_is_the_default(value):
    assert number({"low": value}, "low", 3) == value
    assert number({}, "low", 3) == 3.0


@pytest.mark.parametrize("value", ["1", None, True, [1], math.nan, -math.inf, 10**400])
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(Invalid, match="low must be a number") as refusal:
        number({"low": value}, "low", 0.0)
    assert refusal.value.field == "low"


@pytest.mark.parametrize("name", LIMITS)
def test_every_number_can_be_set_to_both_ends_of_what_is_allowed(page, name):
    low, high = LIMITS[name]
    assert page.call("set_params", **{name: high})["params"][name] == high
    reply = page.call("set_params", **{name: low})
    assert reply["field"] == name if "error" in reply else reply["params"][name] == low


def test_lists_and_grammar_come_back_as_they_were_sent(page):
    patch = {
        "stop": ["\n\n"], "banned": ["a", " b"], "dry_breakers": [], "logit_bias": [[[5, 6], -2.5]],
        "grammar": ["regex", "a+"], "order": ["min_p", "temperature"],
    }  # fmt: skip
    params = page.call("set_params", **patch)["params"]
    assert {name: params[name] for name in patch} | {"order": params["order"][:2]} == patch
    assert SamplingParams(**params) == page.session.params


def test_a_patch_is_taken_whole_or_not_at_all(page):
    assert page.call("set_params", temperature=0.3, top_k=-1)["field"] == "top_k"
    assert page.session.params == WARM


def test_what_only_the_models_tokens_can_tell_is_said_at_its_control(engine, monkeypatch):
    def check(params):
        if params.grammar:
            raise ValueError("grammar does not compile: missing )")

    page = Page(engine)
    monkeypatch.setattr(engine, "check", check)
    reply = page.call("set_params", grammar=["regex", "("], top_k=3)
    assert (reply["field"], reply["error"]) == ("grammar", "grammar does not compile: missing )")
    assert page.session.params == WARM


def test_a_wrong_value_does_not_disturb_the_reply_that_is_written(page):
    reply = page.call("send", text="hello")
    messages = run(page.entry, reply["run"])
    next(messages)
    for name, value in WRONG:
        assert "error" in page.functions["set_params"]({"sid": page.sid, name: value})
    assert page.functions["fork"]({"sid": page.sid, "position": 0, "token": 3})["field"] == "position"
    assert page.functions["switch_branch"]({"sid": page.sid, "branch": 9})["field"] == "branch"
    assert page.functions["edit"]({"sid": page.sid, "message": 7, "text": "x"})["field"] == "message"
    assert page.functions["regenerate"]({"sid": page.sid, "seed": "x"})["field"] == "seed"
    assert page.functions["samples"]({"sid": page.sid, "n": 1})["field"] == "n"
    assert page.functions["open"]({"sid": page.sid, "record": {}})["code"] == "invalid"
    assert page.functions["send"]({"sid": page.sid, "text": "x", "system": "y" * 3000})["code"] == "invalid"
    list(messages)
    assert page.session.finish == "length"


def test_settings_that_are_too_long_to_cross_to_a_worker_are_refused(page):
    reply = page.call("set_params", top_k=3, grammar=["regex", "a" * MAX_SETTINGS])
    assert reply["field"] == "grammar"
    assert "too long" in reply["error"]


def test_of_many_changes_at_the_same_time_none_is_lost(page):
    names = ("temperature", "top_p", "min_p", "top_a", "tfs_z", "typical_p")

    def move(name):
        for i in range(1, 101):
            page.call("set_params", **{name: i / 100})

    threads = [threading.Thread(target=move, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [getattr(page.session.params, name) for name in names] == [1.0] * len(names)


def test_a_seed_must_be_a_whole_number_that_javascript_can_hold(page):
    assert page.call("set_seed", seed=2**53 - 1)["seed"] == 2**53 - 1
    for seed in (-1, 2**53, 1.5, "1", True):
        assert page.call("set_seed", seed=seed)["field"] == "seed"


def test_half_a_character_never_comes_back(page):
    half = "x\ud83d"
    page.act("send", text=half)
    assert page.text()[0] == "x\ufffd"
    assert page.call("rename_branch", branch=0, name=half)["branches"][0]["name"] == "x\ufffd"
    assert page.call("resolve", text="\ud83d\ude00") == page.call("resolve", text="😀")
    for name, value in (("stop", [half]), ("banned", [half]), ("grammar", ["regex", half])):
        assert page.call("set_params", **{name: value})["field"] == name
    record = page.call("save")["record"]
    record["branches"][0]["name"] = half
    assert page.call("open", record=record)["field"] == "record"
    json.dumps(page.call("save"), ensure_ascii=False).encode()


def test_tokens_are_taken_as_ids_or_as_text(engine):
    assert token_ids({"token": 5}, engine) == [5]
    assert token_ids({"tokens": [5, 6]}, engine) == [5, 6]
    assert token_ids({"text": "hé"}, engine) == engine.tokenizer.encode("hé")
    assert token_ids({"text": "<|im_end|>"}, engine) == engine.tokenizer.encode("<|im_end|>")
    assert token_ids({}, engine) == []


@pytest.mark.parametrize("args", [
    {"token": -1}, {"token": 258}, {"token": 1.5}, {"token": True}, {"tokens": []}, {"tokens": 5}, {"tokens": "ab"},
    {"tokens": [1] * (MAX_TOKENS + 1)}, {"tokens": [1, "a"]}, {"text": ""}, {"text": 5}, {"text": "x" * 65},
])  # fmt: skip
def test_tokens_that_do_not_exist_or_are_too_many_are_refused(engine, args):
    with pytest.raises(Invalid) as refused:
        token_ids(args, engine)
    assert refused.value.field in ("tokens", "text")


@pytest.mark.parametrize("patch", [5, "temperature", [1]])
def test_a_patch_must_be_an_object(engine, patch):
    with pytest.raises(Invalid, match="must be an object"):
        patched(engine, WARM, patch)
