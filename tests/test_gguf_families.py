"""A GGUF file of every family that GGUF knows gives what the model that it was written from computes."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from gguf import GGMLQuantizationType as Quant

from gpt.checkpoint import open_checkpoint
from gpt.gguf_config import ARCHITECTURES, config_from_gguf
from gpt.native import kernels
from gpt.quant import is_packed
from tests import gguf_files
from tests.families import LENGTH, TOKENS, VOCAB, answers, made
from tests.test_families import assert_equal, patterns_of, read

FILES = {
    "gpt2": {},
    "gpt2, untied": {},
    "gpt_neox": {},
    "gpt_neox, one after the other": {},
    "llama": {},
    "llama, biases, tied": {},
    "llama, llama3": {},
    "llama, linear": {},
    "llama, yarn": {},
    "smollm3": dict(num_hidden_layers=4, no_rope_layers=None),
    "mistral, no window, wide heads": {},
    "qwen2": {},
    "qwen3": dict(attention_bias=False),
    "olmo2": dict(attention_bias=False),
    "gemma2": dict(query_pre_attn_scalar=12),
    "gemma3_text": dict(query_pre_attn_scalar=12, num_hidden_layers=6, layer_types=None, rope_local_base_freq=10_000.0),
    "phi3": {},
    "phi3, longrope": dict(original_max_position_embeddings=400, max_position_embeddings=1000),
    "phi3, a part of the head": {},
}
"""Variant of tests.families -> what GGUF cannot say of it, set to what llama.cpp takes for granted."""


def written(variant, folder, kind=Quant.F32, **changes):
    reference = made(variant, **FILES[variant], **changes)
    return reference, open_checkpoint(gguf_files.write(folder / "tiny.gguf", reference, kind))


@pytest.mark.parametrize("variant", FILES)
def test_a_gguf_file_gives_the_logits_and_patterns_of_the_model_it_was_made_of(tmp_path, variant):
    reference, checkpoint = written(variant, tmp_path)
    model = checkpoint.model()
    logits, patterns = answers(reference)
    with torch.inference_mode():
        assert_equal(model(TOKENS[None], torch.arange(LENGTH))[0], logits)
    torch.testing.assert_close(patterns_of(read(model, (9, 13))[0]), patterns, atol=1e-5, rtol=0)


@pytest.mark.skipif(kernels() is None, reason="needs a C compiler")
@pytest.mark.parametrize("variant", FILES)
def test_a_model_left_in_its_codes_computes_the_same(tmp_path, variant):
    """Of widths that are whole groups: 64, and heads of 16."""
    gpt2 = dict(n_embd=64, n_inner=128) if variant.startswith("gpt2") else {}
    wide = gpt2 or dict(hidden_size=64, intermediate_size=128)
    wide |= dict(head_dim=16) if not variant.startswith(("gpt", "olmo", "phi", "qwen2", "smollm")) else {}
    wide |= dict(query_pre_attn_scalar=16) if variant.startswith("gemma") else {}
    changes = {key: value for key, value in FILES[variant].items() if key not in wide}
    if variant == "phi3, longrope":
        wide["rope_scaling"] = dict(rope_type="longrope", short_factor=[1.5] * 8, long_factor=[4.0] * 8)
    reference = made(variant, **{**changes, **wide}, initializer_range=0.15)
    model = open_checkpoint(gguf_files.write(tmp_path / "tiny.gguf", reference, Quant.Q8_0)).model(stored=True)
    logits, patterns = answers(reference)
    assert is_packed(model)
    with torch.inference_mode():
        assert_equal(model(TOKENS[None], torch.arange(LENGTH))[0], logits)
    torch.testing.assert_close(patterns_of(read(model, (9, 13))[0]), patterns, atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs llama.cpp")
def test_llama_cpp_computes_the_same_from_these_files(tmp_path):
    """So that files made here are what its converter makes: 0.05 is what its 16-bit keys and values cost at most."""
    variants = [variant for variant in FILES if variant not in UNLIKE]
    files, expected = [str(tmp_path / f"{i}.gguf") for i in range(len(variants))], []
    for path, variant in zip(files, variants, strict=True):
        reference = made(variant, **FILES[variant])
        gguf_files.write(path, reference)
        expected.append(answers(reference)[0][-1].log_softmax(-1))
    command = [sys.executable, "-m", "tests.llamacpp_logits", ",".join(map(str, (VOCAB, *TOKENS.tolist()))), *files]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1])
    for variant, logprobs, wanted in zip(variants, told, expected, strict=True):
        likely = wanted > -15
        assert wanted[likely].std() > 1
        assert (torch.tensor(logprobs) - wanted)[likely].abs().max() < 0.05, variant


UNLIKE = {
    "gpt_neox, one after the other": "llama.cpp has none without biases",
    "phi3": "llama.cpp leaves its window out",
}


def test_every_architecture_of_the_table_has_a_file_here():
    assert {variant.partition(",")[0].replace("mistral", "llama") for variant in FILES} == set(ARCHITECTURES.values())


FIELDS = {
    "general.architecture": "olmo2", "olmo2.block_count": 2, "olmo2.attention.head_count": 2,
    "olmo2.embedding_length": 8, "olmo2.feed_forward_length": 8, "olmo2.context_length": 32, "olmo2.vocab_size": 9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"general.architecture": "mamba"}, "'mamba' is not supported"),
        ({"olmo2.expert_count": 8}, "mixtures of experts"),
        ({"olmo2.attention.scale": 0.1}, "another scale"),
        ({"olmo2.attention.max_alibi_bias": 8.0}, "linear biases"),
        ({"olmo2.attention.sliding_window": 64}, "sliding windows .* olmo2"),
        ({"olmo2.attention.value_length": 3}, "another width"),
        ({"olmo2.rope.dimension_count": 2}, "a part of the head"),
        ({"olmo2.rope.scaling.type": "longrope"}, "'longrope'"),
        ({"olmo2.rope.scaling.type": "yarn", "olmo2.rope.scaling.yarn_beta_fast": 8.0}, "'yarn'"),
    ],
)
def test_metadata_that_cannot_be_expressed_is_refused_by_name(changes, named):
    assert config_from_gguf(FIELDS, ()).norm_place == "after"
    with pytest.raises(ValueError, match=named):
        config_from_gguf({**FIELDS, **changes}, ())
