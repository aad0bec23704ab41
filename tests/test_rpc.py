"""What the page asks for, as functions: history, settings, pulls, and what is refused."""

import json

import pytest

from demo.stream import run
from gpt.params import SamplingParams
from tests.page import WARM, Page


@pytest.fixture
def page(engine):
    return Page(engine)


# ---- greeting --------------------------------------------------------------------------------------------------------


def test_a_greeting_holds_all_that_a_page_needs(page, engine):
    greeting = page.server.hello({"owner": "tab 2"})
    json.dumps(greeting, allow_nan=False)
    assert greeting["sid"] != page.sid
    assert greeting["model"]["n_layer"] == 3
    assert greeting["model"]["chat"] is True
    assert greeting["model"]["memory_bytes"] == engine.model.nbytes()
    assert greeting["params"] == WARM.as_dict()
    assert greeting["limits"]["temperature"] == [0.0, 5.0]
    assert SamplingParams().replace(**greeting["neutral"]).active() == ()
    assert all(SamplingParams().replace(**preset) for preset in greeting["presets"].values())
    assert [*greeting["filters"]] == greeting["order"] == list(SamplingParams().order)
    assert set(greeting["params"]) >= {name for names in greeting["filters"].values() for name in names}
    assert greeting["message"]["toks"] == []
    assert (greeting["branch"], len(greeting["branches"])) == (0, 1)


def test_a_reloaded_page_gets_everything_back(page):
    page.act("send", text="hello")
    before = list(page.tokens)
    greeting = page.server.hello({"owner": "tab again", "sid": page.sid, "adopt": True})
    assert greeting["sid"] == page.sid
    assert greeting["message"]["toks"] == before
    assert greeting["message"]["state"] == "idle"
    assert greeting["message"]["finish"] == "length"


def test_a_reloaded_page_is_told_which_head_it_watched_if_it_did(page):
    again = {"owner": "tab again", "sid": page.sid, "adopt": True}
    assert "selection" not in page.server.hello(again)
    page.call("select", key="a", heads=[[2, 3], [0, 1]])
    assert page.server.hello(again)["selection"] == {"layer": 2, "head": 3}
    page.call("select")
    assert "selection" not in page.server.hello(again)
    assert "selection" not in page.server.hello({"owner": "another"})


def test_a_sid_without_the_mark_of_a_reload_is_not_taken_over(page):
    assert page.server.hello({"owner": "copy", "sid": page.sid})["sid"] != page.sid


def test_a_reloaded_page_is_told_of_its_branches(page):
    page.act("send", text="hello")
    page.act("regenerate", seed=9)
    greeting = page.server.hello({"owner": "tab again", "sid": page.sid, "adopt": True})
    assert [(b["id"], b["parent"], b["seed"]) for b in greeting["branches"]] == [(0, None, 0), (1, 0, 9)]
    assert (greeting["branch"], greeting["seed"]) == (1, 9)


def test_every_refusal_has_a_code_and_a_field(page, monkeypatch):
    monkeypatch.setattr(page.engine, "logits", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    page.act("send", text="hello")
    refusals = [
        page.call("shape", position=3), page.call("send", text=""), page.call("resume"),
        page.functions["stop"]({"sid": "gone"}), page.call("edit", message=0, text="x", seed=-1),
    ]  # fmt: skip
    assert [r["code"] for r in refusals[:2]] == ["failed", "invalid"]
    assert all({"error", "code", "field"} == set(r) for r in refusals if "error" in r)


def test_a_reload_in_mid_reply_ends_it_and_it_can_be_resumed(page):
    reply = page.call("send", text="hello")
    page.call("set_params", max_new_tokens=400)
    generator = run(page.entry, reply["run"])
    next(generator)
    greeting = page.server.hello({"owner": "again", "sid": page.sid, "adopt": True})
    assert greeting["message"]["finish"] == "stopped"
    list(generator)
    assert greeting["message"]["n"] == len(page.session.tokens)
    page.call("set_params", max_new_tokens=3)
    page.tokens = greeting["message"]["toks"]
    n = len(page.tokens)
    page.act("resume")
    assert len(page.tokens) == n + 3


def test_a_reply_that_never_began_can_be_resumed_after_a_reload(page):
    page.call("send", text="hello")
    greeting = page.server.hello({"owner": "again", "sid": page.sid, "adopt": True})
    assert (greeting["message"]["state"], greeting["message"]["finish"]) == ("idle", "stopped")
    page.act("resume")
    assert len(page.text()) == 2


def test_an_unknown_session_is_gone_for_every_function(page):
    for name, function in page.functions.items():
        if name != "hello":
            assert function({"sid": "unknown", "text": "x"})["code"] == "gone", name


# ---- history ---------------------------------------------------------------------------------------------------------


def test_ten_turns_keep_every_message_exactly(page):
    for turn in range(10):
        page.call("set_params", max_new_tokens=4)
        page.act("send", text=f"{turn}<|im_end|>你")
    assert page.text()[::2] == [f"{turn}<|im_end|>你" for turn in range(10)]
    assert len(page.text()) == 20
    assert [t["id"] for t in page.tokens] == page.session.tokens
    fresh = page.engine.session()
    page.engine.extend(fresh, page.engine.messages(page.session)[:-1])
    assert page.session.tokens[: len(fresh.tokens)] == fresh.tokens


def test_a_system_prompt_comes_first_and_can_be_replaced(page):
    page.act("send", text="hi", system="Be brief.")
    page.act("send", text="again", system="Be long.")
    assert page.text()[:2] == ["Be long.", "hi"]
    page.call("new_chat", system="Speak French.")
    page.act("send", text="hi")
    assert page.text()[0] == "Speak French."


def test_sending_while_a_reply_streams_ends_it_and_keeps_its_text(page):
    page.call("set_params", max_new_tokens=400)
    reply = page.call("send", text="first")
    generator = run(page.entry, reply["run"])
    for text in (next(generator), next(generator)):
        page.take(json.loads(text))
    page.call("set_params", max_new_tokens=5)
    page.act("send", text="second")
    assert [json.loads(text)["run"] for text in generator][-1] == reply["run"]
    roles = [m["role"] for m in page.engine.messages(page.session)]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert page.session.finish == "length"


def test_regenerate_with_the_same_seed_gives_the_same_reply_and_another_seed_another(page):
    page.act("send", text="hello", seed=7)
    first = page.session.tokens[page.session.reply_start :]
    page.act("regenerate")
    assert page.session.tokens[page.session.reply_start :] == first
    reply = page.act("regenerate", seed=8)
    assert (reply["seed"], len(reply["branches"])) == (8, 3)
    assert page.session.tokens[page.session.reply_start :] != first


def test_an_edit_cuts_there_and_the_old_branch_stays(page):
    page.act("send", text="one")
    page.act("send", text="two")
    whole_before = list(page.session.tokens)
    reply = page.act("edit", message=0, text="uno")
    assert page.text()[0] == "uno"
    assert len(page.text()) == 2
    assert reply["branches"][0]["n"] == len(whole_before)
    assert page.session.branches[0].tokens == whole_before


def test_editing_the_system_prompt_answers_the_last_message_again(page):
    page.act("send", text="one", system="Be brief.")
    page.act("send", text="two")
    page.act("edit", message=0, text="Be long.")
    roles = [m["role"] for m in page.engine.messages(page.session)]
    assert page.text()[0] == "Be long."
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_a_reply_cannot_be_edited(page):
    page.act("send", text="one")
    assert page.call("edit", message=1, text="mine")["field"] == "message"
    assert page.call("edit", message=9, text="x")["code"] == "invalid"


def test_an_end_token_that_was_sampled_moves_to_the_template_when_a_message_follows(page):
    page.act("send", text="hello", limit=2)
    session = page.session
    record = session.records[-1]
    session.tokens[-1], session.finish = 1, "end"
    session.records[-1] = _with_token(record, 1)
    page.tokens = page.functions["tokens"]({"sid": page.sid, "from": 0})["toks"]
    end = len(page.tokens) - 1
    assert page.tokens[end]["role"] == "assistant"
    page.act("send", text="next")
    assert page.tokens[end]["role"] == "template"
    assert page.tokens[end]["s"] == "<|im_end|>"
    assert page.tokens == page.functions["tokens"]({"sid": page.sid, "from": 0})["toks"]


def test_resume_goes_on_after_the_length_was_reached(page):
    page.act("send", text="hello")
    n = len(page.session.tokens)
    page.act("resume", limit=1, count=1)
    assert len(page.session.tokens) == n + 1


def test_stop_ends_the_run_at_the_next_token_and_does_not_wait(page):
    page.call("set_params", max_new_tokens=400)
    reply = page.call("send", text="hello")
    generator = run(page.entry, reply["run"])
    next(generator)
    assert page.call("stop") == {}
    *_, last = list(generator)
    assert json.loads(last)["finish"] == "stopped"


def test_stop_then_resume_at_once_goes_on(page):
    page.call("set_params", max_new_tokens=300)
    reply = page.call("send", text="hello")
    old = run(page.entry, reply["run"])
    next(old)
    page.call("stop")
    resumed = page.call("resume")
    received = [json.loads(text) for text in run(page.entry, resumed["run"], 5)]
    assert received[-1]["n"] == resumed["message"]["n"] + 5
    assert received[-1]["finish"] == "stopped"


def test_a_new_chat_is_empty_and_keeps_the_parameters(page):
    page.call("set_params", temperature=1.5)
    page.act("send", text="hello")
    epoch = page.entry.epoch
    reply = page.call("new_chat")
    assert page.tokens == []
    assert (len(reply["branches"]), page.session.params.temperature) == (1, 1.5)
    assert page.entry.epoch > epoch
    page.act("send", text="hello")
    assert page.tokens[-1]["par"] == 0


def test_what_was_cut_to_fit_the_context_is_said(page):
    page.call("set_params", max_new_tokens=8)
    page.act("send", text="a" * 200)
    page.act("send", text="b" * 200)
    reply = page.act("send", text="c" * 200)
    assert "oldest messages were left out" in reply["notice"]
    assert page.text()[0] == "c" * 200 or page.text()[-2] == "c" * 200
    reply = page.act("send", text="d" * 2000)
    assert "tokens of the newest message" in reply["notice"]
    assert reply["cut"][1] > 1000
    assert page.text()[-2].strip("d") == ""


@pytest.mark.parametrize("text", ["", "   \n", None, 5, ["x"]])
def test_an_empty_message_is_refused_and_nothing_is_lost(page, text):
    page.act("send", text="hello")
    before = list(page.session.tokens)
    reply = page.call("send", text=text)
    assert reply["code"] == "invalid"
    assert "empty" in reply["error"]
    assert page.session.tokens == before


def test_nothing_to_regenerate_resume_or_edit_is_said(page):
    for name in ("regenerate", "resume"):
        assert page.call(name)["code"] == "invalid"
    assert page.call("edit", message=0, text="x")["code"] == "invalid"
    assert page.call("fork", position=0, token=3)["code"] == "invalid"


# ---- pulls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-1, 10_000, "x", 0.5])
def test_tokens_from_where_there_are_none_are_refused(page, start):
    page.act("send", text="hello")
    assert page.call("tokens", **{"from": start})["field"] == "from"


def test_reading_gives_a_session_whose_every_token_was_read_but_not_those_of_a_reply_that_is_to_come(page):
    page.act("send", text="hello")
    page.act("regenerate", seed=99)
    page.call("switch_branch", branch=0)
    assert page.session.cache.length < len(page.session.tokens)
    assert page.server.read({"sid": page.sid}) is page.entry
    assert page.session.cache.length == len(page.session.tokens)
    assert not page.entry.streaming
    page.call("send", text="more")
    before = page.session.cache.length
    page.server.read({"sid": page.sid})
    assert page.session.cache.length == before


def test_a_branch_is_read_whole_in_a_session_of_its_own_and_the_one_shown_is_the_session_itself(page):
    page.act("send", text="hello")
    page.act("regenerate", seed=99)
    server, entry = page.server, page.entry
    assert server.branch_session(entry, None) is server.branch_session(entry, 1) is entry.session
    other = server.branch_session(entry, 0)
    assert other is not entry.session
    assert other.tokens == entry.session.branches[0].tokens
    assert other.cache.length == len(other.tokens)
    assert server.branch_session(entry, 0) is other
    for wrong in (2, -1, "0", 0.5, [0]):
        with pytest.raises(ValueError, match=r"branch must be|no branch 2"):
            server.branch_session(entry, wrong)


@pytest.mark.parametrize("args", [None, [], "x", 7, [1, 2]])
def test_anything_but_a_dict_is_gone(page, args):
    for function in page.functions.values():
        if function.__name__ != "hello":
            assert "error" in function(args)


def _with_token(record, token):
    return type(record)(
        **{name: getattr(record, name) for name in record.__slots__} | {"token": token, "finish": "end"}
    )
