"""The real default model against the reference implementation, which reads the same GGUF file (slow: 30 seconds)."""

import pytest
import torch

from gpt import load
from gpt.catalog import resolve
from gpt.interp import attention_pattern
from gpt.params import SamplingParams

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def default_engine():
    return load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reference():
    from transformers import AutoModelForCausalLM

    path = resolve("smollm2-135m-instruct")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.fixture(scope="module")
def answered(default_engine):
    given = [{"role": "user", "content": "Who wrote Hamlet?"}]
    session = default_engine.session(given, SamplingParams(temperature=0, max_new_tokens=40))
    text = "".join(event.text for event in default_engine.stream(session))
    default_engine.feed(session)
    return session, text


def test_the_default_model_answers_in_english(answered):
    assert "Shakespeare" in answered[1]


def test_forty_greedy_tokens_equal_the_reference(answered, reference):
    session, _ = answered
    prompt = torch.tensor([session.tokens[: session.reply_start]])
    theirs = reference.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40, do_sample=False)[0]
    assert len(session.tokens) - session.reply_start == 40
    assert session.tokens == theirs.tolist()


def test_every_pattern_and_the_logits_equal_the_reference(answered, reference):
    session, _ = answered
    with torch.inference_mode():
        out = reference(torch.tensor([session.tokens]), output_attentions=True)
    for layer, theirs in enumerate(out.attentions):
        torch.testing.assert_close(attention_pattern(session, layer), theirs[0], atol=1e-4, rtol=0)
    records = session.records[session.reply_start :]
    logprobs = out.logits[0].log_softmax(-1)
    for record in records:
        assert record.logprob == pytest.approx(logprobs[record.position - 1, record.token].item(), abs=1e-3)
