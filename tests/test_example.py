"""The conversation that the page opens with is the model's own, and stands aside for a person's first message."""

from itertools import islice

import pytest
import torch

from demo.example import Example, record
from gpt import load
from gpt.interp import attention_pattern
from gpt.params import SamplingParams


def test_another_model_has_no_recorded_conversation(engine):
    assert not Example().known(engine)


def test_what_was_recorded_comes_back_as_it_was(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("demo.example.MESSAGES", ("hi", "why"))
    path = tmp_path / "example.json"
    text = record(engine, path)
    example = Example(path)
    session = example.open(engine, SamplingParams(top_k=3))
    assert example.known(engine)
    assert session.params == SamplingParams(top_k=3)
    assert engine.tokenizer.decode(session.tokens) == text
    assert session.cache.length == 0
    assert [m["role"] for m in engine.messages(session)] == ["user", "assistant"] * 2
    assert all(event.position == i for i, event in enumerate(session.records) if event)
    assert {event.params.temperature for event in session.records if event} == {0.8, 1.2, 0.6}


def test_a_recorded_conversation_can_be_forked_and_goes_on(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("demo.example.MESSAGES", ("hi", "why"))
    record(engine, tmp_path / "example.json")
    session = Example(tmp_path / "example.json").open(engine, SamplingParams())
    event = session.records[-2]
    session.fork(event.position, [event.candidates[5].token])
    first, second = islice(engine.stream(session), 2)
    assert (first.token, first.u) == (event.candidates[5].token, None)
    assert second.position == event.position + 1


@pytest.mark.slow
def test_every_recorded_number_is_the_default_models():
    engine = load(device="cpu", dtype="float32")
    example = Example()
    session = example.open(engine, SamplingParams())
    with torch.inference_mode():
        logits = engine.model(torch.tensor([session.tokens]), torch.arange(len(session.tokens)))[0]
    logprobs = logits.log_softmax(-1)
    events = [event for event in session.records if event]
    assert len(events) > 100
    for event in events:
        row = logprobs[event.position - 1]
        assert event.logprob == pytest.approx(row[event.token].item(), abs=1e-2)
        assert event.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-2)
        assert [c.raw for c in event.candidates] == pytest.approx(
            [row[c.token].exp().item() for c in event.candidates], abs=1e-3
        )


@pytest.mark.slow
def test_the_head_it_opens_with_finds_the_foxes():
    engine = load(device="cpu", dtype="float32")
    example = Example()
    session, chosen = example.open(engine, SamplingParams()), example.selection(engine)
    engine.feed(session)
    row = attention_pattern(session, chosen["layer"], chosen["head"], [chosen["position"]])[0, 0]
    fox = session.tokens[chosen["position"]]
    foxes = sum(row[i].item() for i in range(chosen["position"]) if session.tokens[i] == fox)
    assert foxes > 0.5
