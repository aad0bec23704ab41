"""Sessions of tabs: who owns them, how long they live, and how much they may take together."""

import threading
from types import SimpleNamespace

import pytest
import torch

from demo.running import Running
from demo.store import FLOOR, Busy, Gone, Samples, Watched
from gpt.branch import Branch
from gpt.heads import HeadMetrics, Thumbnails
from gpt.interp import Sight, rollout
from gpt.params import SamplingParams
from tests.page import OneModel


@pytest.fixture
def store(engine):
    return OneModel(Running(engine), grace=0.05)


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


def test_a_page_that_is_loaded_again_takes_its_session_over(engine):
    store = OneModel(Running(engine), grace=0.5)  # long enough for a busy machine to come back in time
    entry = store.create("before")
    store.leave("before")
    assert store.adopt(entry.sid, "after") is entry
    threading.Event().wait(0.8)
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
    store = OneModel(Running(engine), capacity=2 * FLOOR)
    first, second = store.create("a"), store.create("b")
    store.get(first.sid)
    third = store.create("c")
    with pytest.raises(Gone):
        store.get(second.sid)
    assert store.get(first.sid) is first
    assert store.get(third.sid) is third


def test_a_session_that_streams_is_never_dropped(engine):
    store = OneModel(Running(engine), capacity=FLOOR)
    streaming = store.create("a")
    assert streaming.begin(streaming.session.run)
    store.create("b")
    store.create("c")
    assert store.get(streaming.sid) is streaming
    assert len(store) == 2


def test_bytes_of_the_cache_count(engine):
    store = OneModel(Running(engine), capacity=1)
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


def told_to(engine, listener):
    """The engine as one that computes elsewhere, and so must be told of changes."""
    return Running(engine, SimpleNamespace(session=engine.session, publish=listener))


def test_changes_are_told(engine):
    told = []
    store = OneModel(told_to(engine, lambda s: told.append((s.run, s.params.temperature))))
    entry = store.create("a")
    entry.set_params(SamplingParams(temperature=0))
    entry.interrupt()
    assert told == [(0, 0.0), (1, 0.0)]


# ---- replies beside each other ---------------------------------------------------------------------------------------


@pytest.fixture
def several(engine, store):
    """An entry with a message, to which three replies were asked for."""
    entry = store.create("a")
    engine.extend(entry.session, [{"role": "user", "content": "hi"}], seed=4)
    entry.samples = Samples((4, 5, 6), "temperature", (0.0, 1.0, 2.0))
    return entry


def test_replies_beside_each_other_have_their_seeds_and_what_is_in_force_but_for_the_ladder(several):
    sessions = several.start_samples(several.session.run)
    several.set_params(SamplingParams(temperature=0.3, top_k=5))
    assert [(s.seed, s.params.temperature, s.params.top_k) for s in sessions] == [(4, 0, 5), (5, 1, 5), (6, 2, 5)]


def test_they_begin_once_and_not_for_a_run_that_is_over(several):
    assert several.start_samples(several.session.run - 1) == []
    assert len(several.start_samples(several.session.run)) == 3
    assert several.start_samples(several.session.run) == []


def test_interrupting_ends_every_one_of_them_and_all_are_told(engine):
    told = []
    entry = OneModel(told_to(engine, told.append)).create("a")
    engine.extend(entry.session, [{"role": "user", "content": "hi"}])
    entry.samples = Samples((1, 2))
    sessions = entry.start_samples(entry.session.run)
    entry.interrupt()
    assert [s.run for s in sessions] == [1, 1]
    assert told == [entry.session, *sessions]


def test_keeping_them_makes_branches_of_those_that_have_begun(engine, several):
    first, _, third = several.start_samples(several.session.run)
    epoch = several.epoch
    engine.step([first, third])
    several.keep_samples()
    assert [b.seed for b in several.session.branches.values()] == [4, 6]
    assert (several.samples, several.epoch) == (None, epoch + 1)


def test_keeping_none_that_has_begun_changes_nothing_but_forgets_them(several):
    before, epoch = list(several.session.tokens), several.epoch
    several.keep_samples()
    assert (several.samples, several.session.tokens, several.epoch) == (None, before, epoch)


def test_a_setting_has_one_index_whoever_asks(store):
    entry = store.create("a")
    found = {}

    def ask(k):
        found[k] = [entry.setting(SamplingParams(top_k=n)) for n in range(200)]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.settings.values()) == list(range(200))
    assert all(found[k] == found[0] for k in range(4))


# ---- what is derived -------------------------------------------------------------------------------------------------


@pytest.fixture
def forked(engine, store):
    """An entry with two branches that share their first eight tokens; all of the second one was read."""
    entry = store.create("a")
    entry.session.branches = {0: Branch(list(range(30))), 1: Branch([*range(8), *range(60, 80)], parent=0, forked_at=8)}
    entry.session.switch(1)
    engine.feed(entry.session)
    return entry


def test_nothing_is_watched_until_a_page_says_so(store):
    assert store.create("a").watched is None
    watched = Watched("a", Sight(((0, 0),)))
    assert (watched.low, watched.high) == (0, 1)


def test_another_branch_stands_beside_the_session_until_it_changes(engine, forked):
    other = forked.beside(0)
    assert (other.tokens, other.cache.length) == (list(range(30)), 8)
    engine.feed(other)
    assert forked.beside(0) is other
    forked.session.branches[0].tokens.append(99)
    changed = forked.beside(0)
    assert (changed is other, changed.tokens[-1], changed.cache.length) == (False, 99, 8)
    forked.session.branches[2] = Branch([1, 2, 3])
    assert forked.beside(2).tokens == [1, 2, 3]
    assert forked.session.cache.length == len(forked.session.tokens)


def test_a_branch_that_does_not_exist_any_more_is_refused(forked):
    with pytest.raises(ValueError, match="no branch 7; there are 0, 1"):
        forked.beside(7)
    forked.beside(0)
    forked.session.delete(0)
    with pytest.raises(ValueError, match="no branch 0; there are 1"):
        forked.beside(0)


def test_a_branch_and_a_rollout_that_are_looked_at_count_as_memory_until_the_chat_is_new(engine, forked):
    before = forked.nbytes
    other = forked.beside(0)
    engine.feed(other)
    assert forked.nbytes == before + other.nbytes
    forked.rolled(other, 1, rollout)
    assert forked.nbytes == before + other.nbytes + 30 * 30 * 4
    forked.renew(engine.session(), None)
    assert forked.nbytes == 0


def test_a_rollout_is_made_anew_for_another_session_text_length_or_layer(engine, forked):
    made = []

    def make(session, layer):
        made.append((session, session.cache.length, layer))
        return rollout(session, layer)

    session, other = forked.session, forked.beside(0)
    first = forked.rolled(session, 1, make)
    assert forked.rolled(session, 1, make) is first
    forked.rolled(session, 2, make)
    forked.rolled(other, 2, make)
    session.tokens.append(5)
    engine.feed(session)
    forked.rolled(session, 1, make)
    forked.epoch += 1
    forked.rolled(session, 1, make)
    assert made == [(session, 28, 1), (session, 28, 2), (other, 8, 2), (session, 29, 1), (session, 29, 1)]


def test_metrics_and_pictures_are_those_of_the_session_and_pictures_are_copies(forked):
    for name, values in HeadMetrics().update(forked.session).items():
        torch.testing.assert_close(forked.head_metrics()[name], values, equal_nan=True)
    pictures, size = forked.thumbnails()
    expected, _ = Thumbnails().update(forked.session)
    assert (torch.equal(pictures, expected), size) == (True, 1)
    pictures.fill_(9)
    assert torch.equal(forked.thumbnails()[0], expected)


def test_readers_on_several_threads_get_the_same(engine, forked):
    found = []

    def ask():
        found.append(
            (forked.thumbnails()[0], forked.head_metrics()["first"], forked.rolled(forked.session, 2, rollout))
        )

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(torch.equal(a, b) for other in found for a, b in zip(other, found[0], strict=True))


def wait_until(condition, seconds=5.0):
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited in vain")
