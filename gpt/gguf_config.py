"""The metadata of a GGUF file -> GPTConfig.

The keys are the same in every architecture, after its name; what a file leaves out is what llama.cpp takes for granted.
Only what the metadata says can be told apart: a GPT-2 with the exact GELU (Cerebras-GPT) or a Mistral with a window is
written like one without, so for those a folder in Hugging Face layout is the exact source. Sources: the GGUF
specification, the constants of the `gguf` library, llama.cpp's loader.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from gpt.config import GPTConfig, Rope, UnsupportedModel
from gpt.families import FAMILIES, Values, check_sizes, need, unsupported

__all__ = ["ARCHITECTURES", "ROPE_FACTORS", "config_from_gguf"]

ARCHITECTURES = {
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "llama": "llama",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "olmo2": "olmo2",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "phi3": "phi3",
}
"""general.architecture -> our family."""

ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""Tensors that belong to the shape: divisors of the frequencies of rotary positions."""

Factors = Mapping[str, tuple[float, ...]]


def config_from_gguf(fields: Mapping[str, Any], tensors: Collection[str], factors: Factors | None = None) -> GPTConfig:
    """Translate the metadata of a GGUF file, as plain values, with the names of its tensors and those of ROPE_FACTORS.

    Raises UnsupportedModel for an architecture or a feature that is not expressed here, ValueError for a missing key
    or an impossible number.
    """
    name = fields.get("general.architecture")
    if name not in ARCHITECTURES:
        raise UnsupportedModel(unsupported(name))
    f = {key.removeprefix(f"{name}."): value for key, value in fields.items() if key.startswith(f"{name}.")}
    for key, what in _REFUSED.items():
        if f.get(key):
            raise UnsupportedModel(f"{what} ({key}) are not supported")
    family = ARCHITECTURES[name]
    numbers = _numbers(f, fields)
    values = {**FAMILIES[family].traits, **numbers, "family": family, "tied": "output.weight" not in tensors}
    values |= {f"{ours}_bias": any(f"blk.0.{theirs}.bias" in tensors for theirs in _BIASES[ours]) for ours in _BIASES}
    values |= _windows(f, family, numbers["n_layer"])
    values |= _EXTRAS.get(family, lambda f, numbers: {})(f, numbers)
    if values.get("position") != "learned":
        values |= _rope(f, family, numbers, factors or {})
    return GPTConfig(**values)


_REFUSED = {
    "expert_count": "mixtures of experts",
    "attention.max_alibi_bias": "linear biases in the place of positions",
    "attention.clamp_kqv": "clamped queries and keys",
    "attention.scale": "scores of another scale",
    "attention.temperature_scale": "scores that are scaled by length",
    "logit_scale": "scaled logits",
    "embedding_scale": "scaled embeddings",
    "residual_scale": "scaled residuals",
}
"""Keys of other architectures, which llama.cpp would heed."""

_BIASES = {"qkv": ("attn_qkv", "attn_q"), "out": ("attn_output",), "mlp": ("ffn_up", "ffn_down")}


def _numbers(f: Values, fields: Mapping[str, Any]) -> Values:
    n_layer, n_head, n_embd = (need(f, key) for key in ("block_count", "attention.head_count", "embedding_length"))
    check_sizes(n_layer, n_head, n_embd)
    head_dim = f.get("attention.key_length") or n_embd // n_head
    if f.get("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModel("values of another width than keys are not supported")
    eps = f.get("attention.layer_norm_rms_epsilon") or f.get("attention.layer_norm_epsilon") or 1e-5
    return {
        "n_layer": n_layer,
        "n_head": n_head,
        "n_kv_head": f.get("attention.head_count_kv") or n_head,
        "n_embd": n_embd,
        "head_dim": head_dim,
        "d_mlp": need(f, "feed_forward_length"),
        "block_size": need(f, "context_length"),
        "vocab_size": f.get("vocab_size") or len(need(fields, "tokenizer.ggml.tokens")),
        "norm_eps": eps,
    }


def _windows(f: Values, family: str, n_layer: int) -> Values:
    """Which layers look through a window: every `step` layers one does not, or all do."""
    window = f.get("attention.sliding_window") or (4096 if family == "gemma2" else 0)
    step = f.get("attention.sliding_window_pattern", {"gemma2": 2, "gemma3_text": 6}.get(family, 0))
    if not window:
        return {}
    if family not in ("llama", "phi3", "gemma2", "gemma3_text"):
        raise UnsupportedModel(f"sliding windows are not supported in GGUF files of {family}")
    slides = step if isinstance(step, list) else [not step or i % step < step - 1 for i in range(n_layer)]
    return {"windows": tuple(window if slide else 0 for slide in slides)}


def _gemma(f: Values, numbers: Values, wide: int) -> Values:
    """Scores are scaled by the width of a head, but in the largest model, of `wide` layers, by n_embd / n_head."""
    by_head = numbers["n_embd"] / numbers["n_head"] if numbers["n_layer"] == wide else numbers["head_dim"]
    return {"scale": float(by_head) ** -0.5, "embed_scale": numbers["n_embd"] ** 0.5}


def _gemma2(f: Values, numbers: Values) -> Values:
    caps = f.get("attn_logit_softcapping", 50.0), f.get("final_logit_softcapping", 30.0)
    return {**_gemma(f, numbers, 46), "softcap": caps[0], "logit_softcap": caps[1]}


def _gemma3(f: Values, numbers: Values) -> Values:
    if f.get("attn_logit_softcapping"):
        raise UnsupportedModel("a soft-cap of scores is not supported in gemma3")
    local = Rope(theta=f.get("rope.freq_base_swa", 10_000.0))
    return {**_gemma(f, numbers, 62), "logit_softcap": f.get("final_logit_softcapping", 0.0), "local_rope": local}


_EXTRAS = {
    "gpt2": lambda f, numbers: {"mlp": "gelu_tanh"},
    "gpt_neox": lambda f, numbers: {"mlp": "gelu", "parallel": bool(f.get("use_parallel_residual", True))},
    "smollm3": lambda f, numbers: {"unturned": tuple(range(3, numbers["n_layer"], 4))},  # every fourth
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
"""family -> what its metadata, or llama.cpp without any, says besides."""


def _rope(f: Values, family: str, numbers: Values, factors: Factors) -> Values:
    """`rope`, and `block_size` where it ends before the model's does."""
    head_dim, block_size = numbers["head_dim"], numbers["block_size"]
    dim = f.get("rope.dimension_count", head_dim)
    if dim != head_dim and family not in ("gpt_neox", "phi3"):
        raise UnsupportedModel("rotary positions over a part of the head are not supported in this architecture")
    default = 1_000_000.0 if family == "gemma3_text" else 10_000.0
    common = {"theta": f.get("rope.freq_base", default), "dim": 0 if dim == head_dim else dim}
    kind, factor = f.get("rope.scaling.type", "none"), f.get("rope.scaling.factor") or 1.0
    original = f.get("rope.scaling.original_context_length") or block_size
    own, short, long = (factors.get(name) for name in ROPE_FACTORS)
    if short and long:
        amplitude = f.get("rope.scaling.attn_factor", 1.0)
        rope = Rope(kind="divided", original=original, divisors=short, amplitude=amplitude, **common)
        return {"rope": rope} if short == long else {"rope": rope, "block_size": min(original, block_size)}
    if own and any(divisor != 1 for divisor in own):
        if kind != "none":
            raise UnsupportedModel(f"rope scaling {kind!r} beside divisors of the frequencies is not supported")
        return {"rope": Rope(kind="divided", original=block_size, divisors=own, **common)}
    if kind == "yarn" and all(f.get(key) is None for key in _YARN):
        amplitude = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        stretch = {"kind": "yarn", "factor": factor, "original": original, "low": 1.0, "high": 32.0}
        return {"rope": Rope(**stretch, amplitude=amplitude, **common)}
    if kind not in ("none", "linear"):
        raise UnsupportedModel(f"rope scaling {kind!r} of this make is not supported")
    return {
        "rope": Rope(kind="linear", factor=factor, **common) if kind == "linear" and factor != 1 else Rope(**common)
    }


_YARN = tuple(
    f"rope.scaling.{key}"
    for key in ("attn_factor", "yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast",
                "yarn_beta_slow")
)  # fmt: skip
"""Keys with which a file could change what YaRN computes by default."""
