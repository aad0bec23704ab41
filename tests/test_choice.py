"""The choice of a token, shown, shaped anew, searched and made otherwise, without running the model."""

import math

import pytest
import torch

from demo.stream import run
from gpt.params import SamplingParams
from gpt.sampling import uniform
from tests.page import WARM, Page

FILTERS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2}


@pytest.fixture
def page(engine):
    page = Page(engine)
    page.call("set_params", **FILTERS)
    page.act("send", text="hello")
    return page


@pytest.fixture
def position(page):
    return page.session.reply_start + 4


# ---- how a choice was shaped -----------------------------------------------------------------------------------------


def test_the_shape_of_a_recorded_choice_is_its_record(page, position):
    shape, record = page.call("shape", position=position), page.session.records[position]
    assert (shape["token"], shape["drawn"], shape["u"]) == (record.token, record.token, record.u)
    assert (shape["given"], shape["same"], shape["rank"]) == (False, True, record.rank)
    assert shape["entropy"] == pytest.approx(record.entropy, abs=1e-4)
    told = {c[0]: c[1:] for c in shape["cand"]}
    for candidate in record.candidates:
        text, raw, final, by = told[candidate.token]
        assert (text, by) == (candidate.text, candidate.removed_by or "")
        assert (raw, final) == pytest.approx((candidate.raw, candidate.final), abs=1e-5)
    assert [[s["name"], s["tokens"], s["kept"]] for s in shape["stages"][1:]] == [
        [name, tokens, pytest.approx(kept, abs=1e-5)] for name, tokens, kept in page.tokens[position]["st"]
    ]


def test_stages_lead_from_the_models_distribution_to_the_one_that_was_drawn_from(page, position):
    shape = page.call("shape", position=position)
    first, *_, last = shape["stages"]
    assert (first["name"], first["tokens"], first["kept"], first["n_removed"]) == ("model", 258, 1.0, 0)
    assert first["probs"] == [c[2] for c in shape["cand"]]
    assert last["probs"] == pytest.approx([c[3] for c in shape["cand"]], abs=1e-5)
    assert [s["name"] for s in shape["stages"][1:]] == ["repetition_penalty", *list(FILTERS)[:-1]]
    assert [a["tokens"] - b["tokens"] for a, b in zip(shape["stages"], shape["stages"][1:], strict=False)] == [
        s["n_removed"] for s in shape["stages"][1:]
    ]


def test_a_stage_names_the_most_probable_tokens_that_it_removed(page, position):
    shape = page.call("shape", position=position, params={"temperature": 1, "repetition_penalty": 1, "top_p": 1,
                                                          "min_p": 0, "top_k": 3})  # fmt: skip
    stage = shape["stages"][1]
    assert (stage["name"], stage["tokens"], stage["n_removed"]) == ("top_k", 3, 255)
    assert [t for t, _, _ in stage["removed"]] == [c[0] for c in shape["cand"] if c[4] == "top_k"][:6]
    assert [p for _, _, p in stage["removed"]] == sorted((p for _, _, p in stage["removed"]), reverse=True)


def test_other_settings_reshape_the_past_with_the_same_draw(page, position):
    u = uniform(page.session.seed, position)
    greedy = page.call("shape", position=position, params={"temperature": 0})
    assert (greedy["same"], greedy["u"], greedy["params"]["temperature"]) == (False, u, 0)
    assert greedy["drawn"] == greedy["cand"][0][0]
    assert page.session.params.temperature == FILTERS["temperature"]


def test_the_settings_in_force_are_the_base_or_those_that_made_the_token(page, position):
    page.call("set_params", temperature=0)
    assert page.call("shape", position=position)["params"]["temperature"] == 0
    made = page.call("shape", position=position, base="made", params={"top_k": 7})
    assert (made["params"]["temperature"], made["params"]["top_k"]) == (FILTERS["temperature"], 7)
    assert page.call("shape", position=position, base="made")["same"] is True


def test_a_given_token_shows_what_the_model_would_have_said_there(page):
    shape = page.call("shape", position=5)
    assert (shape["given"], shape["token"]) == (True, page.session.tokens[5])
    logits = page.engine.model(torch.tensor([page.session.tokens[:5]]), torch.arange(5))[0, -1]
    best = int(logits.argmax())
    assert shape["cand"][0][0] == best
    assert shape["cand"][0][2] == pytest.approx(float(logits.softmax(0)[best]), abs=1e-4)
    assert shape["token"] in [c[0] for c in shape["cand"]]


def test_the_choice_that_comes_next_has_no_token_yet_and_is_what_comes(page):
    n = len(page.session.tokens)
    shape = page.call("shape", position=n)
    assert (shape["token"], shape["rank"], shape["given"]) == (None, None, False)
    page.act("resume", limit=1)
    assert page.session.tokens[n] == shape["drawn"]


def test_the_first_token_of_a_reply_can_be_looked_at_before_there_is_one(page):
    page.call("send", text="and")
    page.call("stop")
    page.entry.rest()
    shape = page.call("shape", position=len(page.session.tokens))
    assert shape["token"] is None
    page.act("resume", limit=1)
    assert page.session.tokens[-1] == shape["drawn"]


def test_another_shape_of_the_same_position_costs_no_logits(page, position, monkeypatch):
    page.call("shape", position=position)
    monkeypatch.setattr(page.engine, "logits", lambda *_: pytest.fail("the logits were kept"))
    assert page.call("shape", position=position, params={"temperature": 2})["epoch"] == page.entry.epoch


def test_trying_settings_leaves_the_logits_as_they_were(page, position):
    before = page.call("shape", position=position)
    tried = {"temperature": 3, "logit_bias": [[[5], 9]], "frequency_penalty": 2, "dry_multiplier": 1, "top_n_sigma": 1}
    page.call("shape", position=position, params=tried)
    assert page.call("shape", position=position) == before


def test_a_stage_tells_what_it_decided_by(page, position):
    params = {"xtc_probability": 1, "xtc_threshold": 0.01, "mirostat_tau": 3, "dynatemp_range": 0.5, "top_k": 0}
    stages = {s["name"]: s for s in page.call("shape", position=position, params=params)["stages"]}
    assert stages["xtc"]["note"] == {"coin": uniform(page.session.seed, position, stream=1)}
    assert stages["mirostat"]["note"] == {"mu": 6}
    assert 0.3 <= stages["temperature"]["note"]["value"] <= 1.3
    assert "note" not in stages["top_p"]
    wide = {"temperature": 1, "dynatemp_range": 1, "dynatemp_exponent": 1, "repetition_penalty": 1}
    varied = page.call("shape", position=position, params=wide)["stages"]
    entropy = page.session.records[position].entropy / math.log(258)
    assert next(s["note"]["value"] for s in varied if "note" in s) == pytest.approx(2 * entropy, abs=1e-3)
    shape = page.call("shape", position=position, params={"temperature": 0.5})
    assert next(s["note"] for s in shape["stages"] if s["name"] == "temperature") == {"value": 0.5}


def test_a_filter_that_would_leave_nothing_is_named_and_removes_nothing(page, position):
    params = {"banned": ["z"], "grammar": ["choice", "z"]}
    shape = page.call("shape", position=position, params=params)
    assert shape["ignored"] == ["grammar"]
    assert next(s["n_removed"] for s in shape["stages"] if s["name"] == "grammar") == 0


def test_kept_logits_do_not_outlive_a_change_of_history(page, position):
    before = page.call("shape", position=position)
    page.act("edit", message=0, text="other")
    assert page.call("shape", position=position)["cand"] != before["cand"]


def test_more_candidates_come_on_request(page, position):
    assert len(page.call("shape", position=position, n=1)["cand"]) <= 3
    assert len(page.call("shape", position=position, n=200)["cand"]) >= 200


def test_shapes_can_be_asked_for_while_a_reply_is_written(page, position):
    page.call("set_params", max_new_tokens=200)
    reply = page.call("send", text="go on")
    messages = run(page.entry, reply["run"])
    next(messages)
    assert page.call("shape", position=position)["token"] == page.session.tokens[position]
    page.call("stop")
    list(messages)


@pytest.mark.parametrize("args", [
    {}, {"position": 0}, {"position": 10_000}, {"position": "5"}, {"position": 5, "n": 0}, {"position": 5, "n": 201},
    {"position": 5, "base": "then"}, {"position": 5, "params": 7}, {"position": 5, "params": {"top_k": -1}},
])  # fmt: skip
def test_a_shape_that_cannot_be_is_refused_with_its_field(page, args):
    reply = page.call("shape", **args)
    assert (reply["code"], reply["field"] != "") == ("invalid", True)


def test_every_number_of_a_shape_can_travel(page, position):
    for params in ({"temperature": 0}, {"temperature": 0.01}, {"logit_bias": [[[5], -100]]}, {"min_p": 1}):
        for stage in page.call("shape", position=position, params=params)["stages"]:
            assert all(math.isfinite(p) for p in stage["probs"])


# ---- searching -------------------------------------------------------------------------------------------------------


def test_a_search_finds_tokens_by_their_text_whatever_its_case(page, position):
    found = page.call("search", position=position, query="A")
    assert {c[1] for c in found["cand"]} >= {"a", "A"}
    assert all("a" in c[1].casefold() for c in found["cand"])
    assert [c[2] for c in found["cand"]] == sorted((c[2] for c in found["cand"]), reverse=True)
    shape = page.call("shape", position=position, n=200)
    ranks = {c[0]: i for i, c in enumerate(shape["cand"], 1)}
    assert all(abs(ranks.get(c[0], c[5]) - c[5]) == 0 for c in found["cand"] if c[5] <= 20)


def test_a_search_for_a_number_sign_and_an_id_finds_that_token(page, position):
    (found,) = page.call("search", position=position, query="#70")["cand"]
    assert (found[0], found[1]) == (70, page.engine.tokenizer.piece(70))
    assert page.call("search", position=position, query="#999")["cand"] == []
    assert page.call("search", position=position, query="#")["cand"][0][1] == "#"


def test_what_a_search_leaves_out_is_counted(page, position):
    everything = page.call("search", position=position, query="<", limit=200)
    assert everything["more"] == 0
    some = page.call("search", position=position, query="<", limit=1)
    assert some["more"] == len(everything["cand"]) - 1
    assert page.call("search", position=position, query="no token is this long") == {"cand": [], "more": 0}


@pytest.mark.parametrize("args", [{"query": ""}, {"query": 5}, {}, {"query": "a", "limit": 0}])
def test_a_search_for_nothing_is_refused(page, position, args):
    assert page.call("search", position=position, **args)["field"] in ("query", "limit")


# ---- resolving -------------------------------------------------------------------------------------------------------


def test_a_text_is_shown_as_the_tokens_it_splits_into(page):
    ids = page.engine.tokenizer.encode(" a\n")
    tokens = [[token, page.engine.tokenizer.piece(token)] for token in ids]
    assert page.call("resolve", text=" a\n") == {"tokens": tokens}


@pytest.mark.parametrize("text", ["", None, 7, "x" * 65])
def test_a_text_of_no_token_or_too_many_is_refused(page, text):
    assert page.call("resolve", text=text)["field"] == "text"


# ---- another token instead -------------------------------------------------------------------------------------------


def test_a_fork_puts_the_chosen_token_there_and_goes_on(page, position):
    before = page.session.tokens[:position]
    other = next(c[0] for c in page.tokens[position]["cand"] if c[0] not in (page.session.tokens[position], 1))
    reply = page.act("fork", position=position, token=other)
    assert page.session.tokens[: position + 1] == [*before, other]
    assert page.tokens[position]["u"] is None
    assert reply["message"]["from"] <= position
    new = reply["branches"][1]
    assert (new["id"], new["parent"], new["fork"], new["n"]) == (1, 0, position, position)
    assert len(page.session.tokens) > position + 1


def test_any_token_can_be_chosen_even_one_that_was_removed(page, position):
    known = {c[0] for c in page.tokens[position]["cand"]}
    foreign = next(t for t in range(2, 258) if t not in known)
    page.act("fork", position=position, token=foreign)
    told = page.tokens[position]
    assert (told["id"], told["u"]) == (foreign, None)
    assert [c[4] for c in told["cand"] if c[0] == foreign] != [""]


def test_a_text_can_be_typed_in_as_several_tokens(page, position):
    page.act("fork", position=position, text="fox")
    ids = page.engine.tokenizer.encode("fox")
    assert page.session.tokens[position : position + 3] == ids
    assert [t["u"] for t in page.tokens[position : position + 3]] == [None] * 3
    assert page.tokens[position + 3]["u"] is not None


def test_without_a_token_a_fork_draws_anew_with_the_settings_in_force(page, position):
    page.call("set_params", temperature=0)
    page.act("fork", position=position)
    assert page.tokens[position]["rank"] >= 1
    assert page.session.records[position].params.temperature == 0
    assert page.tokens[position]["u"] is not None


def test_the_next_token_can_be_chosen_by_hand_one_at_a_time(page):
    n = len(page.session.tokens)
    page.act("fork", limit=1, position=n, token=70)
    page.act("fork", limit=1, position=n + 1, token=71)
    assert page.session.tokens[n:] == [70, 71]
    assert page.session.finish == "stopped"
    assert len(page.session.branches) == 1


def test_choosing_the_end_token_ends_the_reply(page, position):
    page.act("fork", position=position, token=1)
    assert (page.session.finish, page.session.tokens[-1]) == ("end", 1)
    assert len(page.session.tokens) == position + 1


def test_a_fork_of_a_given_token_or_to_one_that_does_not_exist_is_refused_in_words(page, position):
    given = page.call("fork", position=3, token=5)
    assert ("not sampled" in given["error"], given["field"]) == (True, "position")
    assert page.call("fork", position=position, token=258)["field"] == "tokens"
    assert page.call("fork", position=position, text="")["field"] == "text"
    assert page.call("fork", position=10_000, token=5)["field"] == "position"


def test_nothing_to_fork_is_said(engine):
    assert Page(engine).call("fork", position=0, token=3)["code"] == "invalid"


def test_parameters_for_a_shape_leave_those_in_force_alone(page, position):
    page.call("shape", position=position, params={"top_k": 1})
    assert page.session.params == WARM.replace(**FILTERS)
    assert isinstance(page.session.params, SamplingParams)
