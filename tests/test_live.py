"""The engine in a forked worker, as on ZeroGPU: emulated by fork and queues, as the `spaces` library does it."""

import base64
import itertools
import json
import multiprocessing
import sys
import threading
import time

import numpy as np
import pytest
import torch

from demo.live import MAX_SETTINGS, Remote, Slots, gpu_decorator
from demo.matrix import Scale
from demo.running import Running
from demo.store import Watched
from demo.stream import run
from gpt.interp import Sight, attention_pattern, sight_rows
from gpt.params import SamplingParams
from tests.page import OneModel, Page

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU forks, and so do these tests, on Linux only")
WARM = SamplingParams(temperature=1.0, max_new_tokens=20)
HELLO = [{"role": "user", "content": "hello"}]


def forked(delay=0.0):
    """Like `spaces.GPU`: the body of the generator runs in a child that was forked at the call and runs ahead."""

    context = multiprocessing.get_context("fork")

    def decorate(generator):
        def work(arguments, results):
            torch.set_num_threads(1)
            for value in generator(*arguments.get()):
                results.put(value)
                time.sleep(delay)
            results.put(None)

        def call(*args):
            arguments, results = context.SimpleQueue(), context.SimpleQueue()
            process = context.Process(target=work, args=(arguments, results), daemon=True)
            process.start()
            arguments.put(args)
            while (value := results.get()) is not None:
                yield value
            process.join()

        return call

    return decorate


@pytest.fixture
def remote(engine):
    return Remote(engine, forked())


@pytest.fixture
def slow(engine):
    """A worker that makes about 50 tokens a second."""
    return Remote(engine, forked(delay=0.02))


def asked(engine, source, params=WARM, seed=4):
    session = source.session(params=params, seed=seed)
    engine.extend(session, HELLO)
    return session


def test_a_worker_writes_what_the_engine_itself_writes(engine, remote):
    here, there = asked(engine, engine), asked(engine, remote)
    expected, received = list(engine.stream(here)), list(remote.stream(there))
    assert [e.token for e in received] == [e.token for e in expected]
    assert [e.text for e in received] == [e.text for e in expected]
    assert there.tokens == here.tokens
    assert there.finish == here.finish
    assert [r and r.u for r in there.records] == [r and r.u for r in here.records]


def test_patterns_derived_here_equal_those_of_a_normal_run(engine, remote):
    here, there = asked(engine, engine), asked(engine, remote)
    list(engine.stream(here))
    engine.feed(here)
    list(remote.stream(there))
    assert there.cache.length == here.cache.length == len(there.tokens)
    for layer in range(engine.config.n_layer):
        torch.testing.assert_close(attention_pattern(there, layer), attention_pattern(here, layer), rtol=0, atol=1e-6)


def test_values_cross_too_so_that_contributions_can_be_derived_here(engine, remote):
    here, there = asked(engine, engine), asked(engine, remote)
    for source, session in ((engine, here), (remote, there)):
        list(source.stream(session))
        source.feed(session)
    torch.testing.assert_close(there.cache.values(), here.cache.values(), rtol=0, atol=1e-5)
    assert there.cache.values().abs().amax((0, 1, 3)).min() > 0
    sight, rows = Sight(((1, 2), (2, 3)), what="value"), range(here.cache.length)
    expected = sight_rows(here, sight, rows, engine.gram)
    torch.testing.assert_close(sight_rows(there, sight, rows, remote.gram), expected, rtol=1e-4, atol=1e-5)


def test_the_output_matrices_are_asked_of_a_worker_once_a_layer(engine):
    calls = []

    def counting(generator):
        inner = forked()(generator)
        return lambda job: calls.append(job) or inner(job)

    remote = Remote(engine, counting)
    for _ in range(2):
        for layer in (2, 0):
            torch.testing.assert_close(remote.gram(layer), engine.gram(layer))
    assert [job.layer for job in calls] == [2, 0]


def test_a_bound_for_queries_holds_for_what_comes_from_a_worker(engine, remote, monkeypatch):
    monkeypatch.setattr(engine, "query_bytes", 0)
    sessions = []
    for source in (engine, remote):
        session = source.session(params=WARM, seed=4)
        engine.extend(session, [{"role": "user", "content": "x" * 370}])
        list(source.stream(session))
        source.feed(session)
        sessions.append(session)
    here, there = sessions
    assert there.tokens == here.tokens
    first = max(session.cache.first_query for session in sessions)
    assert min(session.cache.first_query for session in sessions) > 0
    rows = range(first, len(there.tokens))
    for layer in range(3):
        patterns = [attention_pattern(session, layer, rows=rows) for session in sessions]
        torch.testing.assert_close(*patterns, rtol=0, atol=1e-5)


def test_a_second_turn_reads_the_conversation_again_and_patterns_stay_whole(engine, remote):
    sessions = []
    for source in (engine, remote):
        session = asked(engine, source)
        list(source.stream(session))
        engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
        list(source.stream(session))
        source.feed(session)
        sessions.append(session)
    here, there = sessions
    assert there.tokens == here.tokens
    torch.testing.assert_close(attention_pattern(there, 2), attention_pattern(here, 2), rtol=0, atol=1e-5)


def test_a_temperature_set_here_acts_on_a_token_of_the_running_worker(engine):
    slow = Remote(engine, forked(delay=0.1))
    store = OneModel(Running(engine, slow), lambda: asked(engine, slow, WARM.replace(max_new_tokens=20)))
    entry = store.create("tab")
    made = []
    for event in slow.stream(entry.session):
        made.append(event.params.temperature)
        if len(made) == 5:
            entry.set_params(entry.session.params.replace(temperature=0))
    assert made == sorted(made, reverse=True)
    assert set(made) == {1.0, 0.0}
    assert made.index(0.0) <= 5 + 3  # a token is being computed, one or two are on their way here
    assert all(r.rank == 1 for r in entry.session.records if r and r.params.temperature == 0)


def test_every_kind_of_parameter_set_here_acts_in_the_running_worker(engine):
    slow = Remote(engine, forked(delay=0.1))
    store = OneModel(Running(engine, slow), lambda: asked(engine, slow, WARM.replace(max_new_tokens=24)))
    entry = store.create("tab")
    changed = entry.session.params.replace(
        logit_bias=[[[70], 50]], banned=["b"], grammar=("regex", "[a-z]+"), order=["top_k", "temperature"], stop=["!!"]
    )
    for n, _ in enumerate(slow.stream(entry.session)):
        if n == 4:
            entry.set_params(changed)
    made = [r for r in entry.session.records if r]
    assert [r.params for r in made].index(changed) <= 4 + 4
    assert made[-1].params == changed
    assert all(engine.tokenizer.piece(r.token) in "acdefghijklmnopqrstuvwxyz" for r in made if r.params == changed)


def test_what_filters_look_at_in_the_past_crosses_to_the_worker(engine, remote):
    params = WARM.replace(
        mirostat_tau=4.0, grammar=("regex", "[a-z ]{4,60}"), frequency_penalty=0.5, dry_multiplier=1.0
    )
    sessions = []
    for source in (engine, remote):
        session = asked(engine, source, params.replace(max_new_tokens=6))
        list(source.stream(session))
        session.resume()
        session.params = params
        list(source.stream(session))
        sessions.append(session)
    here, there = sessions
    assert there.tokens == here.tokens
    assert [r and r.mu for r in there.records] == pytest.approx([r and r.mu for r in here.records], abs=1e-3)


def test_stop_ends_the_worker(engine, slow):
    store = OneModel(Running(engine, slow), lambda: asked(engine, slow, WARM.replace(max_new_tokens=400)))
    entry = store.create("tab")
    received = []
    for text in run(entry, entry.session.run):
        received.append(json.loads(text))
        if len(received) == 3:
            entry.interrupt()
    assert (received[-1]["state"], received[-1]["finish"]) == ("idle", "stopped")
    assert len(entry.session.tokens) < 100
    wait_until(lambda: not multiprocessing.active_children())


def test_the_stream_of_a_worker_reaches_the_page_like_any_other(engine, remote):
    store = OneModel(Running(engine, remote), lambda: asked(engine, remote))
    entry = store.create("tab")
    entry.watched = Watched("here", Sight(((0, 1),), what="value"), 0.0, 1000.0)
    received = [json.loads(text) for text in run(entry, entry.session.run)]
    toks = [t for m in received for t in m["toks"]]
    assert [t["id"] for t in toks] == entry.session.tokens[-len(toks) :]
    rows = [item for m in received for item in m["rows"]["items"]]
    n = len(entry.session.tokens)
    assert [i for i, _ in rows] == list(range(n))
    exact = sight_rows(entry.session, entry.watched.sight, range(n), engine.gram).numpy()
    assert base64.b64decode(rows[-1][1]) == Scale("value", 0, 1000).encode(exact[-1]).tobytes()


def test_a_fork_goes_on_in_a_worker_as_it_does_here(engine, remote):
    results = []
    for source in (engine, remote):
        session = asked(engine, source)
        list(source.stream(session))
        position = session.reply_start + 2
        session.fork(position, [session.records[position].candidates[3].token])
        list(source.stream(session))
        results.append(session.tokens)
    assert results[0] == results[1]


def test_tokens_chosen_by_hand_cross_and_are_used_up(engine, remote):
    session = asked(engine, remote)
    list(remote.stream(session))
    position = session.reply_start + 2
    session.fork(position, [70, 71])
    list(remote.stream(session))
    assert session.tokens[position : position + 2] == [70, 71]
    assert [r.u is None for r in session.records[position : position + 3]] == [True, True, False]
    assert session.current.forced == ()


def test_a_choice_can_be_looked_at_though_the_output_matrix_is_in_the_worker(engine, remote):
    session = asked(engine, remote)
    list(remote.stream(session))
    position = session.reply_start + 4
    logits = remote.logits(session, position)
    here = asked(engine, engine)
    list(engine.stream(here))
    torch.testing.assert_close(logits, engine.logits(here, position), rtol=0, atol=1e-4)
    assert engine.distribution(session, position, logits=logits).drawn == session.tokens[position]
    with pytest.raises(ValueError, match="not known yet"):
        remote.logits(session, len(session.tokens) + 1)


def test_several_replies_are_written_in_one_worker(engine, remote):
    here, there = asked(engine, engine), asked(engine, remote)
    remote.feed(there)
    samples = there.spread([4, 5, 6])
    batches = list(remote.stream_all(samples))
    assert max(len(batch) for batch in batches) == 3
    for seed, sample in zip((4, 5, 6), samples, strict=True):
        here.seed = seed
        here.redo()
        list(engine.stream(here))
        assert sample.tokens == here.tokens
        assert sample.cache.length == len(sample.tokens)
    engine.feed(here)
    torch.testing.assert_close(attention_pattern(samples[2], 1), attention_pattern(here, 1), rtol=0, atol=1e-5)


def test_one_of_several_replies_can_end_before_the_others(engine, slow):
    session = asked(engine, slow, WARM.replace(max_new_tokens=30))
    samples = session.spread([1, 2])
    samples[0].params = WARM.replace(max_new_tokens=5)
    for n, _ in enumerate(slow.stream_all(samples)):
        if n == 10:
            samples[1].interrupt()
            slow.publish(samples[1])
    assert [sample.finish for sample in samples] == ["length", "stopped"]
    assert len(samples[0].tokens) == session.reply_start + 5
    assert len(samples[1].tokens) < session.reply_start + 30
    wait_until(lambda: not multiprocessing.active_children())


def test_the_whole_panel_works_through_a_worker(engine, remote):
    page, there = Page(engine), Page(engine, remote)
    for each in (page, there):
        each.act("send", text="hello", seed=3)
        each.act("fork", position=each.session.reply_start + 2, text="fox")
        each.act("samples", n=2, ladder={"name": "temperature", "values": [0.5, 1.0]})
        each.call("pick_sample", k=1)
    assert there.session.tokens == page.session.tokens
    assert [b.tokens for b in there.session.branches.values()] == [b.tokens for b in page.session.branches.values()]
    assert_same_attention(page, there)
    position = page.session.reply_start + 4
    a, b = (each.call("shape", position=position, params={"top_k": 9}) for each in (page, there))
    assert [c[0] for c in a["cand"]] == [c[0] for c in b["cand"]]
    opened = Page(engine, remote)
    opened.call("open", record=there.call("save")["record"])
    assert [t["id"] for t in opened.tokens] == page.session.tokens


def assert_same_attention(page, there):
    """All that the attention panel asks for is the same, of the branch that is shown and of another."""
    sights = [
        {"heads": [[1, 2]], "what": "value"}, {"heads": [[2, 0]], "mix": "rollout"}, {"heads": [[0, 1]], "branch": 0},
        {"heads": [[0, 1]], "minus": {"heads": [[0, 1]], "branch": 0}},
    ]  # fmt: skip
    for sight in sights:
        a, b = (each.call("overview", **sight) for each in (page, there))
        assert (b["n"], b["tile"][:5]) == (a["n"], a["tile"][:5])
        assert (b["high"], b["top"]) == pytest.approx((a["high"], a["top"]), abs=1e-4)
        row = a["n"] - 1
        a, b = (each.call("rows", rows=[row], **sight)["rows"][0][1] for each in (page, there))
        assert np.allclose(*(np.frombuffer(base64.b64decode(x), "<f4") for x in (a, b)), atol=1e-4)
    a, b = (each.call("grid", metric="user")["values"] for each in (page, there))
    assert b == pytest.approx(a, abs=1e-4)


def test_feeding_in_a_worker_gives_every_token_its_row(engine, remote):
    session = asked(engine, remote)
    remote.feed(session)
    assert session.cache.length == len(session.tokens)
    here = asked(engine, engine)
    engine.feed(here)
    torch.testing.assert_close(attention_pattern(session, 0), attention_pattern(here, 0), rtol=0, atol=1e-6)


def test_a_bfloat16_model_crosses_as_well(engine, tokenizer, chat):
    from gpt.engine import Engine
    from tests.conftest import random_model

    half = Engine(random_model().to(torch.bfloat16), tokenizer, chat, "half")
    session = asked(half, Remote(half, forked()))
    list(Remote(half, forked()).stream(session))
    assert session.cache.queries().dtype == torch.bfloat16
    assert session.cache.length == len(session.tokens)


def test_closing_the_stream_gives_its_slot_back(engine, slow):
    session = asked(engine, slow, WARM.replace(max_new_tokens=200))
    free = len(slow._slots._free)
    for _ in itertools.islice(slow.stream(session), 3):
        assert len(slow._slots._free) == free - 1
    wait_until(lambda: len(slow._slots._free) == free)


def test_slots_are_read_whole_however_fast_they_are_written():
    slots = Slots(2)
    slot = slots.take()
    slots.write(slot, 0, SamplingParams(top_k=0))
    stop = threading.Event()

    def write():
        for ticket in itertools.count(1):
            slots.write(slot, ticket, SamplingParams(top_k=ticket, stop=("x" * (ticket % 7 + 1),) * (ticket % 50)))
            if stop.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3000):
        ticket, settings = slots.read(slot)
        params = SamplingParams(**json.loads(settings))
        assert params == SamplingParams(top_k=ticket, stop=("x" * (ticket % 7 + 1),) * (ticket % 50))
    stop.set()
    thread.join()


def test_settings_that_do_not_fit_a_slot_are_refused_in_words_and_leave_it_as_it_was():
    slots = Slots(1)
    slot = slots.take()
    slots.write(slot, 3, SamplingParams(top_k=5))
    with pytest.raises(ValueError, match="shorten them"):
        slots.write(slot, 4, SamplingParams(grammar=("regex", "a" * MAX_SETTINGS)))
    ticket, settings = slots.read(slot)
    assert (ticket, json.loads(settings)["top_k"]) == (3, 5)


def test_slots_run_out_with_a_sentence_and_come_back():
    slots = Slots(1)
    slot = slots.take()
    with pytest.raises(RuntimeError, match="try again"):
        slots.take()
    slots.give_back(slot)
    assert slots.take() == slot
    assert slots.read(slot)[0] == 0


def test_there_is_no_worker_away_from_zerogpu():
    assert gpu_decorator() is None


def wait_until(condition, seconds=5.0):
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")
