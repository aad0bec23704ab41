"""History can be rewritten, forked and switched; no sampled token is lost, the cache is never ahead of the text."""

import math

import pytest

from gpt.chat import Span
from gpt.params import SamplingParams

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
    session.fork(event.position, [other.token])
    assert session.tokens == before[: event.position]
    rest = list(engine.stream(session))
    assert (rest[0].token, rest[0].u, rest[1].u is None) == (other.token, None, False)
    assert rest[0].logprob == pytest.approx(math.log(other.raw), abs=1e-4)
    assert rest[0].final_logprob == pytest.approx(math.log(other.final), abs=1e-4)
    assert len(rest) == 1 + WARM.max_new_tokens
    assert session.branches[0].tokens == before
    assert (session.current.parent, session.current.forked_at) == (0, event.position)


def test_any_token_of_the_vocabulary_can_be_put_and_several_at_once(engine):
    session, events = answered(engine)
    absent = next(t for t in range(2, 258) if all(c.token != t for c in events[2].candidates))
    session.fork(events[2].position, [absent, 77, absent])
    rest = list(engine.stream(session))
    assert [(e.token, e.u) for e in rest[:3]] == [(absent, None), (77, None), (absent, None)]
    assert rest[0].candidates[-1].token == absent
    assert rest[3].u is not None


def test_a_stopped_reply_goes_on_with_a_token_chosen_by_hand_in_the_same_branch(engine):
    session, _ = answered(engine)
    n = len(session.tokens)
    session.fork(n, [90])
    assert next(engine.stream(session)).token == 90
    assert len(session.branches) == 1
    assert session.records[n].u is None


def test_a_token_chosen_by_hand_can_end_the_reply(engine):
    session, _ = answered(engine)
    session.fork(len(session.tokens), [1])
    assert [e.finish for e in engine.stream(session)] == ["end"]


def test_going_on_from_a_position_without_a_token_draws_it_under_the_settings_in_force(engine):
    session, events = answered(engine)
    session.params, session.seed = WARM.replace(temperature=0.3), 77
    position = events[3].position
    drawn = engine.distribution(session, position).drawn
    session.fork(position)
    assert next(engine.stream(session)).token == drawn


def test_forking_back_to_the_old_token_gives_the_old_text_again(engine):
    session, events = answered(engine)
    old = list(session.tokens)
    session.fork(events[3].position, [events[3].token])
    rest = list(engine.stream(session))
    assert session.tokens[: len(old)] == old
    assert [e.token for e in rest][1 : len(events) - 3] == [e.token for e in events[4:]]


def test_an_earlier_reply_can_be_forked(engine):
    session, first = answered(engine)
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
    list(engine.stream(session))
    event = first[2]
    session.fork(event.position, [next(c.token for c in event.candidates if c.token != event.token)])
    assert session.reply_start == first[0].position
    list(engine.stream(session))
    assert [m["role"] for m in engine.messages(session)] == ["user", "assistant"]


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


def test_a_given_token_cannot_be_forked_nor_the_end_of_a_complete_reply(engine):
    session, _ = answered(engine)
    with pytest.raises(ValueError, match="token 0 is not one that can be chosen anew"):
        session.fork(0, [5])
    session.finish = "end"
    with pytest.raises(ValueError, match="after a reply that was stopped"):
        session.fork(len(session.tokens), [5])


def test_switching_branches_leaves_a_cache_that_fits(engine):
    session, events = answered(engine)
    other = next(c.token for c in events[4].candidates if c.token != events[4].token)
    session.fork(events[4].position, [other])
    list(engine.stream(session))
    for branch in (0, 1):
        session.switch(branch)
        assert session.cache.length <= events[4].position
        engine.feed(session)
        assert session.cache.length == len(session.tokens)
    with pytest.raises(ValueError, match="no branch 7"):
        session.switch(7)


def forked_twice(engine):
    """Branch 0; branch 1 leaves it at its 6th token; branch 2 leaves branch 1 at its 9th."""
    session, events = answered(engine)
    session.fork(events[5].position, [50])
    second = list(engine.stream(session))
    session.fork(second[3].position, [60])
    list(engine.stream(session))
    return session, events[5].position


def test_deleting_a_branch_lets_its_children_leave_its_parent(engine):
    session, at = forked_twice(engine)
    kept = list(session.tokens)
    session.delete(1)
    assert list(session.branches) == [0, 2]
    assert (session.branches[2].parent, session.branches[2].forked_at) == (0, at)
    assert session.tokens == kept


def test_deleting_the_first_branch_makes_another_the_first(engine):
    session, _ = forked_twice(engine)
    session.delete(0)
    assert (session.branches[1].parent, session.branches[1].forked_at) == (None, 0)
    assert session.branches[2].parent == 1


def test_deleting_the_current_branch_shows_its_parent_and_the_only_one_stays(engine):
    session, _ = forked_twice(engine)
    session.delete(2)
    assert session.branch == 1
    engine.feed(session)
    assert session.cache.length == len(session.tokens)
    session.delete(1)
    with pytest.raises(ValueError, match="only branch"):
        session.delete(0)


def test_numbers_of_deleted_branches_are_not_used_again(engine):
    session, at = forked_twice(engine)
    session.delete(2)
    session.fork(at, [70])
    assert session.branch == 3


def test_a_branch_has_the_name_that_it_was_given_and_a_fork_of_it_has_none(engine):
    session, events = answered(engine)
    session.rename(0, "calm")
    session.fork(events[2].position, [50])
    assert [b.name for b in session.branches.values()] == ["calm", ""]


def test_samples_are_each_what_their_seed_gives_alone(engine):
    session = engine.session("hello", WARM)
    engine.feed(session)
    samples = session.spread([4, 5, 6])
    for _ in engine.stream_all(samples):
        pass
    for seed, sample in zip([4, 5, 6], samples, strict=True):
        alone = engine.session("hello", WARM, seed)
        assert [e.token for e in engine.stream(alone)] == sample.tokens[session.reply_start :]


def test_the_sample_that_is_picked_goes_on_and_the_others_become_branches(engine):
    session = engine.session("hello", WARM)
    engine.feed(session)
    samples = session.spread([4, 5, 6])
    for _ in engine.stream_all(samples):
        pass
    session.gather(samples, 1)
    assert [session.branches[n].seed for n in session.branches] == [5, 4, 6]
    assert session.tokens == samples[1].tokens
    assert {b.parent for n, b in session.branches.items() if n} == {0}
    session.resume()
    assert len(list(engine.stream(session))) == WARM.max_new_tokens


def test_samples_of_a_reply_that_exists_leave_it_as_a_branch(engine):
    session, events = answered(engine)
    old = list(session.tokens)
    samples = session.spread([4, 5])
    for _ in engine.stream_all(samples):
        pass
    assert session.tokens == old
    session.gather(samples, 0)
    assert [session.branches[n].seed for n in session.branches] == [0, 4, 5]
    assert session.branches[0].tokens == old
    assert session.current.forked_at == events[0].position


def test_two_to_eight_samples_are_written_at_once(engine):
    session = engine.session("hello", WARM)
    for seeds in ([1], range(9)):
        with pytest.raises(ValueError, match="from 2 to 8 replies"):
            session.spread(seeds)
    with pytest.raises(ValueError, match="not begun yet"):
        session.gather(session.spread([1, 2]), 0)


def test_bytes_grow_with_records(engine):
    session = engine.session("hello", GREEDY)
    before = session.nbytes
    events = list(engine.stream(session))
    assert session.nbytes >= before + 5_000 * len(events)


def test_one_branch_alone_is_an_independent_session_with_what_it_shares_of_the_cache(engine):
    session, at = forked_twice(engine)
    engine.feed(session)
    whole, keys = list(session.tokens), session.cache.keys().clone()
    alone = session.only(0)
    assert (list(alone.branches), alone.branch, alone.tokens) == ([0], 0, session.branches[0].tokens)
    assert alone.cache.length == at
    assert (alone.reply_start, alone.finish, alone.params) == (session.reply_start, "length", session.params)
    engine.feed(alone)
    alone.tokens.append(5)
    alone.records.append(None)
    assert (session.tokens, session.branches[0].tokens[-1]) == (whole, alone.tokens[-2])
    assert session.cache.keys().equal(keys)


def test_the_branch_that_is_shown_can_be_had_alone_with_all_of_its_cache(engine):
    session, _ = forked_twice(engine)
    engine.feed(session)
    alone = session.only(session.branch)
    assert (alone.tokens, alone.cache.length) == (session.tokens, session.cache.length)
    alone.cache.truncate(3)
    assert session.cache.length == len(session.tokens)


def test_a_branch_that_does_not_exist_cannot_be_had_alone(engine):
    with pytest.raises(ValueError, match="no branch 7"):
        answered(engine)[0].only(7)
