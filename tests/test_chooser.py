"""What could have stood at a position is what was drawn from there, and can be looked at under other settings."""

import pytest
import torch

from gpt import chooser
from gpt.chooser import step_at
from gpt.params import SamplingParams
from gpt.sampling import shape_logits, uniform

WARM = SamplingParams(temperature=1.3, top_k=50, min_p=0.01, max_new_tokens=10)


@pytest.fixture
def reply(engine):
    session = engine.session("hello", WARM, seed=3)
    events = list(engine.stream(session))
    engine.feed(session)
    return session, events


def test_the_distribution_at_a_sampled_token_is_the_one_it_was_drawn_from(engine, reply):
    session, events = reply
    for event in events:
        choice = engine.distribution(session, event.position, event.params)
        assert (choice.drawn, choice.token, choice.u) == (event.token, event.token, event.u)
        assert [(s.name, s.tokens) for s in choice.shaped.stages] == [(s.name, s.tokens) for s in event.stages]
        for candidate in event.candidates:
            assert choice.shaped.probs[candidate.token].item() == pytest.approx(candidate.raw, abs=1e-7)
            assert choice.shaped.final[candidate.token].item() == pytest.approx(candidate.final, abs=1e-7)


def test_logits_from_the_state_that_was_kept_are_those_of_a_whole_run(engine, reply):
    session, _ = reply
    tokens = torch.tensor([session.tokens])
    whole = engine.model(tokens, torch.arange(len(session.tokens)))[0]
    for position in range(1, len(session.tokens) + 1):
        torch.testing.assert_close(engine.logits(session, position), whole[position - 1], atol=1e-4, rtol=1e-4)


def test_other_settings_shape_the_same_logits_and_the_same_draw_picks_from_them(engine, reply):
    session, events = reply
    event = events[2]
    cold = engine.distribution(session, event.position, WARM.replace(temperature=0))
    assert cold.drawn == event.candidates[0].token
    assert cold.u == event.u
    assert torch.equal(cold.shaped.probs, engine.distribution(session, event.position, WARM).shaped.probs)


def test_given_tokens_and_the_place_after_the_last_one_have_a_distribution_too(engine, reply):
    session, _ = reply
    given = engine.distribution(session, 5)
    assert given.token == session.tokens[5]
    after = engine.distribution(session, len(session.tokens))
    assert after.token is None
    session.resume()
    assert next(engine.stream(session)).token == after.drawn


def test_a_position_that_has_no_past_or_was_not_read_is_refused(engine):
    session = engine.session("hello", WARM)
    with pytest.raises(ValueError, match="position must be from 1 to"):
        engine.distribution(session, 0)
    with pytest.raises(ValueError, match="the model has read 0 tokens"):
        engine.distribution(session, 3)


def test_a_step_is_told_again_from_tokens_and_records_alone(engine, reply):
    session, events = reply
    grammar = WARM.replace(grammar=("regex", "[a-z]+"))
    at = events[4].position
    step = step_at(session.current, at, grammar, seed=3)
    assert (step.reply_start, step.grammar_start, len(step.history)) == (events[0].position, at, at)
    assert step.coin == uniform(3, at, stream=1) != uniform(3, at)


def test_a_grammar_holds_from_where_it_was_switched_on(engine):
    session = engine.session("hello", WARM)
    stream = engine.stream(session)
    free = [next(stream) for _ in range(3)]
    session.params = WARM.replace(grammar=("regex", "[a-e]+"))
    bound = [next(stream) for _ in range(4)]
    assert all(event.text in "abcde" for event in bound)
    step = step_at(session.current, len(session.tokens), session.params, seed=0)
    assert step.grammar_start == free[-1].position + 1


def test_mirostat_goes_on_from_the_state_in_the_record_before(engine):
    session = engine.session("hello", WARM.replace(mirostat_tau=3.0))
    events = list(engine.stream(session))
    assert all(event.mu is not None for event in events)
    assert step_at(session.current, events[4].position, session.params, 0).mu == events[3].mu
    assert step_at(session.current, events[0].position, session.params, 0).mu is None


def test_a_slider_moved_while_a_token_is_chosen_changes_nothing_of_its_record(engine, monkeypatch):
    session = engine.session("hello", WARM, seed=3)

    def moved(*args, **options):
        session.params, session.seed = WARM.replace(temperature=0.1, max_new_tokens=1), 99
        return shape_logits(*args, **options)

    monkeypatch.setattr(chooser, "shape_logits", moved)
    event = next(engine.stream(session))
    assert (event.params, event.seed, event.finish) == (WARM, 3, None)
    assert event.u == uniform(3, event.position)


def test_seconds_are_those_since_the_token_before(engine, monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    session = engine.session("hello", WARM)
    assert [event.seconds for event in engine.stream(session)] == [1.0] * 10
