"""The engine in a forked worker, as on ZeroGPU: emulated by fork and queues, as the `spaces` library does it."""

import itertools
import json
import multiprocessing
import sys
import threading
import time

import pytest
import torch

from demo.live import NUMBERS, Remote, Slots, gpu_decorator
from demo.store import SessionStore
from demo.stream import run
from gpt.interp import attention_pattern
from gpt.sampling import SamplingParams

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
    store = SessionStore(lambda: asked(engine, slow, WARM.replace(max_new_tokens=20)), changed=slow.publish)
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


def test_stop_ends_the_worker(engine, slow):
    store = SessionStore(lambda: asked(engine, slow, WARM.replace(max_new_tokens=400)), changed=slow.publish)
    entry = store.create("tab")
    received = []
    for text in run(slow, entry, entry.session.run):
        received.append(json.loads(text))
        if len(received) == 3:
            entry.interrupt()
    assert (received[-1]["state"], received[-1]["finish"]) == ("idle", "stopped")
    assert len(entry.session.tokens) < 100
    wait_until(lambda: not multiprocessing.active_children())


def test_the_stream_of_a_worker_reaches_the_page_like_any_other(engine, remote):
    store = SessionStore(lambda: asked(engine, remote), changed=remote.publish)
    entry = store.create("tab")
    received = [json.loads(text) for text in run(remote, entry, entry.session.run)]
    toks = [t for m in received for t in m["toks"]]
    assert [t["id"] for t in toks] == entry.session.tokens[-len(toks) :]
    rows = [i for m in received for i, _ in m["rows"]["items"]]
    assert rows == list(range(len(entry.session.tokens)))


def test_a_fork_goes_on_in_a_worker_as_it_does_here(engine, remote):
    results = []
    for source in (engine, remote):
        session = asked(engine, source)
        list(source.stream(session))
        position = session.reply_start + 2
        session.fork(position, session.records[position].candidates[3].token)
        session.finish = None
        list(source.stream(session))
        results.append(session.tokens)
    assert results[0] == results[1]


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
    stop = threading.Event()

    def write():
        for ticket in itertools.count(1):
            slots.write(slot, ticket, SamplingParams(temperature=ticket % 5, top_k=ticket))
            if stop.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(3000):
        ticket, values = slots.read(slot)
        assert values["top_k"] == ticket
        assert values["temperature"] == ticket % 5 or ticket == 0
    stop.set()
    thread.join()


def test_slots_run_out_with_a_sentence_and_come_back():
    slots = Slots(1)
    slot = slots.take()
    with pytest.raises(RuntimeError, match="try again"):
        slots.take()
    slots.give_back(slot)
    assert slots.take() == slot
    assert slots.read(slot)[0] == 0


def test_every_parameter_that_can_change_while_text_streams_crosses():
    assert set(NUMBERS) | {"stop"} == set(SamplingParams().as_dict())


def test_there_is_no_worker_away_from_zerogpu():
    assert gpu_decorator() is None


def wait_until(condition, seconds=5.0):
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")
