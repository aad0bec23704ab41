"""Several replies to one prompt: written beside each other, streamed together, one picked, the others kept."""

import json

import pytest

from demo.stream import run
from tests.page import NO_END, Page


@pytest.fixture
def page(engine):
    page = Page(engine)
    page.act("send", text="hello", seed=3)
    return page


def alone(page, seed, **changes):
    """The reply that one sample alone would be."""
    session = page.engine.session([{"role": "user", "content": "hello"}], page.session.params.replace(**changes), seed)
    return [event.token for event in page.engine.stream(session)]


def ids(page, k):
    return [t["id"] for t in page.samples[k]]


def test_every_sample_is_the_reply_that_its_seed_gives_alone(page):
    reply = page.act("samples", n=3)
    assert [s["seed"] for s in reply["samples"]] == [3, 4, 5]
    assert [ids(page, k) for k in range(3)] == [alone(page, seed) for seed in (3, 4, 5)]


def test_seeds_can_be_chosen(page):
    reply = page.act("samples", n=2, seeds=[11, 0])
    assert [s["seed"] for s in reply["samples"]] == [11, 0]
    assert ids(page, 0) == alone(page, 11)


def test_a_ladder_gives_each_its_own_temperature_and_the_same_draws(page):
    reply = page.act("samples", n=3, ladder={"name": "temperature", "values": [0, 0.5, 2]})
    assert [(s["seed"], s["temperature"]) for s in reply["samples"]] == [(3, 0.0), (3, 0.5), (3, 2.0)]
    for k, temperature in enumerate((0, 0.5, 2)):
        assert ids(page, k) == alone(page, 3, temperature=temperature)


def test_samples_of_a_new_message_share_its_prompt(page):
    before = len(page.session.tokens)
    reply = page.act("samples", n=2, text="and now?")
    assert reply["message"]["n"] > before
    assert page.text()[-1] == "and now?"
    assert {t[0]["i"] for t in page.samples.values()} == {reply["message"]["n"]}


def test_the_prompt_is_read_once_for_all(page, monkeypatch):
    read = []
    step = page.engine.runner.run
    monkeypatch.setattr(page.engine.runner, "run", lambda feeds: read.extend(len(t) for _, t in feeds) or step(feeds))
    page.act("samples", n=4, text="x" * 100)
    assert len([n for n in read if n > 50]) == 1


def test_the_page_shows_the_prompt_and_all_samples_in_place_of_the_reply(page):
    reply = page.call("samples", n=2)
    start = page.session.reply_start
    message = reply["message"]
    assert (message["from"], message["n"], message["toks"], message["samples"]) == (start, start, [], [])
    assert (message["state"], message["finish"]) == ("streaming", None)
    received = [json.loads(text) for text in run(page.entry, reply["run"])]
    assert {(m["from"], m["n"], len(m["toks"])) for m in received} == {(start, start, 0)}
    last = received[-1]
    assert (last["state"], last["finish"]) == ("idle", None)
    assert [(s["k"], s["finish"]) for s in last["samples"]] == [(0, "length"), (1, "length")]
    assert last["stats"]["context"] == start + 12


def test_every_token_of_every_sample_comes_once_and_in_order(page):
    reply = page.call("samples", n=8)
    got = {k: [] for k in range(8)}
    for text in run(page.entry, reply["run"]):
        for sample in json.loads(text)["samples"] if "samples" in text else ():
            got[sample["k"]] += sample["toks"]
            assert sample["n"] == page.session.reply_start + len(got[sample["k"]])
    for k, toks in got.items():
        mine = page.entry.samples.sessions[k]
        assert [t["i"] for t in toks] == list(range(mine.reply_start, len(mine.tokens)))
        assert [t["id"] for t in toks] == mine.tokens[mine.reply_start :]
        assert all("lp" in t for t in toks)


def test_a_pull_brings_all_samples_again(page):
    page.act("samples", n=2)
    pulled = page.functions["tokens"]({"sid": page.sid, "from": 0})
    assert pulled["n"] == page.session.reply_start
    assert [s["toks"] for s in pulled["samples"]] == [page.samples[0], page.samples[1]]


def test_picking_one_makes_it_the_reply_and_the_others_branches(page):
    first = list(page.session.tokens)
    page.act("samples", n=3, seeds=[11, 12, 13])
    picked = ids(page, 1)
    reply = page.call("pick_sample", k=1)
    assert (reply["run"], page.entry.samples) == (None, None)
    assert [t["id"] for t in page.tokens] == page.session.tokens
    assert page.session.tokens[page.session.reply_start :] == picked
    assert [b["seed"] for b in reply["branches"]] == [3, 12, 11, 13]
    assert page.session.branches[0].tokens == first
    page.act("send", text="more")
    assert len(page.text()) == 4


def test_a_picked_sample_can_go_on_and_has_its_rows(page):
    page.act("samples", n=2, limit=3)
    page.call("pick_sample", k=1)
    assert page.session.finish == "stopped"
    assert page.call("overview", heads=[[0, 0]])["n"] == len(page.session.tokens)
    page.act("resume")
    assert page.session.tokens[page.session.reply_start :][:12] == alone(page, 4)[:12]


def test_dropping_them_brings_the_reply_back_that_was_there(page):
    before = list(page.tokens)
    page.act("samples", n=2)
    assert len(page.tokens) == page.session.reply_start
    assert page.call("drop_samples")["run"] is None
    assert page.tokens == before
    assert len(page.session.branches) == 1
    assert page.call("drop_samples") == {}


def test_samples_of_a_message_that_are_dropped_leave_it_to_be_answered(page):
    page.act("samples", n=2, text="and?")
    reply = page.call("drop_samples")
    assert reply["message"]["finish"] == "stopped"
    page.act("resume")
    assert len(page.text()) == 4


def test_any_other_change_of_history_drops_them(page):
    page.act("samples", n=2)
    page.act("regenerate", seed=9)
    assert page.entry.samples is None
    assert page.session.tokens[page.session.reply_start :] == alone(page, 9)


def test_stop_ends_all_of_them(page):
    page.call("set_params", max_new_tokens=400, logit_bias=NO_END)
    reply = page.call("samples", n=3)
    messages = run(page.entry, reply["run"])
    for _ in range(3):
        next(messages)
    page.call("stop")
    *_, last = [json.loads(text) for text in messages]
    assert (last["state"], {s["finish"] for s in last["samples"]}) == ("idle", {"stopped"})
    assert max(s["n"] for s in last["samples"]) < 400


def test_a_page_that_goes_away_ends_all_of_them(page):
    page.call("set_params", max_new_tokens=400)
    reply = page.call("samples", n=3)
    messages = run(page.entry, reply["run"])
    next(messages)
    messages.close()
    page.entry.quiet(timeout=5)
    assert all(len(s.tokens) < 400 for s in page.entry.samples.sessions)


def test_a_stop_before_they_began_begins_nothing(page):
    reply = page.call("samples", n=2)
    page.call("stop")
    assert list(run(page.entry, reply["run"])) == []
    assert page.call("pick_sample", k=0)["field"] == "k"


def test_parameters_act_on_all_but_the_ladders_own(page):
    page.call("set_params", max_new_tokens=60)
    reply = page.call("samples", n=2, ladder={"name": "temperature", "values": [0.5, 1.5]})
    messages = run(page.entry, reply["run"])
    next(messages)
    page.call("set_params", temperature=1.0, top_k=5)
    list(messages)
    for session, temperature in zip(page.entry.samples.sessions, (0.5, 1.5), strict=True):
        params = [r.params for r in session.records if r]
        assert {p.temperature for p in params} == {temperature}
        assert (params[0].top_k, params[-1].top_k) == (0, 5)


def test_a_page_that_is_loaded_again_finds_every_reply_as_a_branch(page):
    page.act("samples", n=2, seeds=[11, 12])
    greeting = page.server.hello({"owner": "again", "sid": page.sid, "adopt": True})
    assert [b["seed"] for b in greeting["branches"]] == [3, 11, 12]
    assert greeting["message"]["n"] == len(page.session.tokens)
    assert "samples" not in greeting["message"]


def test_their_bytes_count(page):
    before = page.entry.nbytes
    page.act("samples", n=4)
    assert page.entry.nbytes > before + 4 * page.session.cache.nbytes / 2


@pytest.mark.parametrize(("args", "field"), [
    ({}, "n"), ({"n": 1}, "n"), ({"n": 9}, "n"), ({"n": 2, "text": " "}, "text"), ({"n": 2, "seeds": [1]}, "seeds"),
    ({"n": 2, "seeds": "ab"}, "seeds"), ({"n": 2, "seeds": [1, -1]}, "seeds"), ({"n": 2, "ladder": 5}, "ladder"),
    ({"n": 2, "ladder": {"name": "stop", "values": ["a", "b"]}}, "ladder"),
    ({"n": 2, "ladder": {"name": "temperature", "values": [1]}}, "ladder"),
    ({"n": 2, "ladder": {"name": "temperature", "values": [1, 9]}}, "temperature"),
    ({"n": 2, "ladder": {"name": [], "values": [1, 2]}}, "ladder"),
])  # fmt: skip
def test_samples_that_cannot_be_are_refused_with_their_field(page, args, field):
    before = list(page.session.tokens)
    assert page.call("samples", **args)["field"] == field
    assert (page.session.tokens, page.entry.samples) == (before, None)


@pytest.mark.parametrize("k", [None, -1, 2, "0", True])
def test_picking_what_is_not_there_is_refused(page, k):
    assert page.call("pick_sample", k=k)["field"] == "k"
    page.act("samples", n=2)
    assert page.call("pick_sample", k=k)["field"] == "k"
    assert page.entry.samples is not None


def test_there_is_nothing_to_sample_without_a_message(engine):
    assert Page(engine).call("samples", n=2)["field"] == "text"
