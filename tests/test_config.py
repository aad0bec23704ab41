"""Configurations are translated exactly or refused by name."""

import pytest

from gpt.config import GPTConfig, UnsupportedModel

LLAMA = dict(model_type="llama", num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32,
             intermediate_size=64, max_position_embeddings=128, vocab_size=100)  # fmt: skip


def test_llama_config_is_translated():
    config = GPTConfig.from_hf({**LLAMA, "rope_theta": 5e5, "rms_norm_eps": 1e-6, "tie_word_embeddings": True})
    assert (config.n_layer, config.n_head, config.n_kv_head, config.head_dim) == (2, 4, 2, 8)
    assert (config.rope_theta, config.norm_eps, config.tied, config.norm) == (5e5, 1e-6, True, "rmsnorm")


def test_gpt2_config_is_translated():
    config = GPTConfig.from_hf(
        {"model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": 9}
    )
    assert (config.d_mlp, config.head_dim, config.position, config.mlp, config.bias) == (
        128,
        8,
        "learned",
        "gelu",
        True,
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "yarn"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        GPTConfig.from_hf({**LLAMA, **changes})


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="hidden_size"):
        GPTConfig.from_hf({k: v for k, v in LLAMA.items() if k != "hidden_size"})


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 0}, {"vocab_size": "many"}, {"rms_norm_eps": float("nan")}])
def test_impossible_numbers_are_refused(changes):
    with pytest.raises(ValueError, match="must be a positive"):
        GPTConfig.from_hf({**LLAMA, **changes})
