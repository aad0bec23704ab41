"""Branches: moved between, named, deleted, read beside each other; and the whole conversation saved and opened."""

import copy
import json

import pytest

from demo.panels import branches
from demo.stream import run
from tests.page import Page


@pytest.fixture
def page(engine):
    """Two branches: the reply, and the same one from its fourth token on; the second is shown."""
    page = Page(engine)
    page.act("send", text="hello", seed=7)
    page.act("fork", position=page.session.reply_start + 3, token=70)
    return page


# ---- moving, naming, deleting ----------------------------------------------------------------------------------------


def test_switching_branches_brings_the_other_one_back_whole(page):
    first = list(page.session.branches[0].tokens)
    reply = page.call("switch_branch", branch=0)
    assert reply["run"] is None
    assert [t["id"] for t in page.tokens] == page.session.tokens == first
    assert reply["message"]["finish"] == "length"
    assert page.call("switch_branch", branch=2)["field"] == "branch"


def test_a_branch_tells_where_it_left_how_it_ended_and_how_surprising_it_was(page):
    first, second = page.call("rename_branch", branch=0, name="")["branches"]
    assert (first["id"], first["parent"], first["seed"], first["finish"]) == (0, None, 7, "length")
    start = page.session.reply_start
    assert (second["parent"], second["fork"]) == (0, start + 3)
    assert (first["reply"], second["reply"]) == ([start, first["n"]], [start, second["n"]])
    logprobs = [t["lp"] for t in page.tokens[start:]]
    assert second["lp"] == pytest.approx(sum(logprobs) / len(logprobs), rel=1e-4)


def test_a_branch_without_a_reply_has_no_mean(engine):
    page = Page(engine)
    (empty,) = page.call("new_chat")["branches"]
    assert (empty["lp"], empty["reply"], empty["name"]) == (None, [0, 0], "")


def test_a_name_is_kept_without_touching_the_reply_that_is_written(page):
    page.call("set_params", max_new_tokens=100)
    reply = page.call("regenerate", seed=3)
    messages = run(page.entry, reply["run"])
    next(messages)
    named = page.call("rename_branch", branch=2, name="  the third ")
    assert [b["name"] for b in named["branches"]] == ["", "", "the third"]
    list(messages)
    assert page.session.finish in ("length", "end")
    assert page.call("rename_branch", branch=0, name="")["branches"][0]["name"] == ""


@pytest.mark.parametrize("args", [{"branch": 0}, {"branch": 0, "name": 5}, {"branch": 0, "name": "x" * 81}])
def test_a_name_that_is_none_is_refused(page, args):
    assert page.call("rename_branch", **args)["field"] == "name"


@pytest.mark.parametrize("branch", [None, -1, 2, "0", 0.5, True, [0]])
def test_a_branch_that_does_not_exist_is_refused_everywhere(page, branch):
    for name in ("switch_branch", "rename_branch", "delete_branch", "branch_tokens"):
        assert page.call(name, branch=branch, name="x")["field"] == "branch"


def test_deleting_another_branch_leaves_the_one_that_is_shown_alone(page):
    epoch, tokens = page.entry.epoch, list(page.tokens)
    reply = page.call("delete_branch", branch=0)
    assert "message" not in reply
    assert [b["id"] for b in reply["branches"]] == [1]
    assert (page.entry.epoch, page.tokens) == (epoch, tokens)
    assert reply["branches"][0]["parent"] is None


def test_deleting_the_branch_that_is_shown_shows_its_parent(page):
    reply = page.call("delete_branch", branch=1)
    assert (reply["branch"], [b["id"] for b in reply["branches"]], reply["run"]) == (0, [0], None)
    assert [t["id"] for t in page.tokens] == page.session.tokens == page.session.branches[0].tokens
    refused = page.call("delete_branch", branch=0)
    assert (refused["field"], "only branch" in refused["error"]) == ("branch", True)


def test_ids_of_branches_stay_when_others_go(page):
    page.act("regenerate", seed=8)
    page.call("delete_branch", branch=1)
    assert list(page.session.branches) == [0, 2]
    page.act("regenerate", seed=9)
    assert list(page.session.branches) == [0, 2, 3]


def test_another_branch_can_be_read_beside_the_one_that_is_shown(page):
    shown = list(page.tokens)
    told = page.call("branch_tokens", branch=0)
    page.call("switch_branch", branch=0)
    assert told["toks"] == page.tokens
    assert told["settings"] == page.functions["tokens"]({"sid": page.sid, "from": 0})["settings"]
    page.call("switch_branch", branch=1)
    assert page.tokens == shown


# ---- saving and opening ----------------------------------------------------------------------------------------------


def saved(page):
    """The record as a file would hold it."""
    return json.loads(json.dumps(page.call("save")["record"], allow_nan=False))


def test_a_saved_conversation_opens_with_every_branch_and_record(page, engine):
    page.call("rename_branch", branch=0, name="first")
    page.call("set_params", temperature=0.9, stop=["\n"])
    before, told = page.call("rename_branch", branch=1, name="second"), list(page.tokens)
    other = Page(engine)
    reply = other.call("open", record=saved(page))
    assert {name: reply[name] for name in before} == before
    assert reply["params"] == page.session.params.as_dict()
    assert [{**t, "par": 0} for t in other.tokens] == [{**t, "par": 0} for t in told]
    assert reply["message"]["state"] == "idle"
    assert other.call("branch_tokens", branch=0)["toks"][-1]["id"] == page.session.branches[0].tokens[-1]


def test_what_was_opened_goes_on_as_what_was_saved(page, engine):
    other = Page(engine)
    other.call("open", record=saved(page))
    page.act("resume")
    other.act("resume")
    assert other.session.tokens == page.session.tokens
    other.act("regenerate")
    page.act("regenerate")
    assert other.session.tokens == page.session.tokens


def test_a_choice_of_an_opened_conversation_can_be_shaped_anew(page, engine):
    position = page.session.reply_start + 5
    shape = page.call("shape", position=position)
    other = Page(engine)
    other.call("open", record=saved(page))
    again = other.call("shape", position=position)
    assert (again["token"], again["drawn"], again["u"]) == (shape["token"], shape["drawn"], shape["u"])
    assert [c[2] for c in again["cand"]] == pytest.approx([c[2] for c in shape["cand"]], abs=1e-4)


def test_opening_ends_the_reply_that_is_written_and_begins_a_new_history(page):
    record, epoch = saved(page), page.entry.epoch
    page.call("set_params", max_new_tokens=300)
    reply = page.call("regenerate")
    messages = run(page.entry, reply["run"])
    next(messages)
    opened = page.call("open", record=record)
    *_, last = [json.loads(text) for text in messages]
    assert last["finish"] == "stopped"
    assert opened["message"]["epoch"] > epoch
    assert opened["message"]["run"] > reply["run"]


def broken(record, path, value):
    record = copy.deepcopy(record)
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return record


WRONG = [
    *((("format",), "other"), (("version",), 2), (("model",), "llama"), (("branches",), []), (("branches",), {})),
    *((("branch",), 5), (("branches", 0, "tokens"), [10**9]), (("branches", 0, "tokens", 0), -1)),
    *((("branches", 1, "parent"), 7), (("branches", 1, "parent"), 1), (("branches", 0, "reply_start"), 10**6)),
    *((("branches", 0, "records"), []), (("records", 0, "token"), 999), (("records", 0, "settings"), 9)),
    *((("records", 0, "candidates"), "x"), (("records", 0, "logprob"), "high"), (("settings", 0, "top_p"), 7)),
    *((("params",), {"nonsense": 1}), (("params", "temperature"), -1), (("branches", 0, "spans"), [[1]])),
    *((("branches", 0, "seed"), "x"), (("branches", 0, "finish"), "maybe"), (("branches", 0, "name"), 5)),
    *((("branches", 0, "tokens"), [5] * 600), (("branches", 1, "forked_at"), -1), (("records", 0), None)),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=[".".join(map(str, path)) for path, _ in WRONG])
def test_a_record_that_is_wrong_anywhere_is_refused_in_words_and_changes_nothing(page, path, value):
    before, epoch = list(page.session.tokens), page.entry.epoch
    reply = page.call("open", record=broken(saved(page), path, value))
    assert (reply["code"], len(reply["error"]) > 10) == ("invalid", True)
    assert (page.session.tokens, page.entry.epoch) == (before, epoch)


@pytest.mark.parametrize("record", [None, 5, "x", [], {}, {"format": "glassbox conversation", "version": 1}])
def test_anything_but_a_record_is_refused(page, record):
    assert page.call("open", record=record)["code"] == "invalid"


def test_a_record_of_settings_that_this_model_cannot_take_is_refused(page, monkeypatch):
    record = saved(page)

    def check(params):
        raise ValueError("grammar does not compile")

    monkeypatch.setattr(page.engine, "check", check)
    assert "compile" in page.call("open", record=record)["error"]


def test_a_file_that_is_too_large_is_refused(page, monkeypatch):
    monkeypatch.setattr(branches, "MAX_RECORD", 1000)
    assert page.call("open", record=saved(page))["field"] == "record"


def test_a_record_without_end_is_refused(page):
    endless = {}
    for _ in range(5000):
        endless = {"x": endless}
    assert page.functions["open"]({"sid": page.sid, "record": endless})["field"] == "record"
