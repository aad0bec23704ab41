"""What config.json may say: every value that no model can have is one sentence that names it."""

import json
import math

import pytest

from gpt.checkpoint import CheckpointError, open_checkpoint
from gpt.folder import shape_of

LLAMA = dict(
    model_type="llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=96, max_position_embeddings=64,
)  # fmt: skip
GPT2 = dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=96)


def test_a_whole_config_gives_a_shape():
    assert shape_of(LLAMA).head_dim == 8
    assert shape_of(GPT2).n_kv_head == 4


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, "32", 2.0, 1.5, True, [32], {}])
@pytest.mark.parametrize(
    ("config", "key"), [*((LLAMA, key) for key in LLAMA if key != "model_type"), (GPT2, "n_embd"), (GPT2, "n_head")]
)
def test_a_size_that_is_no_positive_whole_number_is_named(config, key, value):
    with pytest.raises(CheckpointError, match=rf"^cannot be used: {key} must be a positive whole number, its config"):
        shape_of({**config, key: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, -1e-5, "1e-5", [1]])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_a_number_that_cannot_be_is_named(key, value):
    with pytest.raises(CheckpointError, match=rf"{key}|norm_eps"):
        shape_of({**LLAMA, key: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_key_value_heads": 3}, "multiple of"),
        ({"num_attention_heads": None}, "lacks 'num_attention_heads'"),
        ({"model_type": "novel"}, "'novel' is not supported; supported are"),
        ({"model_type": None}, "None is not supported"),
        ({"model_type": "novel", "auto_map": {"AutoModel": "a.B"}}, r"code of its own \(auto_map\) is never run"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised with gptq, which cannot be read"),
        ({"quantization_config": {}, "hidden_act": "relu"}, "hidden_act = 'relu' is not supported"),
    ],
)
def test_what_does_not_make_a_model_is_explained(change, said):
    with pytest.raises(CheckpointError, match=said):
        shape_of({**LLAMA, **change})


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", 5, None, ["a"]])
def test_an_index_names_files_of_its_own_folder_only(tmp_path, shard):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match=r"index.json without weight_map; fetch it again"):
        open_checkpoint(tmp_path)
