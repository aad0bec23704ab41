"""The real default model against the reference implementation of the same GGUF file, and quantised against float32.

Slow: 45 seconds.
"""

import re
from pathlib import Path

import pytest
import torch

from gpt import load
from gpt.catalog import resolve
from gpt.interp import attention_pattern
from gpt.params import SamplingParams

pytestmark = pytest.mark.slow
README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
HAMLET = [{"role": "user", "content": "Who wrote Hamlet?"}]


@pytest.fixture(scope="module", params=["stored", "float32"])
def default_engine(request):
    return load(device="cpu", dtype=request.param)


@pytest.fixture(scope="module")
def reference():
    from transformers import AutoModelForCausalLM

    path = resolve("smollm2-135m-instruct")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.fixture(scope="module")
def answered(default_engine):
    session = default_engine.session(HAMLET, SamplingParams(temperature=0, max_new_tokens=40))
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


# ---- quantised -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantised():
    return load(device="cpu", dtype="stored")


@pytest.fixture(scope="module")
def prose(quantised) -> str:
    """300 tokens of English: the README without its commands."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    return quantised.tokenizer.decode(quantised.tokenizer.encode(text)[:300])


def read(engine, prose: str, piece: int):
    """A session that read the prose in pieces of so many tokens; the logprobs after each, (S, V)."""
    session = engine.session(prose, raw=True)
    while session.cache.length < len(session.tokens):
        engine.read(session, session.cache.length + piece)
    with torch.inference_mode():
        return session, engine.model.unembed(session.cache.hidden()).log_softmax(-1)


@pytest.fixture(scope="module")
def whole(quantised, prose):
    return read(quantised, prose, 256)


def assert_same(one, other) -> None:
    """Of two readings: the distributions after each token, and every pattern of attention."""
    (session, p), (again, q) = one, other
    assert session.tokens == again.tokens
    assert len(session.tokens) > 250
    assert torch.all((p.exp() * (p - q)).sum(-1).abs() < 1e-6)  # KL(p || q) in nats
    assert torch.all(p.argmax(-1) == q.argmax(-1))
    for layer in range(30):
        torch.testing.assert_close(
            attention_pattern(again, layer), attention_pattern(session, layer), atol=1e-4, rtol=0
        )


def test_a_processor_keeps_the_weights_small_and_the_cache_in_float32(quantised):
    assert load(device="cpu").precision == quantised.precision == "int4"
    assert quantised.model.nbytes() < 115e6
    session = quantised.session(HAMLET)
    quantised.feed(session)
    assert session.cache.keys().dtype == session.cache.queries().dtype == torch.float32


def test_quantised_is_float32_in_all_that_is_shown(whole, prose):
    assert_same(read(load(device="cpu", dtype="float32"), prose, 256), whole)


@pytest.mark.parametrize("piece", [1, 100])
def test_quantised_reads_alike_in_pieces(quantised, prose, whole, piece):
    assert_same(whole, read(quantised, prose, piece))


def test_quantised_reads_alike_bit_for_bit_when_it_reads_in_the_same_pieces(quantised, prose, whole):
    first, second = whole, read(quantised, prose, 256)
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0].cache.keys(), second[0].cache.keys())
