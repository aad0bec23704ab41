"""Sessions of tabs: who owns them, how long they live, and how much they may take together."""

import threading

import pytest

from demo.store import FLOOR, Busy, Gone, SessionStore
from gpt.sampling import SamplingParams


@pytest.fixture
def store(engine):
    return SessionStore(engine.session, grace=0.05)


def test_two_tabs_never_share_a_session(store):
    a, b = store.create("tab a"), store.create("tab b")
    assert a.sid != b.sid
    assert a.session is not b.session
    assert store.get(a.sid) is a


@pytest.mark.parametrize("sid", [None, "", "guess", 3, ["x"], {}])
def test_an_unknown_sid_is_gone(store, sid):
    with pytest.raises(Gone, match="Reload"):
        store.get(sid)


def test_closing_a_tab_frees_its_session_after_the_grace_period_and_ends_its_reply(store):
    entry, other = store.create("a"), store.create("b")
    run = entry.session.run
    store.leave("a")
    assert entry.session.run > run
    assert store.get(entry.sid) is entry
    wait_until(lambda: len(store) == 1)
    assert store.get(other.sid) is other


def test_a_page_that_is_loaded_again_takes_its_session_over(store):
    entry = store.create("before")
    store.leave("before")
    assert store.adopt(entry.sid, "after") is entry
    threading.Event().wait(0.15)
    assert store.get(entry.sid) is entry


def test_the_old_page_leaving_late_does_not_free_what_was_taken_over(store):
    entry = store.create("before")
    store.adopt(entry.sid, "after")
    store.leave("before")
    threading.Event().wait(0.15)
    assert store.get(entry.sid) is entry


def test_adopting_what_is_gone_gives_nothing(store):
    assert store.adopt("never was", "tab") is None
    assert store.adopt(None, "tab") is None


def test_the_least_recently_used_session_is_dropped_when_the_bytes_run_out(engine):
    store = SessionStore(engine.session, capacity=2 * FLOOR)
    first, second = store.create("a"), store.create("b")
    store.get(first.sid)
    third = store.create("c")
    with pytest.raises(Gone):
        store.get(second.sid)
    assert store.get(first.sid) is first
    assert store.get(third.sid) is third


def test_a_session_that_streams_is_never_dropped(engine):
    store = SessionStore(engine.session, capacity=FLOOR)
    streaming = store.create("a")
    assert streaming.begin(streaming.session.run)
    store.create("b")
    store.create("c")
    assert store.get(streaming.sid) is streaming
    assert len(store) == 2


def test_bytes_of_the_cache_count(engine):
    store = SessionStore(engine.session, capacity=1)
    big = store.create("a")
    big.session.rewrite(list(range(10)))
    engine.feed(big.session)
    assert big.session.nbytes > 0
    kept = store.create("b")
    assert len(store) == 1
    assert store.get(kept.sid) is kept


def test_an_interrupted_run_cannot_begin_and_a_session_has_one_stream(store):
    entry = store.create("a")
    run = entry.interrupt()
    assert not entry.begin(run - 1)
    assert entry.begin(run)
    assert not entry.begin(run)
    entry.end()
    assert entry.begin(run)


def test_interrupting_a_run_that_is_over_changes_nothing(store):
    entry = store.create("a")
    run = entry.interrupt()
    assert entry.interrupt(run - 1) == run


def test_quiet_waits_for_the_stream_and_gives_up_in_the_end(store):
    entry = store.create("a")
    entry.begin(entry.session.run)
    with pytest.raises(Busy, match="try again"):
        entry.quiet(timeout=0.01)
    threading.Timer(0.05, entry.end).start()
    entry.quiet(timeout=5)
    assert not entry.streaming


def test_changes_are_told(engine):
    told = []
    store = SessionStore(engine.session, changed=lambda s: told.append((s.run, s.params.temperature)))
    entry = store.create("a")
    entry.set_params(SamplingParams(temperature=0))
    entry.interrupt()
    assert told == [(0, 0.0), (1, 0.0)]


def wait_until(condition, seconds=5.0):
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited in vain")
