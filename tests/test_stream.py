"""What is pushed to the page: every token once, in order, with its record and the rows that its step computed."""

import base64
import itertools
import json
import math
import threading
import time

import numpy as np
import pytest

from demo.matrix import Scale
from demo.running import Running
from demo.store import Watched
from demo.stream import PUSHED_ROWS, _Writer, run, run_requested, snapshot
from demo.wire import token_objects
from gpt.interp import Sight, attention_pattern, sight_rows
from gpt.params import SamplingParams
from tests.page import NO_END, OneModel

WARM = SamplingParams(temperature=1.0, max_new_tokens=24)
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


@pytest.fixture
def store(engine):
    return OneModel(Running(engine))


@pytest.fixture
def entry(engine, store):
    entry = store.create("tab")
    entry.session.params = WARM
    engine.extend(entry.session, HELLO, seed=4)
    return entry


def messages(engine, entry, limit=None):
    return [json.loads(text) for text in run(entry, entry.session.run, limit)]


def pushed(received, key="toks"):
    return [item for message in received for item in (message[key] if key == "toks" else message[key]["items"])]


def test_every_token_of_the_reply_is_pushed_once_and_in_order(engine, entry):
    start = len(entry.session.tokens)
    received = messages(engine, entry)
    toks = pushed(received)
    assert [t["i"] for t in toks] == list(range(start, len(entry.session.tokens)))
    assert [t["id"] for t in toks] == entry.session.tokens[start:]
    assert [m["from"] for m in received[1:]] == [m["n"] for m in received[:-1]]
    assert {(m["sid"], m["run"], m["epoch"]) for m in received} == {(entry.sid, entry.session.run, entry.epoch)}


def test_the_last_message_is_idle_and_says_why_it_ended(engine, entry):
    *before, last = messages(engine, entry)
    assert {m["state"] for m in before} <= {"streaming"}
    assert (last["state"], last["finish"]) == ("idle", "length")
    assert last["n"] == last["stats"]["context"] == last["stats"]["rows"] == len(entry.session.tokens)
    assert last["stats"]["block_size"] == 512
    assert last["stats"]["tps"] > 0
    assert not entry.streaming


def test_a_token_says_what_its_record_says(engine, entry):
    messages(engine, entry)
    position = len(entry.session.tokens) - 3
    record = entry.session.records[position]
    (told,) = token_objects(entry, position, position + 1)
    assert (told["i"], told["id"], told["role"], told["m"]) == (position, record.token, "assistant", 2)
    assert told["lp"] == pytest.approx(record.logprob, rel=1e-5)
    assert (told["rank"], told["u"]) == (record.rank, record.u)
    assert told["ent"] == pytest.approx(record.entropy, rel=1e-5)
    assert [c[0] for c in told["cand"]] == [c.token for c in record.candidates]
    assert [c[4] for c in told["cand"]] == [c.removed_by or "" for c in record.candidates]
    assert snapshot(entry)["settings"][told["par"]] == record.params.as_dict()
    assert told["fl"] == pytest.approx(record.final_logprob, rel=1e-5)
    assert told["dt"] == pytest.approx(record.seconds, rel=1e-5)
    assert "ig" not in told


def test_a_token_says_what_each_filter_left_and_which_could_not_be_applied(engine, entry):
    entry.session.params = WARM.replace(
        max_new_tokens=3, temperature=0.5, top_k=30, banned=["z"], grammar=("choice", "z")
    )
    messages(engine, entry)
    told = token_objects(entry, len(entry.session.tokens) - 1)[0]
    record = entry.session.records[-1]
    assert told["st"] == [[s.name, s.tokens, pytest.approx(s.kept, rel=1e-5)] for s in record.stages]
    assert [name for name, _, _ in told["st"]] == ["banned", "grammar", "temperature", "top_k"]
    assert told["st"][-1][1] == 30
    assert told["ig"] == ["grammar"]


def test_given_tokens_carry_roles_and_message_numbers_but_no_record(engine, entry):
    toks = token_objects(entry, 0)
    assert all("lp" not in t for t in toks)
    text = {m: "".join(t["s"] for t in toks if t["m"] == m and t["role"] != "template") for m in (0, 1)}
    assert text == {0: "Be brief.", 1: "hello"}
    assert [t["role"] for t in toks if t["s"] == "<|im_start|>"] == ["template"] * 3
    assert {t["sp"] for t in toks if t["s"].startswith("<|im_")} == {1}


def test_a_character_split_over_tokens_appears_once_and_its_parts_show_their_bytes(engine, entry):
    engine.extend(entry.session, [{"role": "user", "content": "a你"}])
    toks = [t for t in token_objects(entry, 0) if t["role"] == "user"]
    assert [t["s"] for t in toks] == ["a", "", "", "你"]
    assert [t.get("b") for t in toks] == [None, "e4", "bd", None]
    last = toks[-1]["i"]
    assert token_objects(entry, last, last + 1)[0]["s"] == "你"


def test_pushed_and_pulled_tokens_are_the_same(engine, entry):
    start = len(entry.session.tokens)
    toks = pushed(messages(engine, entry))
    assert snapshot(entry, start)["toks"] == toks


def decoded(text):
    return list(base64.b64decode(text))


def test_rows_of_what_is_watched_are_pushed_as_they_are_computed(engine, entry):
    entry.watched = Watched("here", Sight(((1, 2),)))
    received = messages(engine, entry)
    rows = pushed(received, "rows")
    assert {m["rows"]["key"] for m in received if m["rows"]["items"]} == {"here"}
    assert [i for i, _ in rows] == list(range(entry.session.cache.length))
    pattern = attention_pattern(entry.session, 1, [2])[0].numpy()
    for i, text in rows:
        assert decoded(text) == np.rint(255 * np.sqrt(pattern[i, : i + 1])).tolist()


@pytest.mark.parametrize(
    ("sight", "low", "high"),
    [(Sight(((0, 1), (2, 3)), "max", "score"), -300, 300), (Sight(((1, 0), (1, 3)), "mean", "value"), 0, 1000),
     (Sight(((2, 2),), what="rest"), 0, 1)],
)  # fmt: skip
def test_rows_of_any_sight_are_pushed_in_the_bytes_of_its_scale(engine, entry, sight, low, high):
    entry.watched = Watched("here", sight, low, high)
    rows = pushed(messages(engine, entry), "rows")
    n = entry.session.cache.length
    exact = Scale(sight.what, low, high).encode(sight_rows(entry.session, sight, range(n), engine.gram).numpy())
    assert [i for i, _ in rows] == list(range(n))
    for i, text in rows:
        assert np.abs(np.subtract(decoded(text), exact[i, : i + 1].astype(int))).max() <= 1


def test_rows_that_do_not_fit_the_scale_are_left_to_be_pulled(engine, entry):
    entry.watched = Watched("here", Sight(((1, 2),), what="score"), 0.0, 0.001)
    received = messages(engine, entry)
    assert pushed(received, "rows") == []
    assert received[-1]["rows"]["key"] == "here"
    assert received[-1]["stats"]["rows"] == entry.session.cache.length


def test_nothing_is_pushed_of_attention_that_nobody_watches(engine, entry):
    assert {json.dumps(m["rows"]) for m in messages(engine, entry)} == {'{"key": null, "items": []}'}


def test_rows_of_what_is_watched_from_now_on_alone_are_pushed(engine, entry):
    entry.session.params = WARM.replace(max_new_tokens=300, logit_bias=NO_END)
    entry.watched, old = Watched("old", Sight(((0, 0),))), 0
    received = []
    for text in run(entry, entry.session.run):
        received.append(json.loads(text))
        if not old:
            entry.watched, old = Watched("new", Sight(((1, 2),))), received[-1]["n"]
    keys = [m["rows"]["key"] for m in received if m["rows"]["items"]]
    assert keys[-1] == "new"
    assert keys == sorted(keys, reverse=True)
    pattern = attention_pattern(entry.session, 1, [2])[0].numpy()
    rows = [item for m in received if m["rows"]["key"] == "new" for item in m["rows"]["items"]]
    assert [i for i, _ in rows] == list(range(rows[0][0], entry.session.cache.length))
    assert decoded(rows[-1][1]) == np.rint(255 * np.sqrt(pattern[-1])).tolist()


def test_rows_of_a_long_prompt_are_left_to_be_pulled(engine, entry):
    entry.watched = Watched("here", Sight(((0, 0),)))
    engine.extend(entry.session, [{"role": "user", "content": "x" * PUSHED_ROWS}])
    prompt = len(entry.session.tokens)
    rows = pushed(messages(engine, entry), "rows")
    assert [i for i, _ in rows] == list(range(prompt, entry.session.cache.length))


def test_a_long_text_whose_memory_is_bounded_says_which_row_is_the_first(engine, store, monkeypatch):
    monkeypatch.setattr(engine, "query_bytes", 0)
    entry = store.create("tab")
    entry.session.params, entry.watched = WARM, Watched("here", Sight(((0, 0),)))
    engine.extend(entry.session, [{"role": "user", "content": "x" * 370}])
    prompt = len(entry.session.tokens)
    received = messages(engine, entry)
    first = entry.session.cache.first_query
    assert 0 < first == received[-1]["stats"]["first_row"] == snapshot(entry)["stats"]["first_row"]
    assert [i for i, _ in pushed(received, "rows")] == list(range(prompt, len(entry.session.tokens)))


def test_a_row_whose_query_was_dropped_at_once_is_left_to_be_pulled(engine, entry):
    engine.feed(entry.session)
    writer = _Writer(entry, entry.session.run)
    writer._rows_from, entry.watched = 5, Watched("here", Sight(((0, 0),)))
    cache = entry.session.cache
    cache._buffers = cache._buffers._replace(queries=cache._buffers.queries[:, :, 8:], first=8)
    assert writer._new_rows() == {"key": "here", "items": []}


def test_a_slider_moved_in_mid_reply_shows_in_the_next_tokens(engine, entry):
    generator = run(entry, entry.session.run)
    next(generator)
    entry.set_params(WARM.replace(temperature=0))
    list(generator)
    made = [r.params.temperature for r in entry.session.records if r]
    assert made == sorted(made, reverse=True)
    assert made[-1] == 0
    assert [p.temperature for p in entry.settings] == [1.0, 0.0]


def test_settings_travel_when_they_are_new_only(engine, entry):
    received = messages(engine, entry)
    assert [(m["settings_from"], len(m["settings"])) for m in received if "settings" in m] == [(0, 1)]


def test_of_settings_that_change_all_the_time_each_travels_once(engine, entry):
    entry.session.params = WARM.replace(max_new_tokens=400, logit_bias=NO_END)
    known, moves = [], 0
    for text in run(entry, entry.session.run):
        message = json.loads(text)
        del known[message.get("settings_from", len(known)) :]
        known += message.get("settings", [])
        assert all(token["par"] < len(known) for token in message["toks"])
        moves += 1
        entry.set_params(entry.session.params.replace(temperature=1 + moves / 1000))
    assert moves > 2
    assert known == [params.as_dict() for params in entry.settings]
    made = [r.params for r in entry.session.records if r]
    assert list(dict.fromkeys(made)) == list(entry.settings)


def test_a_run_that_was_interrupted_ends_as_stopped_and_the_page_hears_it(engine, entry):
    entry.session.params = WARM.replace(max_new_tokens=300)
    run_id = entry.session.run
    generator = run(entry, run_id)
    first = json.loads(next(generator))
    entry.interrupt()
    *_, last = [json.loads(text) for text in generator]
    assert (last["run"], last["state"], last["finish"]) == (run_id, "idle", "stopped")
    assert len(entry.session.tokens) - first["n"] < 100
    assert entry.session.cache.length == len(entry.session.tokens)


def test_an_old_run_never_starts(engine, entry):
    before = list(entry.session.tokens)
    assert list(run(entry, entry.session.run - 1)) == []
    assert entry.session.tokens == before


def test_a_limit_gives_that_many_tokens_and_the_reply_can_go_on(engine, entry):
    start = len(entry.session.tokens)
    *_, last = messages(engine, entry, limit=1)
    assert (len(entry.session.tokens), last["finish"]) == (start + 1, "stopped")
    entry.session.resume()
    messages(engine, entry, limit=2)
    assert len(entry.session.tokens) == start + 3
    fresh = engine.session(HELLO, WARM, seed=4)
    assert [e.token for e in itertools.islice(engine.stream(fresh), 3)] == entry.session.tokens[start:]


def test_a_page_that_goes_away_ends_the_reply(engine, entry):
    entry.session.params = WARM.replace(max_new_tokens=400)
    generator = run(entry, entry.session.run)
    next(generator)
    generator.close()
    entry.quiet(timeout=5)
    assert len(entry.session.tokens) < 400


def test_a_fast_model_sends_at_most_some_forty_messages_a_second(engine, entry):
    entry.session.params = WARM.replace(max_new_tokens=120)
    start = time.perf_counter()
    received = messages(engine, entry)
    assert len(received) <= 2 + 40 * (time.perf_counter() - start) + 1
    assert len(pushed(received)) > 40


def test_a_long_prompt_gives_signs_of_life_while_it_is_read(engine, entry, monkeypatch):
    monkeypatch.setattr("demo.stream.PULSE", 0.01)
    step = engine.runner.run
    monkeypatch.setattr(engine.runner, "run", lambda feeds: time.sleep(0.1) or step(feeds))
    engine.extend(entry.session, [{"role": "user", "content": "x" * 400}])
    n = len(entry.session.tokens)
    first, *_ = received = messages(engine, entry, limit=2)
    assert (first["state"], first["from"], first["n"], first["toks"]) == ("streaming", n, n, [])
    read = [m["stats"]["rows"] for m in received if not m["toks"] and m["state"] == "streaming"]
    assert 256 in read
    assert [t["i"] for t in pushed(received)] == [n, n + 1]


def test_a_failure_of_the_model_is_told_to_the_page(engine, entry):
    class Failing:
        tokenizer, config = engine.tokenizer, engine.config

        def stream(self, session, run):
            yield next(engine.stream(session, run))
            raise RuntimeError("out of memory")

    entry.running = Running(engine, Failing())
    *_, last = messages(engine, entry)
    assert (last["state"], last["error"]) == ("idle", "out of memory")
    assert not entry.streaming


def test_a_token_of_probability_zero_is_told_without_infinities(engine, entry):
    messages(engine, entry, limit=1)
    record = entry.session.records[-1]
    entry.session.records[-1] = record.__class__(
        **{n: getattr(record, n) for n in record.__slots__} | {"logprob": -math.inf}
    )
    told = token_objects(entry, len(entry.session.tokens) - 1)
    assert json.loads(json.dumps(told, allow_nan=False))[0]["lp"] == -103


def test_a_removed_token_chosen_by_hand_has_a_final_logprob_that_can_travel(engine, entry):
    entry.session.params = WARM.replace(temperature=0, max_new_tokens=2)
    entry.session.fork(len(entry.session.tokens), [70])
    messages(engine, entry)
    told = next(t for t in token_objects(entry, 0) if t.get("u", 0) is None)
    assert (told["id"], told["fl"]) == (70, -103)


def test_the_page_is_told_when_its_session_is_gone(engine, store):
    (text,) = run_requested(store, {"sid": "unknown", "run": 1})
    assert json.loads(text)["code"] == "gone"


@pytest.mark.parametrize("request_", [{"run": "1"}, {"run": None}, {"run": 0, "count": 0}, {"run": 0, "count": "x"}])
def test_a_request_that_makes_no_sense_starts_nothing(engine, store, entry, request_):
    before = len(entry.session.tokens)
    assert list(run_requested(store, {"sid": entry.sid, **request_})) == []
    assert len(entry.session.tokens) == before


def test_sessions_that_stream_at_the_same_time_do_not_mix(engine, store):
    entries = [store.create(str(i)) for i in range(3)]
    for i, entry in enumerate(entries):
        entry.session.params = WARM
        engine.extend(entry.session, [{"role": "user", "content": f"number {i}"}], seed=i)
    threads = [threading.Thread(target=messages, args=(engine, e)) for e in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, entry in enumerate(entries):
        alone = engine.session([{"role": "user", "content": f"number {i}"}], WARM, seed=i)
        list(engine.stream(alone))
        assert alone.tokens == entry.session.tokens


def test_tokens_are_numbered_as_the_engine_numbers_messages(engine, entry):
    messages(engine, entry, limit=3)
    engine.extend(entry.session, [*engine.messages(entry.session), {"role": "user", "content": "more"}])
    messages(engine, entry, limit=3)
    toks = token_objects(entry, 0)
    said = engine.messages(entry.session)
    for number, message in enumerate(said):
        mine = [t for t in toks if t["m"] == number and t["role"] != "template"]
        assert {t["role"] for t in mine} == {message["role"]}
        assert engine.tokenizer.decode([t["id"] for t in mine]) == message["content"]
    assert len(said) == 5
