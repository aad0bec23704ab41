"""History can be rewritten, forked and switched; no sampled token is lost, the cache is never ahead of the text."""

import math

import pytest

from gpt.chat import Span
from gpt.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
WARM = SamplingParams(temperature=1.0, max_new_tokens=12)


def answered(engine, text="hello", params=WARM, seed=0):
    session = engine.session(text, params, seed)
    return session, list(engine.stream(session))


def same_as_fresh(engine, session) -> None:
    """What the session generates next equals a session that starts from the same tokens."""
    fresh = engine.session(params=session.params, seed=session.seed)
    fresh.rewrite(session.tokens, session.spans)
    mine, theirs = list(engine.stream(session)), list(engine.stream(fresh))
    assert [e.token for e in mine] == [e.token for e in theirs]
    assert [e.logprob for e in mine] == pytest.approx([e.logprob for e in theirs], abs=1e-4)


def test_rewrite_keeps_the_longest_common_prefix(engine):
    session, _ = answered(engine)
    shared = session.rewrite([*session.tokens[:9], 7, 7], (Span("user", 0, 11),))
    assert (shared, session.cache.length, len(session.tokens)) == (9, 9, 11)
    same_as_fresh(engine, session)


def test_sampled_tokens_lost_to_a_rewrite_stay_in_their_branch(engine):
    session, events = answered(engine)
    before = list(session.tokens)
    session.rewrite(before[:5])
    assert len(session.branches) == 2
    session.switch(0)
    assert session.tokens == before
    assert [r.token for r in session.records if r] == [e.token for e in events]


def test_going_on_after_a_reply_makes_no_branch(engine):
    session, _ = answered(engine)
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "and?"}])
    assert len(session.branches) == 1
    same_as_fresh(engine, session)


def test_fork_goes_on_with_the_other_token_and_keeps_the_old_branch(engine):
    session, events = answered(engine)
    event = events[4]
    other = next(c for c in event.candidates if c.token != event.token)
    before = list(session.tokens)
    session.fork(event.position, other.token)
    assert session.tokens == [*before[: event.position], other.token]
    assert session.records[-1].u is None
    assert session.records[-1].logprob == pytest.approx(math.log(other.raw))
    assert session.branches[0].tokens == before
    assert (session.current.parent, session.current.forked_at) == (0, event.position)
    same_as_fresh(engine, session)


def test_forking_back_to_the_old_token_gives_the_old_text_again(engine):
    session, events = answered(engine)
    old = list(session.tokens)
    session.fork(events[3].position, events[3].token)
    rest = list(engine.stream(session))
    assert session.tokens[: len(old)] == old
    assert [e.token for e in rest][: len(events) - 4] == [e.token for e in events[4:]]


def test_an_earlier_reply_can_be_forked(engine):
    session, first = answered(engine)
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
    list(engine.stream(session))
    event = first[2]
    session.fork(event.position, next(c.token for c in event.candidates if c.token != event.token))
    assert session.reply_start == first[0].position
    assert [m["role"] for m in engine.messages(session)] == ["user", "assistant"]
    same_as_fresh(engine, session)


def test_redo_repeats_every_number_bit_for_bit(engine):
    session, _ = answered(engine)
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
    first = list(engine.stream(session))
    engine.feed(session)
    session.redo()
    again = list(engine.stream(session))
    assert [(e.logprob, e.entropy) for e in again] == [(e.logprob, e.entropy) for e in first]


def test_redo_with_the_same_seed_gives_the_same_text_and_another_seed_another(engine):
    session, events = answered(engine)
    session.redo()
    assert [e.token for e in engine.stream(session)] == [e.token for e in events]
    session.redo(seed=99)
    assert [e.token for e in engine.stream(session)] != [e.token for e in events]
    assert len(session.branches) == 3


def test_resume_after_length_goes_on_as_if_never_stopped(engine):
    whole = answered(engine, params=WARM.replace(max_new_tokens=24))[1]
    session, events = answered(engine)
    assert session.finish == "length"
    session.resume()
    assert [e.token for e in [*events, *engine.stream(session)]] == [e.token for e in whole]


def test_a_complete_reply_cannot_be_resumed(engine):
    session, _ = answered(engine)
    session.finish = "end"
    with pytest.raises(ValueError, match="complete"):
        session.resume()


def test_a_given_token_cannot_be_forked_nor_an_unrecorded_one_chosen(engine):
    session, events = answered(engine)
    with pytest.raises(ValueError, match="was not sampled"):
        session.fork(0, 5)
    absent = next(t for t in range(258) if all(c.token != t for c in events[0].candidates))
    with pytest.raises(ValueError, match="not among the candidates"):
        session.fork(events[0].position, absent)


def test_switching_branches_leaves_a_cache_that_fits(engine):
    session, events = answered(engine)
    other = next(c.token for c in events[4].candidates if c.token != events[4].token)
    session.fork(events[4].position, other)
    list(engine.stream(session))
    for branch in (0, 1):
        session.switch(branch)
        assert session.cache.length <= events[4].position
        engine.feed(session)
        assert session.cache.length == len(session.tokens)
    with pytest.raises(ValueError, match="no branch 7"):
        session.switch(7)


def test_bytes_grow_with_records(engine):
    session = engine.session("hello", GREEDY)
    before = session.nbytes
    events = list(engine.stream(session))
    assert session.nbytes >= before + 5_000 * len(events)
