"""Steps, streams, finish reasons, and everything that may change while text streams."""

import threading

import pytest
import torch

from gpt.engine import CHUNK, Engine
from gpt.params import SamplingParams
from gpt.sampling import uniform
from gpt.tokenizer import Tokenizer
from tests.conftest import byte_fields, random_model

WARM = SamplingParams(temperature=1.0, max_new_tokens=16)


def tokens(events):
    return [e.token for e in events]


def test_same_seed_and_settings_give_the_same_text(engine):
    runs = [tokens(engine.stream(engine.session("hello", WARM, seed=4))) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] != tokens(engine.stream(engine.session("hello", WARM, seed=5)))


def test_a_change_of_settings_acts_on_the_next_token_and_leaves_every_draw_untouched(engine):
    plain = list(engine.stream(engine.session("hello", WARM, seed=4)))
    session, events = engine.session("hello", WARM, seed=4), []
    for event in engine.stream(session):
        events.append(event)
        if len(events) == 5:
            session.params = WARM.replace(temperature=0)
    assert tokens(events)[:5] == tokens(plain)[:5]
    assert [e.params.temperature for e in events] == [1.0] * 5 + [0.0] * (len(events) - 5)
    assert all(e.rank == 1 for e in events[5:])
    assert [e.u for e in events] == [uniform(4, e.position) for e in events]


def test_a_record_says_what_the_model_said(engine):
    session = engine.session("hello", WARM.replace(top_k=5), seed=1)
    event = next(engine.stream(session))
    with torch.inference_mode():
        given = torch.tensor([session.tokens[: event.position]])
        logits = engine.model(given, torch.arange(event.position))[0, -1]
    probs = logits.softmax(0)
    assert event.logprob == pytest.approx(probs[event.token].log().item(), abs=1e-4)
    assert event.entropy == pytest.approx(-(probs * probs.log()).sum().item(), abs=1e-4)
    assert [c.token for c in event.candidates[:20]] == probs.topk(20).indices.tolist()
    assert [c.removed_by for c in event.candidates[:20]] == [None] * 5 + ["top_k"] * 15
    assert sum(c.final for c in event.candidates) == pytest.approx(1, abs=1e-5)


def test_several_sessions_in_one_step_equal_each_alone(engine):
    texts, params = ["a", "hello there", "x" * 50], [WARM, WARM.replace(temperature=0), WARM.replace(top_k=3)]
    alone = [
        tokens(engine.stream(engine.session(t, p, seed=i))) for i, (t, p) in enumerate(zip(texts, params, strict=True))
    ]
    together = [engine.session(t, p, seed=i) for i, (t, p) in enumerate(zip(texts, params, strict=True))]
    while any(s.finish is None for s in together):
        engine.step([s for s in together if s.finish is None])
    assert [[r.token for r in s.records if r] for s in together] == alone


def test_threads_that_stream_at_once_get_what_each_would_get_alone(engine):
    alone = [tokens(engine.stream(engine.session(f"user {i}", WARM, seed=i))) for i in range(6)]
    results: dict[int, list[int]] = {}

    def one(i: int) -> None:
        results[i] = tokens(engine.stream(engine.session(f"user {i}", WARM, seed=i)))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [results[i] for i in range(6)] == alone


def test_a_long_prompt_is_read_in_chunks_and_the_others_go_on(engine):
    long, short = engine.session("y" * (CHUNK + 20), WARM), engine.session("z", WARM)
    events = engine.step([long, short])
    assert events[0] is None
    assert events[1] is not None
    assert long.cache.length == CHUNK
    assert engine.step([long])[0] is not None


def test_raising_run_ends_the_stream_as_stopped(engine):
    session, events = engine.session("hello", WARM), []
    for event in engine.stream(session):
        events.append(event)
        if len(events) == 3:
            session.interrupt()
    assert len(events) == 3
    assert session.finish == "stopped"


def test_a_stopped_reply_resumes_where_it_was(engine):
    whole = tokens(engine.stream(engine.session("hello", WARM, seed=2)))
    session = engine.session("hello", WARM, seed=2)
    stream = engine.stream(session)
    first = [next(stream) for _ in range(4)]
    session.interrupt()
    assert list(stream) == []
    session.resume()
    list(engine.stream(session))
    assert [r.token for r in session.records if r][: len(whole)] == whole
    assert len(session.tokens) - first[-1].position - 1 <= 16


def test_length_ends_a_reply(engine):
    events = list(engine.stream(engine.session("hello", WARM.replace(max_new_tokens=3))))
    assert [e.finish for e in events] == [None, None, "length"]


def test_an_end_token_ends_a_reply_without_text(engine, chat):
    events = list(engine.stream(engine.session("hello", WARM)))
    fields = byte_fields() | {"tokenizer.ggml.eos_token_id": events[2].token}  # what it says third now ends a reply
    ends = Engine(engine.model, Tokenizer.from_gguf(fields), chat, "ends")
    again = list(ends.stream(ends.session("hello", WARM)))
    last = next(i for i, e in enumerate(events) if e.token == events[2].token)
    assert tokens(again) == tokens(events[: last + 1])
    assert (again[-1].finish, again[-1].text) == ("end", "")


def test_a_full_context_ends_a_reply(tokenizer, chat):
    engine = Engine(random_model(block_size=40), tokenizer, chat, "short")
    session = engine.session("hello", SamplingParams(temperature=1.0, max_new_tokens=1000))
    events = list(engine.stream(session))
    assert session.finish == events[-1].finish == "context"
    assert len(session.tokens) == 40


def test_a_stop_string_ends_the_reply_and_is_never_shown(engine):
    text = "".join(e.text for e in engine.stream(engine.session("hello", WARM.replace(max_new_tokens=40), seed=3)))
    stop = text[6:9]
    session = engine.session("hello", WARM.replace(max_new_tokens=40, stop=(stop,)), seed=3)
    shown = "".join(e.text for e in engine.stream(session))
    assert session.finish == "stop"
    assert shown == text[: text.index(stop)]


def test_text_held_back_for_a_stop_string_that_did_not_come_is_shown(engine):
    params = WARM.replace(max_new_tokens=12)
    text = "".join(e.text for e in engine.stream(engine.session("hello", params, seed=3)))
    held = params.replace(stop=(text[-1] + "never",))
    assert "".join(e.text for e in engine.stream(engine.session("hello", held, seed=3))) == text


def test_nothing_to_continue_is_an_error(engine):
    with pytest.raises(ValueError, match="send a message first"):
        list(engine.stream(engine.session()))


def test_an_error_in_a_shared_step_reaches_its_caller_and_the_engine_lives_on(engine, monkeypatch):
    session = engine.session("hello", WARM)
    monkeypatch.setattr(engine.runner, "run", lambda feeds: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        next(engine.stream(session))
    monkeypatch.undo()
    assert next(engine.stream(session)).position == len(session.tokens) - 1


def test_a_conversation_too_long_loses_its_oldest_messages_but_not_the_system_prompt(tokenizer, chat):
    engine = Engine(random_model(block_size=200), tokenizer, chat, "short")
    history = [{"role": "system", "content": "sys"}]
    for i in range(6):
        history += [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": f"answer {i}"}]
    session = engine.session(params=SamplingParams(max_new_tokens=40))
    cut = engine.extend(session, [*history, {"role": "user", "content": "last"}])
    kept = engine.messages(session)
    assert cut.messages > 0
    assert cut.messages % 2 == 0
    assert kept[0]["content"] == "sys"
    assert kept[-1]["content"] == "last"
    assert len(kept) == 14 - cut.messages
    assert len(session.tokens) <= 160


def test_a_message_longer_than_the_context_keeps_its_end(tokenizer, chat):
    engine = Engine(random_model(block_size=120), tokenizer, chat, "short")
    session = engine.session(params=SamplingParams(max_new_tokens=20))
    cut = engine.extend(session, [{"role": "user", "content": "a" * 300 + "the end"}])
    assert cut.tokens > 180
    assert engine.messages(session)[-1]["content"].endswith("aathe end")
    assert len(session.tokens) <= 100


def test_feed_reads_all_without_choosing(engine):
    session = engine.session("hello", WARM)
    before = list(session.tokens)
    engine.feed(session)
    assert session.tokens == before
    assert session.cache.length == len(before)
    assert tokens(engine.stream(session)) == tokens(engine.stream(engine.session("hello", WARM)))


def test_raw_text_is_continued_without_a_template(engine):
    session = engine.session("Once upon", WARM, raw=True)
    assert engine.tokenizer.decode(session.tokens) == "Once upon"


def test_messages_come_back_as_they_went_in(engine):
    given = [{"role": "system", "content": "s"}, {"role": "user", "content": "你好 <|im_end|>"}]
    session = engine.session(given)
    assert engine.messages(session) == given
    assert session.tokens.count(1) == 2  # the template's own ends; the one typed by the user is text


def test_a_bound_for_queries_is_that_of_every_session_made_and_changes_no_text(engine, monkeypatch):
    text = "x" * 330
    free = engine.session(text, WARM, seed=4)
    assert free.cache.window is None
    monkeypatch.setattr(engine, "query_bytes", 0)
    bounded = engine.session(text, WARM, seed=4)
    assert bounded.cache.window == 256
    assert tokens(engine.stream(bounded)) == tokens(engine.stream(free))
    assert bounded.cache.first_query > 0
    assert free.cache.first_query == 0


def test_the_gram_of_a_layer_is_the_product_of_each_heads_output_matrix_made_once(engine):
    gram = engine.gram(1)
    assert engine.gram(1) is gram
    weight = engine.model.blocks[1].attn.out.weight  # (C, H D)
    for head in range(4):
        w = weight[:, head * 8 : head * 8 + 8]
        torch.testing.assert_close(gram[head], w.T @ w)
    assert gram.shape == (4, 8, 8)
    assert not torch.equal(engine.gram(0), gram)
