"""Models of transformers written as GGUF, as llama.cpp's converter does: its names, its order of rows, its metadata."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Quant

ARCHITECTURES = {"gpt_neox": "gptneox", "mistral": "llama", "gemma3_text": "gemma3"}
"""What GGUF calls those of transformers' model types that it calls otherwise."""


def write(path: Path, reference: torch.nn.Module, kind: Quant = Quant.F32) -> Path:
    """Write `reference`, its matrices as `kind`, and set its weights to what that can express."""
    config = reference.config
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    arch = next(arch for arch, arch_name in gguf.MODEL_ARCH_NAMES.items() if arch_name == name)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, name)
    metadata(writer, config, name)
    for full, parameter in reference.named_parameters():
        transposed = ".c_" in full and parameter.dim() == 2  # Conv1D
        own = kind if parameter.dim() == 2 else Quant.F32
        weight = parameter.detach().numpy()
        data = gguf.quantize(np.ascontiguousarray(weight.T if transposed else weight), own)
        kept = torch.from_numpy(gguf.dequantize(data, own).copy())
        parameter.data.copy_(kept.T if transposed else kept)
        data = rows_in_order(full, data, config)
        writer.add_tensor(names.get_name(full, (".weight", ".bias")), np.ascontiguousarray(data), raw_dtype=own)
    for factors, values in rope_factors(reference).items():
        writer.add_tensor(factors, values)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return path


def rows_in_order(full: str, data: np.ndarray, config) -> np.ndarray:
    if config.model_type in ("llama", "mistral", "smollm3") and (".q_proj." in full or ".k_proj." in full):
        n_head = config.num_attention_heads if ".q_proj." in full else config.num_key_value_heads
        halves = data.reshape(n_head, 2, -1, *data.shape[1:])
        return halves.swapaxes(1, 2).reshape(data.shape)
    if "query_key_value" in full:
        by_head = data.reshape(config.num_attention_heads, 3, -1, *data.shape[1:])
        return by_head.swapaxes(0, 1).reshape(data.shape)
    return data + 1 if config.model_type.startswith("gemma") and "norm" in full else data


def metadata(writer: gguf.GGUFWriter, config, name: str) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(config.num_attention_heads)
    tokenizer(writer, config.vocab_size)
    if name in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(getattr(config, "layer_norm_epsilon", None) or config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_head_count_kv(config.num_key_value_heads)
        if head_dim * config.num_attention_heads != config.hidden_size:
            writer.add_key_length(head_dim)
            writer.add_value_length(head_dim)
    if name == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if name != "gpt2":
        rope(writer, config, head_dim)
    if name.startswith("gemma") or (name == "phi3" and config.sliding_window):
        writer.add_sliding_window(config.sliding_window)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if name.startswith("gemma"):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """One that llama.cpp takes: a letter each."""
    letters = [chr(33 + i) for i in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * vocab_size)
    writer.add_token_merges([" ".join(letters[:2])])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)


def rope(writer: gguf.GGUFWriter, config, head_dim: int) -> None:
    p = config.rope_parameters
    if "full_attention" in p:
        p = p["full_attention"]
    writer.add_rope_freq_base(p["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * p.get("partial_rotary_factor", 1.0)))
    if p["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(p["rope_type"]))
        writer.add_rope_scaling_factor(p["factor"])
    if p["rope_type"] in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(p["original_max_position_embeddings"])
    if p["rope_type"] == "longrope":
        scale = config.max_position_embeddings / p["original_max_position_embeddings"]
        attn_factor = 1 + np.log(scale) / np.log(p["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(float(np.sqrt(attn_factor)))


def rope_factors(reference: torch.nn.Module) -> dict[str, np.ndarray]:
    p = getattr(reference.config, "rope_parameters", None) or {}
    if p.get("rope_type") == "longrope":
        return {f"rope_factors_{kind}.weight": np.array(p[f"{kind}_factor"], np.float32) for kind in ("long", "short")}
    if p.get("rope_type") == "llama3":
        frequencies = reference.model.rotary_emb.inv_freq
        exponents = torch.arange(0, 2 * len(frequencies), 2) / (2 * len(frequencies))
        return {"rope_freqs.weight": (p["rope_theta"] ** -exponents / frequencies).numpy()}
    return {}
