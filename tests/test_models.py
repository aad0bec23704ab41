"""Models picked on the page: loaded beside the old one, one session each, and freed when nobody is left."""

import gc
import threading
import time
import weakref
from dataclasses import dataclass

import pytest

from demo import models as module
from demo.models import policy_of
from demo.stream import run
from gpt.catalog import Estimate
from gpt.chat import ChatTemplate
from gpt.engine import Engine
from gpt.interp import attention_pattern
from gpt.params import SamplingParams
from tests.conftest import byte_fields, random_model
from tests.page import NO_END, Page

WAIT = 10.0  # seconds


@dataclass
class Loader:
    """Stands for `gpt.load`: models that are made up, when `go` says so."""

    tokenizer: object
    chat: object
    go: threading.Event
    made: list

    def __call__(self, name, device, dtype, progress, query_bytes, revision):
        progress("read", 0, 100)
        while not self.go.wait(0.01):
            progress("read", 40, 100)
        if name == "broken":
            raise ValueError("broken has no config.json; give another folder")
        if name == "odd":
            raise KeyError("odd")
        progress("read", 100, 100)
        chat = None if name == "base" else self.chat
        engine = Engine(random_model(seed=5, n_layer=2, n_head=2, n_kv_head=1, head_dim=8), self.tokenizer, chat, name)
        engine.query_bytes = query_bytes
        self.made.append(weakref.ref(engine))
        return engine


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    """Everything fits, whatever its name."""
    found = Estimate(download=0, memory=1000, free_memory=10_000, free_disk=10_000, precision="stored")
    for place in (module, __import__("demo.panels.models", fromlist=["x"])):
        monkeypatch.setattr(place, "estimate", lambda *asked: found)
    return found


@pytest.fixture
def loader(tokenizer, chat):
    loader = Loader(tokenizer, chat, threading.Event(), [])
    loader.go.set()
    yield loader
    loader.go.set()


@pytest.fixture
def page(engine, loader):
    return Page(engine, policy="any", load=loader)


def wait_for(page, state):
    """The load of a page, once it has come to a state (None: forgotten)."""
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        load = page.call("load_state")["load"]
        if (load and load["state"]) == state:
            return load
        time.sleep(0.01)
    raise AssertionError(f"it is still {load}")


def pick(page, name, carry=False):
    """Load a model and go over to it, as the page does."""
    reply = page.call("load_model", name=name)
    assert "error" not in reply, reply
    wait_for(page, "ready")
    reply = page.call("use_model", carry=carry)
    assert "error" not in reply, reply
    page.sid = reply["sid"]
    page.store.leave("tab")  # the page is loaded anew
    greeting = page.server.hello({"owner": "tab", "sid": page.sid, "adopt": True})
    page.tokens = list(greeting["message"]["toks"])
    return greeting | reply


def words(page):
    return [(m["role"], m["content"]) for m in page.entry.engine.messages(page.session)]


# ---- switching -------------------------------------------------------------------------------------------------------


def test_the_old_model_serves_until_the_new_one_is_used(page, loader):
    loader.go.clear()
    assert page.call("load_model", name="other")["load"]["state"] == "loading"
    page.act("send", text="hello")
    assert page.call("load_state")["load"]["done"] in (0, 40)
    loader.go.set()
    assert wait_for(page, "ready")["name"] == "other"
    page.act("send", text="again")
    assert page.entry.engine.name == "tiny"
    greeting = page.server.hello({"owner": "tab again", "sid": page.sid, "adopt": True})
    assert (greeting["load"]["state"], greeting["model"]["name"]) == ("ready", "tiny")


def test_everything_on_the_page_is_the_new_models(page):
    page.act("send", text="hello")
    page.call("select", key="a", heads=[[2, 3]])
    before = page.sid
    greeting = pick(page, "other")
    assert (greeting["model"]["name"], greeting["model"]["n_layer"], greeting["model"]["n_head"]) == ("other", 2, 2)
    assert (greeting["load"], greeting["message"]["toks"], page.entry.watched) == (None, [], None)
    page.act("send", text="hello")
    assert page.call("overview", heads=[[1, 1]])["n"] > 0
    assert page.call("overview", heads=[[2, 3]])["code"] == "invalid"
    assert len(page.call("grid", metric="entropy")["values"]) == 4
    assert attention_pattern(page.session, 1).shape[0] == 2
    assert page.functions["tokens"]({"sid": before})["code"] == "gone"


def test_two_tabs_have_two_models_at_the_same_time(engine, page):
    other = page.server.hello({"owner": "tab 2"})["sid"]
    pick(page, "other")
    page.act("send", text="hello")
    there = page.store.get(other)
    assert there.engine is engine
    page.server.change({"sid": other}, lambda e: page.server.ask(e, "hello", None, 0))
    assert list(run(there, there.session.run))
    assert page.functions["overview"]({"sid": other, "heads": [[2, 3]]})["n"] == there.session.cache.length
    assert page.functions["search"]({"sid": other, "query": "a", "position": 3})["cand"]


def test_a_model_that_is_loaded_is_not_loaded_again(page, loader):
    pick(page, "other")
    second = page.server.hello({"owner": "tab 2"})["sid"]
    reply = page.functions["load_model"]({"sid": second, "name": " other "})
    assert reply["load"]["state"] == "ready"
    assert page.functions["estimate_model"]({"sid": second, "name": "other"})["loaded"] is True
    unloaded = page.functions["estimate_model"]({"sid": second, "name": "third"})
    assert (unloaded["loaded"], unloaded["memory"], unloaded["precision"]) == (False, 1000, "stored")
    assert page.functions["use_model"]({"sid": second})["name"] == "other"
    assert len(loader.made) == 1
    loader.go.clear()
    assert page.functions["load_model"]({"sid": page.sid, "name": "other", "dtype": "float32"})["load"]["state"] == (
        "loading"
    )


def test_a_page_begins_with_the_model_that_the_program_was_started_with(page):
    pick(page, "other")
    assert page.server.hello({"owner": "tab 2"})["model"]["name"] == "tiny"


# ---- what happens to the conversation --------------------------------------------------------------------------------


def test_carried_over_are_the_words_and_the_new_model_can_answer_anew(page):
    page.call("set_params", temperature=0.4, logit_bias=[[[70], 3.0]])
    page.act("send", text="hello", system="Be brief.")
    before = words(page)
    greeting = pick(page, "other", carry=True)
    assert words(page) == before
    assert (greeting["params"]["temperature"], greeting["params"]["logit_bias"]) == (0.4, [])
    assert not any("lp" in token for token in page.tokens)
    assert len(greeting["branches"]) == 1
    page.call("set_params", logit_bias=[[list(pair[0]), pair[1]] for pair in NO_END])
    page.act("regenerate")
    assert words(page)[:2] == before[:2]
    assert page.session.records[-1] is not None
    page.act("send", text="more")
    assert [role for role, _ in words(page)] == ["system", "user", "assistant", "user", "assistant"]


def test_a_conversation_becomes_one_text_for_a_base_model(page):
    page.act("send", text="hello")
    reply = words(page)[-1][1]
    greeting = pick(page, "base", carry=True)
    assert greeting["raw"] is True
    assert words(page) == [("text", f"hello\n\n{reply}")]
    assert greeting["message"]["finish"] == "stopped"
    page.act("resume")
    assert words(page)[0] == ("text", f"hello\n\n{reply}")


def test_a_text_stays_a_text(page):
    pick(page, "base")
    page.act("send", text="Once upon")
    whole = "".join(content for _, content in words(page))
    assert pick(page, "other", carry=True)["raw"] is True
    assert words(page) == [("text", whole)]


def test_a_new_conversation_is_empty_and_talks_again_after_a_base_model(page):
    page.act("send", text="hello")
    assert pick(page, "base")["message"]["toks"] == []
    page.act("send", text="Once upon")
    assert pick(page, "other")["raw"] is False


def test_a_system_prompt_goes_along_with_a_conversation_that_has_not_begun(page):
    page.call("new_chat", system="Be brief.")
    pick(page, "other")
    page.act("send", text="hello")
    assert words(page)[0] == ("system", "Be brief.")
    pick(page, "third")
    assert page.entry.system is None


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system prompts') }}{% endif %}"
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
)


def test_a_model_without_system_prompts_says_so_and_is_not_given_one(page, loader, tokenizer):
    assert page.server.hello({"owner": "tab"})["model"]["system"] is True
    loader.chat = ChatTemplate(STRICT, tokenizer, byte_fields())
    page.call("new_chat", system="Be brief.")
    assert pick(page, "strict")["model"]["system"] is False
    page.act("send", text="hello")
    assert [role for role, _ in words(page)] == ["user", "assistant"]
    assert pick(page, "base")["model"]["system"] is False


def test_a_conversation_that_the_new_template_refuses_stays_where_it_is(page, loader, tokenizer):
    loader.chat = ChatTemplate(STRICT, tokenizer, byte_fields())
    page.act("send", text="hello", system="Be brief.")
    page.call("load_model", name="strict")
    wait_for(page, "ready")
    reply = page.call("use_model", carry=True)
    assert "no system prompts" in reply["error"]
    assert (page.entry.engine.name, words(page)[1]) == ("tiny", ("user", "hello"))
    assert page.call("use_model")["name"] == "strict"


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_cancelling_ends_a_load_and_changes_nothing(page, loader):
    loader.go.clear()
    page.call("load_model", name="other")
    assert page.call("cancel_load")["load"]["cancelled"] is True
    wait_for(page, None)
    assert loader.made == []
    assert page.call("use_model")["code"] == "invalid"
    page.act("send", text="hello")
    loader.go.set()
    pick(page, "other")


@pytest.mark.parametrize(("name", "sentence"), [("broken", "no config.json"), ("odd", "terminal says why")])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_is_one_sentence_and_leaves_the_old_model(page, name, sentence):
    page.call("load_model", name=name)
    assert sentence in wait_for(page, "failed")["error"]
    page.act("send", text="hello")
    assert page.call("cancel_load")["load"] is None
    pick(page, "other")


def test_one_model_is_loaded_at_a_time_and_every_page_knows(page, loader):
    second = page.server.hello({"owner": "tab 2"})["sid"]
    loader.go.clear()
    page.call("load_model", name="other")
    state = page.functions["load_state"]({"sid": second})["load"]
    assert state == {"name": "other", "state": "busy"}
    assert "being loaded" in page.functions["load_model"]({"sid": second, "name": "more"})["error"]
    assert page.functions["cancel_load"]({"sid": second})["load"] == state
    assert page.call("load_state")["load"]["cancelled"] is False


def test_what_does_not_fit_is_refused_before_it_is_loaded(page, loader, monkeypatch):
    for needed in (Estimate(0, 11_000, 10_000, 10_000), Estimate(11_000, None, 10_000, 10_000)):
        monkeypatch.setattr(module, "estimate", lambda *asked, needed=needed: needed)
        assert "choose a smaller one" in page.call("load_model", name="huge")["error"]
    assert page.call("load_state")["load"] is None


def test_the_load_of_a_tab_that_has_gone_is_ended(page, loader):
    loader.go.clear()
    page.call("load_model", name="other")
    page.store.close(page.entry)
    until = time.monotonic() + WAIT
    while module._threads and time.monotonic() < until:
        time.sleep(0.01)
    assert not module._threads
    assert loader.made == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"name": " "},
        {"name": 3},
        {"name": "x" * 2000},
        {"name": "a", "dtype": "int3"},
        {"name": "a", "device": "x"},
    ],
)
def test_what_is_no_model_is_refused(page, wrong):
    assert page.call("load_model", **wrong)["code"] == "invalid"
    assert page.call("estimate_model", **wrong)["code"] == "invalid"


# ---- who may pick what -----------------------------------------------------------------------------------------------


def test_a_page_that_others_can_reach_has_a_fixed_model(engine, loader):
    page = Page(engine, policy="fixed", load=loader)
    shown = page.call("picker")
    assert (shown["policy"], shown["list"]) == ("fixed", [])
    for name in ("other", "smollm2-135m-instruct"):
        assert "fixed" in page.call("load_model", name=name)["error"]
        assert "fixed" in page.call("estimate_model", name=name)["error"]


def test_a_page_may_be_held_to_the_list(engine, loader):
    page = Page(engine, policy="catalog", load=loader)
    assert "none of them" in page.call("load_model", name="/etc")["error"]
    assert page.call("load_model", name="smollm2-135m-instruct", revision="x")["code"] == "invalid"
    listed = page.call("picker")["list"]
    assert {"name", "title", "size", "parameters", "licence", "good_for", "good_for_zh", "here"} <= set(listed[0])
    assert pick(page, listed[0]["name"])["model"]["name"] == listed[0]["name"]


@pytest.mark.parametrize(
    ("asked", "host", "share", "space", "expected"),
    [
        (None, None, False, "", "any"),
        (None, "localhost", False, "", "any"),
        (None, "0.0.0.0", False, "", "fixed"),
        (None, None, True, "", "fixed"),
        (None, None, False, "me/space", "fixed"),
        ("catalog", "0.0.0.0", False, "", "catalog"),
        ("fixed", None, False, "", "fixed"),
    ],
)
def test_who_can_reach_the_page_decides_unless_it_is_said(monkeypatch, asked, host, share, space, expected):
    monkeypatch.setenv("SPACE_ID", space)
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert policy_of(asked, host, share) == expected
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert policy_of(None, None, False) == "fixed"


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="any, catalog, fixed"):
        policy_of("all", None, False)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_a_model_is_freed_when_no_session_is_left_that_began_with_it(page, loader, engine):
    pick(page, "other")
    page.act("send", text="hello")
    page.call("shape", position=len(page.session.tokens))
    page.call("search", position=len(page.session.tokens), query="a")
    second = page.server.hello({"owner": "tab 2"})["sid"]
    page.functions["load_model"]({"sid": second, "name": "other"})
    second = page.functions["use_model"]({"sid": second})["sid"]
    pick(page, "base")
    gc.collect()
    assert loader.made[0]() is not None
    page.store.close(page.store.get(second))
    gc.collect()
    assert loader.made[0]() is None
    assert [running.engine.name for running in page.models.loaded()] == ["tiny", "base"]
    pick(page, "third")
    gc.collect()
    assert loader.made[1]() is None
    assert page.models.default.engine is engine


def test_a_model_that_is_not_wanted_any_more_is_freed(page, loader):
    page.call("load_model", name="other")
    wait_for(page, "ready")
    assert page.call("cancel_load")["load"] is None
    gc.collect()
    assert loader.made[0]() is None


def test_settings_that_the_new_tokens_cannot_meet_are_let_go(page, loader, monkeypatch):
    def refuse(self, params):
        if params.banned:
            raise ValueError("banned cannot be")

    page.call("set_params", banned=["x"], temperature=0.3)
    monkeypatch.setattr(Engine, "check", refuse)
    params = pick(page, "other")["params"]
    assert (params["banned"], params["temperature"]) == ([], 0.3)
    assert params == SamplingParams(**page.session.params.as_dict()).as_dict()
