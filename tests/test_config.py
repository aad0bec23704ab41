"""Configurations are translated exactly or refused by name."""

import pytest

from gpt.config import Rope, UnsupportedModel
from gpt.hf_config import config_from_hf

LLAMA = dict(model_type="llama", num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32,
             intermediate_size=64, max_position_embeddings=128, vocab_size=100)  # fmt: skip


def test_llama_config_is_translated():
    config = config_from_hf({**LLAMA, "rope_theta": 5e5, "rms_norm_eps": 1e-6, "tie_word_embeddings": True})
    assert (config.n_layer, config.n_head, config.n_kv_head, config.head_dim) == (2, 4, 2, 8)
    assert (config.rope, config.norm_eps, config.tied, config.norm) == (Rope(5e5), 1e-6, True, "rmsnorm")


def test_gpt2_config_is_translated():
    config = config_from_hf(
        {"model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "vocab_size": 9}
    )
    assert (config.d_mlp, config.head_dim, config.position, config.mlp) == (128, 8, "learned", "gelu_tanh")
    assert (config.qkv_bias, config.out_bias, config.mlp_bias) == (True, True, True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, r"'mamba' is not supported; supported are gemma2, .* the text part of gemma3"),
        *(({"model_type": name}, name) for name in ("mixtral", "qwen3_moe", "falcon", "bloom", "gemma", "gpt_oss")),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "mrope", "factor": 4}}, "mrope"),
        ({"partial_rotary_factor": 0.5}, "a part of the head"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\); use full precision, or a GGUF"),
        ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, "layer_types"),
        ({"model_type": "qwen2", "layer_types": ["linear_attention"] * 2}, "linear_attention"),
        ({"model_type": "gpt_neox", "hidden_act": "relu"}, "hidden_act"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "yarn", "factor": 4}}, "yarn"),
        ({"model_type": "gemma3", "text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping"),
        ({"model_type": "gpt2", "n_layer": 1, "scale_attn_weights": False}, "scale_attn_weights"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        config_from_hf({**LLAMA, **changes})


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, 128),
        ({"rope_scaling": {**LONGROPE, "original_max_position_embeddings": 32}}, 32),
        ({"rope_scaling": {**LONGROPE, "long_factor": [1.0] * 4, "original_max_position_embeddings": 32}}, 128),
        (
            {"model_type": "phi3", "rope_scaling": {**LONGROPE, "type": "su"}, "original_max_position_embeddings": 64},
            64,
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}, 128),
    ],
)
def test_rotary_positions_that_depend_on_the_length_of_a_text_run_where_they_do_not(changes, context):
    assert config_from_hf({**LLAMA, **changes}).block_size == context


def test_both_styles_of_describing_rotary_positions_are_read_alike():
    scaling = {"rope_type": "linear", "factor": 2.0}
    new = config_from_hf({**LLAMA, "rope_parameters": {**scaling, "rope_theta": 5e5}})
    assert new == config_from_hf({**LLAMA, "rope_theta": 5e5, "rope_scaling": scaling})


def test_what_published_files_leave_out_is_what_transformers_fills_in():
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "model_type": "gemma3_text"}  # fmt: skip
    config = config_from_hf({"model_type": "gemma3", "text_config": text})
    assert (config.n_head, config.n_kv_head, config.head_dim, config.vocab_size) == (8, 4, 256, 262_208)
    assert (config.rope.theta, config.rope.factor, config.local_rope.theta) == (1e6, 8.0, 1e4)
    assert config.windows[:7] == (1024, 1024, 1024, 1024, 1024, 0, 1024)
    assert config.embed_scale == 2560**0.5
    assert config_from_hf({**LLAMA, "model_type": "mistral"}).windows == (4096, 4096)
    assert config_from_hf({**LLAMA, "model_type": "mistral", "sliding_window": None}).windows == ()


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="hidden_size"):
        config_from_hf({k: v for k, v in LLAMA.items() if k != "hidden_size"})


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 0}, {"vocab_size": "many"}, {"rms_norm_eps": float("nan")}])
def test_impossible_numbers_are_refused(changes):
    with pytest.raises(ValueError, match="must be a positive"):
        config_from_hf({**LLAMA, **changes})
