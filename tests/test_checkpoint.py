"""Loading is checked against transformers on tiny random models, as folders and as GGUF files made here."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gpt.catalog import DEFAULT, resolve
from gpt.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from gpt.weights import GGUFFile

torch.set_num_threads(1)
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 92, 65, 35, 8, 9, 79, 3]])
N_HEAD, N_KV_HEAD, HEAD_DIM = 4, 2, 16


def make_llama(tied: bool = False, **changes: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = dict(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=N_HEAD,
        num_key_value_heads=N_KV_HEAD,
        vocab_size=96,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(LlamaConfig(**shape | changes)).eval()


def make_gpt2(**changes: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": N_HEAD, "vocab_size": 96, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**shape | changes, initializer_range=0.2)).eval()
    for parameter in model.parameters():  # biases and norms start as 0 and 1, where errors hide
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


MODELS = {"llama": make_llama, "llama-tied": lambda: make_llama(tied=True), "gpt2": make_gpt2}


@pytest.fixture(params=MODELS)
def reference(request):
    return MODELS[request.param]()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small llama as a folder, for tests that break it."""
    make_llama().save_pretrained(tmp_path)
    return tmp_path


def logits(checkpoint: Checkpoint, **options) -> torch.Tensor:
    model = checkpoint.model(**options)
    with torch.inference_mode():
        return model(TOKENS, torch.arange(TOKENS.shape[1]))


def assert_same_logits(checkpoint: Checkpoint, reference: torch.nn.Module) -> None:
    with torch.inference_mode():
        expected = reference(TOKENS).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(logits(checkpoint), expected, atol=1e-4, rtol=0)


# ---- folders in Hugging Face layout


def test_a_folder_gives_the_logits_of_transformers(reference, tmp_path):
    reference.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.fields is None
    assert checkpoint.name == tmp_path.name
    assert_same_logits(checkpoint, reference)


def test_a_sharded_folder_gives_the_same_logits(reference, tmp_path):
    reference.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_logits(open_checkpoint(tmp_path), reference)


def test_half_precision_weights_can_be_read_and_asked_for(tmp_path):
    make_llama().bfloat16().save_pretrained(tmp_path)
    assert_same_logits(open_checkpoint(tmp_path), LlamaForCausalLM.from_pretrained(tmp_path, dtype="float32"))
    model = open_checkpoint(tmp_path).model(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_model_is_ready_for_inference_and_a_tied_head_is_one_matrix(tmp_path):
    make_llama(tied=True).save_pretrained(tmp_path)
    model = open_checkpoint(tmp_path).model()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.lm_head.weight is model.wte.weight


def test_old_files_without_prefix_and_with_mask_buffers_are_understood(tmp_path):
    reference = make_gpt2()
    reference.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    tensors["h.1.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, path)
    assert_same_logits(open_checkpoint(tmp_path), reference)


def test_a_second_copy_of_a_tied_matrix_must_be_equal(tmp_path):
    reference = make_llama(tied=True)
    reference.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path)
    assert_same_logits(open_checkpoint(tmp_path), reference)
    tensors["lm_head.weight"][5, 5] += 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"tie_word_embeddings.*lm_head.weight"):
        open_checkpoint(tmp_path).model()


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Rewrite model.safetensors with tensors replaced, or left out where None is given. "__" means a dot."""
    path = folder / "model.safetensors"
    content = load_file(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path)


def test_a_missing_tensor_is_named(folder):
    change(folder, model__layers__1__self_attn__k_proj__weight=None)
    with pytest.raises(CheckpointError, match=r"lacks layers.1.self_attn.k_proj.weight; .*fetch it again"):
        open_checkpoint(folder).model()


def test_a_left_over_tensor_is_named(folder):
    change(folder, model__layers__0__self_attn__q_norm__weight=torch.ones(16))
    with pytest.raises(CheckpointError, match=r"holds layers.0.self_attn.q_norm.weight"):
        open_checkpoint(folder).model()


def test_a_misshapen_tensor_is_named_with_both_shapes(folder):
    change(folder, model__norm__weight=torch.ones(63))
    with pytest.raises(CheckpointError, match=r"has norm.weight of shape \(63,\), .* asks for \(64,\)"):
        open_checkpoint(folder).model()


def test_quantised_safetensors_are_refused_by_kind(folder):
    change(folder, model__norm__weight=torch.ones(64, dtype=torch.int8))
    with pytest.raises(CheckpointError, match=r"stores norm.weight as I8; use full precision or a GGUF"):
        open_checkpoint(folder)


def test_a_truncated_safetensors_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"has a broken model.safetensors .*fetch it again"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path):
    make_llama().save_pretrained(tmp_path, max_shard_size="100KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}, which its index names"):
        open_checkpoint(tmp_path)


def test_an_index_without_a_map_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')
    with pytest.raises(CheckpointError, match=r"has a model.safetensors.index.json without weight_map"):
        open_checkpoint(folder)


def test_pickled_weights_are_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no model.safetensors; pickles are never loaded"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no config.json; give a whole checkpoint folder or a .gguf file"),
        ("{", "config.json that is not JSON"),
        ("[]", "not a JSON object"),
        (
            '{"model_type": "mamba"}',
            "architecture 'mamba' is not supported; supported are gemma2, gemma3_text, gpt2, gpt_neox, llama",
        ),
        ('{"model_type": "llama"}', "lacks 'num_hidden_layers'"),
        ('{"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 0}', "cannot be used"),
    ],
)
def test_a_config_that_cannot_be_used_is_explained(folder, text, message):
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


# ---- GGUF


def interleaved(weight: np.ndarray, n_head: int) -> np.ndarray:
    """The order in which llama.cpp's converter writes the rows of q and k."""
    halves = weight.reshape(n_head, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


LLAMA_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GPT2_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def gguf_name(name: str, names: dict[str, str]) -> str:
    """model.layers.1.mlp.up_proj.weight -> blk.1.ffn_up.weight"""
    parts = name.removeprefix("model.").removeprefix("transformer.").split(".")
    block = f"blk.{parts[1]}." if parts[0] in ("layers", "h") else ""
    module = ".".join(parts[2:-1] if block else parts[:-1])
    return f"{block}{names[module]}.{parts[-1]}"


def write_gguf(
    path: Path, reference: torch.nn.Module, kind: Quant = Quant.F32, omit=(), kinds=None, tokenizer=None, **extra
) -> Path:
    """Write `reference` as GGUF in one quantisation, and set its weights to what that can express.

    `kinds` names tensors that are stored otherwise; `tokenizer` is metadata in the place of nameless tokens.
    """
    writer = gguf.GGUFWriter(path, reference.config.model_type)
    write_gguf_fields(writer, reference.config)
    write_tokenizer(writer, tokenizer or nameless_tokens(reference.config.vocab_size))
    names = LLAMA_NAMES if reference.config.model_type == "llama" else GPT2_NAMES
    for name, parameter in reference.named_parameters():
        to = gguf_name(name, names)
        own = Quant.F32 if parameter.dim() == 1 else (kinds or {}).get(to, kind)
        weight = parameter.detach().numpy()
        weight = np.ascontiguousarray(weight.T) if ".c_" in name and weight.ndim == 2 else weight
        data = gguf.quantize(weight, own)
        kept = torch.from_numpy(gguf.dequantize(data, own).copy())
        parameter.data.copy_(kept.T if ".c_" in name and weight.ndim == 2 else kept)
        if to.endswith(("attn_q.weight", "attn_k.weight")):
            data = interleaved(data, N_HEAD if "attn_q" in to else N_KV_HEAD)
        if to not in omit:
            writer.add_tensor(to, data, raw_dtype=own)
    for name, tensor in extra.items():
        writer.add_tensor(name.replace("__", "."), tensor)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return path


def write_gguf_fields(writer: gguf.GGUFWriter, config) -> None:
    llama = config.model_type == "llama"
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size if llama else 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if llama:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(HEAD_DIM)
    else:
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_array("test.numbers", [0.5, -1.5])


def nameless_tokens(count: int) -> dict:
    return {
        "tokenizer.ggml.tokens": [f"tøken {i}" for i in range(count)],
        "tokenizer.ggml.token_type": [1] * count,
        "tokenizer.ggml.add_bos_token": False,
    }


def write_tokenizer(writer: gguf.GGUFWriter, fields: dict) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string, list: writer.add_array}
    for key, value in fields.items():
        add[type(value)](key, value)


@pytest.fixture
def llama_gguf(tmp_path) -> Path:
    """A small llama as a GGUF file, for tests that break it."""
    return write_gguf(tmp_path / "tiny.gguf", make_llama())


@pytest.mark.parametrize("kind", [Quant.F32, Quant.F16, Quant.BF16, Quant.Q8_0, Quant.Q4_1, Quant.Q4_0])
def test_a_gguf_file_gives_the_logits_of_transformers(reference, tmp_path, kind):
    path = write_gguf(tmp_path / "tiny.gguf", reference, kind)
    assert_same_logits(open_checkpoint(path), reference)


READABLE = [kind for kind in Quant if kind in gguf.quants._type_traits or kind in (Quant.F32, Quant.F16)]


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_every_kind_of_numbers_that_the_library_reads_is_read(tmp_path, kind, monkeypatch):
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rows = np.random.default_rng(1).integers(0, 60, (6, max(512 // per_block, 1) * block_bytes), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("matrix", rows, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    monkeypatch.setattr("gpt.weights._PIECE", 700)
    file = GGUFFile(tmp_path / "one.gguf")
    out = torch.empty(file.shapes["matrix"])
    file.copy("matrix", out)
    assert np.array_equal(out.numpy(), gguf.dequantize(rows, kind), equal_nan=True)


def test_pieces_smaller_than_a_tensor_change_nothing(tmp_path, monkeypatch):
    reference = make_llama()
    path = write_gguf(tmp_path / "tiny.gguf", reference, Quant.Q8_0)
    monkeypatch.setattr("gpt.weights._PIECE", 100)
    assert_same_logits(open_checkpoint(path), reference)


def test_the_metadata_comes_out_as_plain_values(llama_gguf):
    checkpoint = open_checkpoint(llama_gguf)
    assert checkpoint.name == "tiny"
    assert checkpoint.fields["tokenizer.ggml.tokens"] == [f"tøken {i}" for i in range(96)]
    assert checkpoint.fields["tokenizer.ggml.token_type"] == [1] * 96
    assert checkpoint.fields["tokenizer.ggml.add_bos_token"] is False
    assert checkpoint.fields["test.numbers"] == [0.5, -1.5]
    assert checkpoint.fields["llama.block_count"] == 2


def test_the_head_is_tied_when_the_file_has_none(tmp_path):
    tied = open_checkpoint(write_gguf(tmp_path / "tied.gguf", make_llama(tied=True)))
    untied = open_checkpoint(write_gguf(tmp_path / "untied.gguf", make_llama()))
    assert (tied.config.tied, untied.config.tied) == (True, False)


def test_rope_factors_divide_the_frequencies_and_ones_change_nothing(tmp_path):
    reference, ones = make_llama(), np.ones(8, np.float32)
    path = write_gguf(tmp_path / "ones.gguf", reference, rope_freqs__weight=ones)
    assert_same_logits(open_checkpoint(path), reference)
    reference.model.rotary_emb.inv_freq /= 8
    path = write_gguf(tmp_path / "scaled.gguf", reference, rope_freqs__weight=8 * ones)
    assert_same_logits(open_checkpoint(path), reference)


def test_missing_left_over_and_misshapen_gguf_tensors_are_named(tmp_path):
    model = make_llama()
    extra, wrong = np.ones(32, np.float32), np.ones(63, np.float32)
    with pytest.raises(CheckpointError, match=r"lacks blk.1.attn_q.weight; it is incomplete"):
        open_checkpoint(write_gguf(tmp_path / "a.gguf", model, omit=["blk.1.attn_q.weight"])).model()
    with pytest.raises(CheckpointError, match=r"holds blk.0.attn_q_norm.weight, which this architecture lacks"):
        open_checkpoint(write_gguf(tmp_path / "b.gguf", model, blk__0__attn_q_norm__weight=extra)).model()
    path = write_gguf(tmp_path / "c.gguf", model, omit=["output_norm.weight"], output_norm__weight=wrong)
    with pytest.raises(CheckpointError, match=r"output_norm.weight of shape \(63,\), .* for \(64,\)"):
        open_checkpoint(path).model()


def test_a_gguf_cut_short_anywhere_is_refused_in_one_sentence(llama_gguf):
    whole = llama_gguf.read_bytes()
    for size in [0, 3, 20, 30, 200, 1_500, 3_000, 5_000, 8_000, len(whole) // 2, len(whole) - 40]:
        llama_gguf.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"too short|cut short"):
            open_checkpoint(llama_gguf)


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


def test_files_that_are_not_gguf_or_too_new_are_refused(llama_gguf):
    content = llama_gguf.read_bytes()
    llama_gguf.write_bytes(content.replace(b"GGUF", b"PK\3\4", 1))
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        open_checkpoint(llama_gguf)
    llama_gguf.write_bytes(content.replace(struct.pack("<I", 3), struct.pack("<I", 9), 1))
    with pytest.raises(CheckpointError, match=r"is GGUF version 9; .*2 and 3 are supported"):
        open_checkpoint(llama_gguf)


def test_an_unknown_quantisation_is_refused_by_tensor(llama_gguf):
    place = b"output_norm.weight" + struct.pack("<IQ", 1, 64)
    patched(llama_gguf, place + struct.pack("<I", 0), place + struct.pack("<I", 77))
    with pytest.raises(CheckpointError, match=r"stores output_norm.weight in the unknown quantisation 77"):
        open_checkpoint(llama_gguf)


def test_numbers_that_are_no_weights_are_refused(llama_gguf):
    place = b"output_norm.weight" + struct.pack("<IQ", 1, 64)
    patched(llama_gguf, place + struct.pack("<I", 0), place + struct.pack("<I", Quant.I32))
    with pytest.raises(CheckpointError, match=r"stores output_norm.weight as I32, which cannot be read"):
        open_checkpoint(llama_gguf).model()


def test_damaged_metadata_is_refused(llama_gguf):
    key = b"test.numbers" + struct.pack("<I", gguf.GGUFValueType.ARRAY)
    patched(llama_gguf, key, b"test.numbers" + struct.pack("<I", 99))
    with pytest.raises(CheckpointError, match="metadata of the unknown type 99"):
        open_checkpoint(llama_gguf)


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "feed_forward_length"])
def test_absurd_sizes_are_refused_quickly(llama_gguf, key):
    content = llama_gguf.read_bytes()
    place = content.index(f"llama.{key}".encode()) + len(f"llama.{key}") + 4
    llama_gguf.write_bytes(content[:place] + struct.pack("<I", 2_000_000_000) + content[place + 4 :])
    with pytest.raises(CheckpointError, match=r"fewer tensors|does not fit into the memory|cannot be used"):
        open_checkpoint(llama_gguf).model()


def test_an_unsupported_gguf_architecture_is_named(tmp_path):
    path = tmp_path / "rwkv.gguf"
    writer = gguf.GGUFWriter(path, "rwkv6")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"rwkv.gguf cannot be used: the architecture 'rwkv6' is not supp"):
        open_checkpoint(path)


def test_a_path_that_does_not_exist_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be opened: No such file"):
        open_checkpoint(tmp_path / "none.gguf")


# ---- the real default model


@pytest.mark.slow
def test_the_default_model_predicts_what_transformers_predicts_from_the_same_file():
    from transformers import AutoModelForCausalLM

    path = resolve(DEFAULT)
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.n_layer == 30
    assert checkpoint.config.tied
    tokens = torch.tensor([[504, 3575, 282, 4649, 314, 260, 3116, 282]])
    with torch.inference_mode():
        ours = checkpoint.model()(tokens, torch.arange(tokens.shape[1]))
        reference = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
        theirs = reference(tokens).logits
    assert torch.isfinite(ours).all()
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
