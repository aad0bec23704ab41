"""What each family calls its tensors, in a Hugging Face folder and in a GGUF file: one line a module.

Whoever loads or saves goes by these tables: `{i}` is a layer, and a module's weight and bias go the same way. Sources:
Hugging Face transformers, the constants of the `gguf` library, llama.cpp's converter.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from gpt.config import GPTConfig

__all__ = ["GGUF_NAMES", "HF_HEAD", "HF_NAMES", "HF_PREFIX", "To", "hf_name", "rows_of"]


class To(NamedTuple):
    """Where the tensors of one module of a file go: rows of one of our modules, and how the file has them.

    "transposed" is GPT-2's Conv1D, (in, out). "interleaved" is llama.cpp's rotary order: the rows of a head
    come as 0, D/2, 1, D/2 + 1, ... "by head" is GPT-NeoX's: q, k and v of the first head, then of the next. `less` is
    what the file's numbers lack: Gemma stores norms as what they add to 1.
    """

    module: str
    rows: str = "all"
    order: str = "plain"
    less: float = 0.0


Table = dict[str, To]

_HF_ENDS = {"embed_tokens": To("wte"), "norm": To("norm_f"), "lm_head": To("lm_head")}
_HF_ATTENTION = {
    "layers.{i}.self_attn.q_proj": To("blocks.{i}.attn.qkv", "q"),
    "layers.{i}.self_attn.k_proj": To("blocks.{i}.attn.qkv", "k"),
    "layers.{i}.self_attn.v_proj": To("blocks.{i}.attn.qkv", "v"),
    "layers.{i}.self_attn.o_proj": To("blocks.{i}.attn.out"),
}
_HF_MLP = {
    "layers.{i}.mlp.gate_proj": To("blocks.{i}.mlp.up", "gate"),
    "layers.{i}.mlp.up_proj": To("blocks.{i}.mlp.up", "up"),
    "layers.{i}.mlp.down_proj": To("blocks.{i}.mlp.down"),
}
_HF_BEFORE = {
    "layers.{i}.input_layernorm": To("blocks.{i}.norm_1"),
    "layers.{i}.post_attention_layernorm": To("blocks.{i}.norm_2"),
}
_HF_AFTER = {
    "layers.{i}.post_attention_layernorm": To("blocks.{i}.post_norm_1"),
    "layers.{i}.post_feedforward_layernorm": To("blocks.{i}.post_norm_2"),
}
_HF_BOTH = _HF_AFTER | {
    "layers.{i}.input_layernorm": To("blocks.{i}.norm_1"),
    "layers.{i}.pre_feedforward_layernorm": To("blocks.{i}.norm_2"),
}
_HF_QK_NORMS = {
    "layers.{i}.self_attn.q_norm": To("blocks.{i}.attn.q_norm"),
    "layers.{i}.self_attn.k_norm": To("blocks.{i}.attn.k_norm"),
}
_HF_FUSED = {
    "layers.{i}.self_attn.qkv_proj": To("blocks.{i}.attn.qkv"),
    "layers.{i}.self_attn.o_proj": To("blocks.{i}.attn.out"),
    "layers.{i}.mlp.gate_up_proj": To("blocks.{i}.mlp.up"),
    "layers.{i}.mlp.down_proj": To("blocks.{i}.mlp.down"),
}
_HF_GPT2 = {
    "wte": To("wte"),
    "wpe": To("wpe"),
    "h.{i}.ln_1": To("blocks.{i}.norm_1"),
    "h.{i}.attn.c_attn": To("blocks.{i}.attn.qkv", order="transposed"),
    "h.{i}.attn.c_proj": To("blocks.{i}.attn.out", order="transposed"),
    "h.{i}.ln_2": To("blocks.{i}.norm_2"),
    "h.{i}.mlp.c_fc": To("blocks.{i}.mlp.up", order="transposed"),
    "h.{i}.mlp.c_proj": To("blocks.{i}.mlp.down", order="transposed"),
    "ln_f": To("norm_f"),
    "lm_head": To("lm_head"),
}
_HF_NEOX = _HF_BEFORE | {
    "embed_in": To("wte"),
    "layers.{i}.attention.query_key_value": To("blocks.{i}.attn.qkv", order="by head"),
    "layers.{i}.attention.dense": To("blocks.{i}.attn.out"),
    "layers.{i}.mlp.dense_h_to_4h": To("blocks.{i}.mlp.up"),
    "layers.{i}.mlp.dense_4h_to_h": To("blocks.{i}.mlp.down"),
    "final_layer_norm": To("norm_f"),
    "lm_head": To("lm_head"),
}
_HF_LLAMA = _HF_ENDS | _HF_ATTENTION | _HF_MLP | _HF_BEFORE
_HF_GEMMA = _HF_ENDS | _HF_ATTENTION | _HF_MLP | _HF_BOTH


def _norms_add_to_one(table: Table) -> Table:
    return {name: to._replace(less=1.0) if "norm" in name else to for name, to in table.items()}


HF_NAMES: dict[str, Table] = {
    "gpt2": _HF_GPT2,
    "gpt_neox": _HF_NEOX,
    "llama": _HF_LLAMA,
    "mistral": _HF_LLAMA,
    "smollm3": _HF_LLAMA,
    "qwen2": _HF_LLAMA,
    "qwen3": _HF_LLAMA | _HF_QK_NORMS,
    "olmo2": _HF_ENDS | _HF_ATTENTION | _HF_MLP | _HF_AFTER | _HF_QK_NORMS,
    "gemma2": _norms_add_to_one(_HF_GEMMA),
    "gemma3_text": _norms_add_to_one(_HF_GEMMA | _HF_QK_NORMS),
    "phi3": _HF_ENDS | _HF_FUSED | _HF_BEFORE,
}
"""family -> its table, for names without the prefix of the model's body."""

_PREFIX = re.compile(r"^(model\.language_model|language_model\.model|language_model|transformer|gpt_neox|model)\.")
_DERIVED = re.compile(
    r"(h\.\d+\.attn|layers\.\d+\.attention)\.(masked_)?bias|(layers\.\d+\.(self_attn|attention)\.)?rotary_emb\.inv_freq"
)
_SEEING = re.compile(r"(vision_tower|multi_modal_projector)\.")

HF_PREFIX = {"gpt2": "transformer.", "gpt_neox": "gpt_neox."}
"""family -> what stands before every name but the head's, where it is not "model."."""

HF_HEAD = {"gpt_neox": "embed_out"}
"""family -> what it calls lm_head when it is written: every version of transformers reads it."""


def hf_name(model_type: str) -> Callable[[str], str | None]:
    """What a tensor in a folder of that model_type is called in our tables; None for one that is no weight of ours.

    Those are buffers that follow from the config (masks, rotary frequencies), and the eyes of a model that also sees.
    """

    def named(full: str) -> str | None:
        name = _PREFIX.sub("", full)
        if _DERIVED.fullmatch(name) or (model_type == "gemma3" and _SEEING.match(name)):
            return None
        return "lm_head.weight" if name == "embed_out.weight" else name  # GPT-NeoX calls it so

    return named


_GGUF_ENDS = {"token_embd": To("wte"), "output_norm": To("norm_f"), "output": To("lm_head")}
_GGUF_BEFORE = {"blk.{i}.attn_norm": To("blocks.{i}.norm_1"), "blk.{i}.ffn_norm": To("blocks.{i}.norm_2")}
_GGUF_AFTER = {
    "blk.{i}.post_attention_norm": To("blocks.{i}.post_norm_1"),
    "blk.{i}.post_ffw_norm": To("blocks.{i}.post_norm_2"),
}
_GGUF_QK_NORMS = {
    "blk.{i}.attn_q_norm": To("blocks.{i}.attn.q_norm"),
    "blk.{i}.attn_k_norm": To("blocks.{i}.attn.k_norm"),
}
_GGUF_FUSED = {
    "blk.{i}.attn_qkv": To("blocks.{i}.attn.qkv"),
    "blk.{i}.attn_output": To("blocks.{i}.attn.out"),
    "blk.{i}.ffn_up": To("blocks.{i}.mlp.up"),
    "blk.{i}.ffn_down": To("blocks.{i}.mlp.down"),
}
_GGUF_SPLIT = {
    "blk.{i}.attn_q": To("blocks.{i}.attn.qkv", "q"),
    "blk.{i}.attn_k": To("blocks.{i}.attn.qkv", "k"),
    "blk.{i}.attn_v": To("blocks.{i}.attn.qkv", "v"),
    "blk.{i}.attn_output": To("blocks.{i}.attn.out"),
    "blk.{i}.ffn_gate": To("blocks.{i}.mlp.up", "gate"),
    "blk.{i}.ffn_up": To("blocks.{i}.mlp.up", "up"),
    "blk.{i}.ffn_down": To("blocks.{i}.mlp.down"),
}
_GGUF_LLAMA = _GGUF_ENDS | _GGUF_BEFORE | _GGUF_SPLIT | {
    "blk.{i}.attn_q": To("blocks.{i}.attn.qkv", "q", "interleaved"),
    "blk.{i}.attn_k": To("blocks.{i}.attn.qkv", "k", "interleaved"),
}  # fmt: skip

GGUF_NAMES: dict[str, Table] = {
    "gpt2": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_FUSED | {"position_embd": To("wpe")},
    "gpt_neox": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_FUSED,
    "llama": _GGUF_LLAMA,
    "smollm3": _GGUF_LLAMA,
    "qwen2": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_SPLIT,
    "qwen3": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_SPLIT | _GGUF_QK_NORMS,
    "olmo2": _GGUF_ENDS | _GGUF_AFTER | _GGUF_SPLIT | _GGUF_QK_NORMS,
    "gemma2": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_AFTER | _GGUF_SPLIT,
    "gemma3_text": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_AFTER | _GGUF_SPLIT | _GGUF_QK_NORMS,
    "phi3": _GGUF_ENDS | _GGUF_BEFORE | _GGUF_FUSED,
}
"""family -> its table. The 1 is added to Gemma's norms already, and GPT-NeoX's q, k and v lie one below the other."""


def rows_of(config: GPTConfig, rows: str) -> slice:
    """Which rows of our matrix a `To` names."""
    k, v = config.n_head * config.head_dim, (config.n_head + config.n_kv_head) * config.head_dim
    return {
        "all": slice(None),
        "q": slice(0, k),
        "k": slice(k, v),
        "v": slice(v, None),
        "gate": slice(0, config.d_mlp),
        "up": slice(config.d_mlp, None),
    }[rows]
