"""Frequencies are transformers' own, to the bit, for the scalings of published models."""

import pytest
import torch

from gpt.hf_config import config_from_hf
from gpt.model import Rotary
from gpt.rope import frequencies

SHAPE = dict(hidden_size=256, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
SHORT = [1.0 + i / 40 for i in range(64)]

PUBLISHED = {
    "Llama 2": dict(max_position_embeddings=4096),
    "Llama 3": dict(rope_theta=500_000.0),
    "Llama 3.1": dict(rope_theta=500_000.0, max_position_embeddings=131_072, rope_scaling={**LLAMA3, "factor": 8.0}),
    "Llama 3.2": dict(rope_theta=500_000.0, max_position_embeddings=131_072, rope_scaling={**LLAMA3, "factor": 32.0}),
    "a linear one": dict(max_position_embeddings=16_384, rope_scaling=dict(type="linear", factor=4.0)),
    "a dynamic one": dict(max_position_embeddings=4096, rope_scaling=dict(type="dynamic", factor=3.0)),
    "Qwen with YaRN": dict(
        rope_theta=1_000_000.0, max_position_embeddings=131_072,
        rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=32_768),
    ),
    "YaRN with scales": dict(
        max_position_embeddings=163_840,
        rope_scaling=dict(type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=0.707,
                          mscale_all_dim=1.0, beta_fast=32, beta_slow=1),
    ),
    "LongRoPE": dict(
        max_position_embeddings=131_072,
        rope_scaling=dict(rope_type="longrope", short_factor=SHORT, long_factor=[2 * f for f in SHORT],
                          original_max_position_embeddings=4096),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_frequencies_and_amplitudes_are_those_of_transformers(name):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    given = {**SHAPE, "max_position_embeddings": 8192, **PUBLISHED[name]}
    ours = config_from_hf({"model_type": "llama", **given})
    theirs = LlamaRotaryEmbedding(LlamaConfig(**given))
    assert torch.equal(frequencies(ours.rope, ours.head_dim), theirs.inv_freq)
    positions = torch.tensor([0, 1, 4000, ours.block_size - 1])
    cos, sin = Rotary(ours.rope, ours.head_dim).angles(positions)
    for angle, expected in zip((cos, sin), theirs(torch.zeros(1), positions[None]), strict=True):
        assert torch.equal(angle[0], expected[0])
