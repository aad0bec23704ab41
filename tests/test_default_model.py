"""The real default model, from the same GGUF file: float32 against the reference implementation, int4 against float32.

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


# ---- int4 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def int4_engine():
    return load(device="cpu", dtype="int4")


@pytest.fixture(scope="module")
def prose(default_engine) -> str:
    """300 tokens of English: the README without its commands."""
    text = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    return default_engine.tokenizer.decode(default_engine.tokenizer.encode(text)[:300])


def read(engine, prose: str, piece: int):
    """A session that read the prose in pieces of so many tokens; the logprobs after each, (S, V)."""
    session = engine.session(prose, raw=True)
    while session.cache.length < len(session.tokens):
        engine.read(session, session.cache.length + piece)
    with torch.inference_mode():
        return session, engine.model.unembed(session.cache.hidden()).log_softmax(-1)


@pytest.fixture(scope="module")
def whole(int4_engine, prose):
    return read(int4_engine, prose, 256)


def divergence(p: torch.Tensor, q: torch.Tensor) -> tuple[float, float, float]:
    """KL(p || q) in nats, mean and largest of all positions, and how often the likeliest token is the same."""
    kl = (p.exp() * (p - q)).sum(-1)
    return kl.mean().item(), kl.max().item(), (p.argmax(-1) == q.argmax(-1)).float().mean().item()


def test_int4_keeps_the_weights_small_and_the_cache_in_float32(int4_engine):
    assert int4_engine.precision == "int4"
    assert int4_engine.model.nbytes() < 150e6
    session = int4_engine.session(HAMLET)
    int4_engine.feed(session)
    assert session.cache.keys().dtype == session.cache.queries().dtype == torch.float32


def test_int4_predicts_english_as_float32_does(default_engine, whole, prose):
    (exact, expected), (session, ours) = read(default_engine, prose, 256), whole
    assert session.tokens == exact.tokens
    assert len(session.tokens) > 250
    mean, largest, agreement = divergence(expected, ours)
    assert mean < 0.003
    assert largest < 0.03
    assert agreement >= 0.95
    for layer in range(30):
        torch.testing.assert_close(attention_pattern(session, layer), attention_pattern(exact, layer), atol=0.1, rtol=0)


def test_int4_answers_with_the_tokens_of_float32(int4_engine, answered):
    session = int4_engine.session(HAMLET, SamplingParams(temperature=0, max_new_tokens=30))
    assert "Shakespeare" in "".join(event.text for event in int4_engine.stream(session))
    ours, expected = (s.tokens[s.reply_start :][:30] for s in (session, answered[0]))
    assert sum(a == b for a, b in zip(ours, expected, strict=True)) >= 25


@pytest.mark.parametrize("piece", [1, 100])
def test_int4_reads_in_pieces_no_worse_than_it_rounds(int4_engine, prose, whole, piece):
    """Attention's last bit tips roundings to bfloat16, and thirty layers spread them as far as int4 itself errs."""
    (session, once), (pieces, apart) = whole, read(int4_engine, prose, piece)
    mean, largest, agreement = divergence(once, apart)
    assert mean < 0.003
    assert largest < 0.03
    assert agreement >= 0.95
    for layer in range(30):
        torch.testing.assert_close(
            attention_pattern(pieces, layer), attention_pattern(session, layer), atol=0.1, rtol=0
        )


def test_int4_reads_alike_bit_for_bit_when_it_reads_in_the_same_pieces(int4_engine, prose, whole):
    first, second = whole, read(int4_engine, prose, 256)
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0].cache.keys(), second[0].cache.keys())
