"""A conversation that was saved opens as it was, and every draw of it comes out again; what is no record is refused."""

import copy
import json

import pytest

from gpt.params import SamplingParams
from gpt.record import RecordError, from_record, replay, to_record

WARM = SamplingParams(temperature=1.2, top_p=0.95, max_new_tokens=12)


@pytest.fixture
def talk(engine):
    """Two turns, settings changed in mid-reply, a token chosen by hand, three branches."""
    session = engine.session("hello", WARM, seed=11)
    stream = engine.stream(session)
    events = [next(stream) for _ in range(4)]
    session.params = WARM.replace(temperature=0.7, typical_p=0.9, xtc_probability=0.5, mirostat_tau=4.0)
    events += stream
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
    events += engine.stream(session)
    session.fork(events[6].position, [99])
    list(engine.stream(session))
    session.redo(seed=5)
    list(engine.stream(session))
    session.rename(1, "by hand")
    return session


def saved(session) -> dict:
    """The record as it comes back from a file."""
    return json.loads(json.dumps(to_record(session, "tiny"), allow_nan=False))


def test_a_record_opens_as_the_session_that_was_saved(engine, talk):
    opened = from_record(engine, saved(talk))
    assert opened.branches.keys() == talk.branches.keys()
    for number, branch in talk.branches.items():
        other = opened.branches[number]
        assert (other.tokens, other.records, other.spans) == (branch.tokens, branch.records, branch.spans)
        assert (other.parent, other.forked_at, other.name) == (branch.parent, branch.forked_at, branch.name)
    assert (opened.branch, opened.params, opened.seed) == (talk.branch, talk.params, talk.seed)
    assert saved(opened)["records"] == saved(talk)["records"]


def test_every_draw_of_every_branch_comes_out_again(engine, talk):
    record = saved(talk)
    for number in talk.branches:
        opened = from_record(engine, {**record, "branch": number})
        drawn = [r for r in opened.records if r is not None and r.u is not None]
        assert replay(engine, opened) == len(drawn) >= 12


def test_the_end_of_an_earlier_reply_comes_out_again_under_its_grammar(engine):
    session = engine.session("hello", WARM.replace(grammar=("choice", "yes\nno"), mirostat_tau=3.0))
    assert [e.finish for e in engine.stream(session)][-1] == "end"
    engine.extend(session, [*engine.messages(session), {"role": "user", "content": "more"}])
    session.params = WARM.replace(min_new_tokens=4)
    drawn = len([*engine.stream(session)])
    opened = from_record(engine, saved(session))
    assert replay(engine, opened) == drawn + len([r for r in opened.records if r and r.params.grammar])


def test_a_conversation_goes_on_after_it_was_opened(engine, talk):
    opened = from_record(engine, saved(talk))
    for session in (talk, opened):
        engine.extend(session, [*engine.messages(session), {"role": "user", "content": "and?"}])
    assert [e.token for e in engine.stream(opened)] == [e.token for e in engine.stream(talk)]


def test_the_first_draw_that_comes_out_otherwise_is_named(engine, talk):
    record = saved(talk)
    branch = record["branches"][0]
    index = next(i for i in branch["records"] if i is not None)
    event = record["records"][index]
    event["token"] = branch["tokens"][event["position"]] = (event["token"] + 1) % 258
    with pytest.raises(RecordError, match=f"token {event['position']} came out as"):
        replay(engine, from_record(engine, {**record, "branch": 0, "branches": [branch]}))


def changed(record: dict, path: list, value: object) -> dict:
    record = copy.deepcopy(record)
    *way, last = path
    at = record
    for step in way:
        at = at[step]
    at[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "a picture", "choose a file that Save has written"),
        (["version"], 9, "version 9; version 1 can be read"),
        (["model"], "gpt2", "held with 'gpt2'"),
        (["branch"], 77, "one of them shown"),
        (["branches", 0, "tokens", 0], 999, "token must be a whole number from 0 to 257"),
        (["branches", 0, "tokens"], [5] * 600, "the model's context takes 512"),
        (["branches", 0, "records"], [], "and 0 records"),
        (["branches", 0, "spans", 0, 1], 3, "do not cover the prompt"),
        (["branches", 0, "spans", 0, 0], "king", "role must be one of"),
        (["branches", 0, "reads"], [0, 0], "begin at 0 and grow"),
        (["branches", 1, "parent"], 2, "does not go back to the first one"),
        (["branches", 1, "name"], 5, "a text was expected"),
        (["records", 0, "u"], "half", "a number was expected"),
        (["records", 0, "settings"], 40, "settings must be a whole number"),
        (["records", 0, "candidates", 0, 0], -1, "token must be"),
        (["records", 0, "position"], 3, "is not that of token"),
        (["settings", 0, "temperature"], "hot", "temperature must be a number"),
        (["settings", 0, "heat"], 1, "unexpected keyword"),
        (["params"], [], "not a conversation that was saved here"),
        (["branches", 0], {}, "is missing"),
    ],
)
def test_what_is_wrong_in_a_record_is_named(engine, talk, path, value, message):
    with pytest.raises(RecordError, match=message):
        from_record(engine, changed(saved(talk), path, value))


@pytest.mark.parametrize("record", [None, [], "text", {}, {"format": "glassbox conversation"}])
def test_what_is_no_record_is_refused(engine, record):
    with pytest.raises(RecordError):
        from_record(engine, record)
