"""The one table of families: what all models of one share, and what config.json of Hugging Face calls the rest.

A row says too what transformers takes where a key is absent, and the values of other keys beyond which a model could
not be run exactly. What is not in the table is refused by name, never loaded approximately. hf_config.py goes by it in
both directions, gguf_config.py takes from it what families share. Sources: the configuration classes and models of
Hugging Face transformers 5.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gpt.config import GPTConfig, Rope, UnsupportedModel

__all__ = ["FAMILIES", "Family", "Values", "check_sizes", "need", "refuse_unless", "unsupported"]

Values = dict[str, Any]
"""Parsed JSON, metadata, or fields of GPTConfig."""

_KEYS = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "head_dim": "head_dim",
    "d_mlp": "intermediate_size",
    "block_size": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
_KEYS_GPT2 = {
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "d_mlp": "n_inner",
    "block_size": "n_positions",
    "vocab_size": "vocab_size",
    "norm_eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
}
_KEYS_NEOX = {ours: key for ours, key in _KEYS.items() if ours not in ("n_kv_head", "head_dim")} | {
    "norm_eps": "layer_norm_eps"
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}


@dataclass(frozen=True)
class Family:
    """A family of models.

    `traits` are values of GPTConfig that all of it share; `keys` the names of our numbers in its config.json;
    `defaults` what transformers takes where a key is absent; `only` the values that other keys may have; `flags` the
    keys that say whether there are biases, and their defaults. `layers` gives `windows` and `unturned`, `more` what
    else takes more than a name; `back` undoes both. `ropes`: the kinds of rotary positions that it may have.
    """

    traits: Values = field(default_factory=dict)
    keys: Values = field(default_factory=lambda: _KEYS)
    defaults: Values = field(default_factory=dict)
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    ropes: tuple[str, ...] = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
    theta: float = 10_000.0
    share: float | None = None  # of a head that turns, where the file does not say; None: it always turns as a whole
    more: Callable[[Values], Values] = lambda c: {}
    back: Callable[[GPTConfig], Values] = lambda config: {}
    architecture: str = ""


def need(source: Values, key: str) -> Any:
    """The value of a key; ValueError without it."""
    if source.get(key) is None:
        raise ValueError(f"the checkpoint's configuration lacks {key!r}; is the file complete?")
    return source[key]


def refuse_unless(source: Values, key: str, allowed: tuple[Any, ...]) -> None:
    """Raise UnsupportedModel unless a key has one of the `allowed` values, the first of which is the default."""
    if source.get(key, allowed[0]) not in allowed:
        raise UnsupportedModel(f"{key} = {source[key]!r} is not supported (only {' or '.join(map(repr, allowed))})")


def check_sizes(n_layer: object, n_head: object, n_embd: object) -> None:
    """Raise ValueError unless these are whole numbers that a network may have: all else is made from them."""
    for name, value in (("n_layer", n_layer), ("n_head", n_head), ("n_embd", n_embd)):
        if not (isinstance(value, int) and 0 < value <= 10_000_000):
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    if n_layer > 10_000:
        raise ValueError(f"there are no networks of {n_layer} layers; is the file damaged?")


def unsupported(family: object) -> str:
    """Why an architecture is refused."""
    known = ", ".join(sorted(FAMILIES))
    return f"the architecture {family!r} is not supported; supported are {known}, and the text part of gemma3"


def _kinds(c: Values, made: Callable[[int], bool]) -> list[bool]:
    """Which layers look through the window: as the file lists them, or as `made` says."""
    n_layer = c["num_hidden_layers"]
    kinds = c.get("layer_types") or [("full_attention", "sliding_attention")[bool(made(i))] for i in range(n_layer)]
    if unknown := set(kinds) - {"full_attention", "sliding_attention"}:
        raise UnsupportedModel(f"layers of the type {min(map(str, unknown))} are not supported")
    return [kind == "sliding_attention" for kind in kinds]


def _windows(c: Values, sliding: list[bool]) -> Values:
    if not any(sliding):
        return {}
    window = need(c, "sliding_window")
    return {"windows": tuple(window if slides else 0 for slides in sliding)}


def _mistral(c: Values) -> Values:
    n_layer = c["num_hidden_layers"]
    return _windows(c, [c.get("sliding_window") is not None] * n_layer)


def _qwen(c: Values) -> Values:
    used = bool(c.get("use_sliding_window"))
    return _windows(
        c if used else {**c, "sliding_window": None}, _kinds(c, lambda i: used and i >= c.get("max_window_layers", 28))
    )


def _smollm3(c: Values) -> Values:
    n_layer, step = c["num_hidden_layers"], c.get("no_rope_layer_interval", 4)
    turned = c.get("no_rope_layers") or [int((i + 1) % step != 0) for i in range(n_layer)]
    used = bool(c.get("use_sliding_window")) and c.get("sliding_window") is not None
    sliding = [used and kind for kind in _kinds(c, lambda i: not turned[i])]
    return {"unturned": tuple(i for i in range(n_layer) if not turned[i]), **_windows(c, sliding)}


def _gemma(c: Values, step: int = 2) -> Values:
    caps = c.get("attn_logit_softcapping"), c.get("final_logit_softcapping")
    return {
        "scale": need(c, "query_pre_attn_scalar") ** -0.5,
        "embed_scale": c["hidden_size"] ** 0.5,
        "softcap": float(caps[0] or 0),
        "logit_softcap": float(caps[1] or 0),
        **_windows(c, _kinds(c, lambda i: (i + 1) % step != 0)),
    }


def _gemma3(c: Values) -> Values:
    ropes = c.get("rope_parameters") or {}
    near = ropes.get("sliding_attention") or {}
    if near.get("rope_type", "default") != "default":
        raise UnsupportedModel(f"rope scaling {near['rope_type']!r} of layers with a window is not supported")
    theta = near.get("rope_theta") or c.get("rope_local_base_freq", 10_000.0)
    return {**_gemma(c, c.get("sliding_window_pattern", 6)), "local_rope": Rope(theta=float(theta))}


def _activation(key: str) -> Callable[[Values], Values]:
    return lambda c: {"mlp": _ACTIVATIONS[c[key]]}


def _neox(c: Values) -> Values:
    return {"mlp": _ACTIVATIONS[c["hidden_act"]], "parallel": bool(c["use_parallel_residual"])}


def _activation_back(config: GPTConfig) -> str:
    return {"gelu": "gelu", "gelu_tanh": "gelu_new"}.get(config.mlp, config.mlp)


def _layer_types(config: GPTConfig) -> Values:
    kinds = ["sliding_attention" if config.window(i) else "full_attention" for i in range(config.n_layer)]
    return {"layer_types": kinds, "sliding_window": max(config.windows, default=0) or None}


def _qwen_back(config: GPTConfig) -> Values:
    return {**_layer_types(config), "use_sliding_window": any(config.windows)}


def _smollm3_back(config: GPTConfig) -> Values:
    return {**_qwen_back(config), "no_rope_layers": [int(i not in config.unturned) for i in range(config.n_layer)]}


def _gemma_back(config: GPTConfig) -> Values:
    local = {"rope_local_base_freq": config.local_rope.theta} if config.local_rope else {}
    return {
        **_layer_types(config),
        **local,
        "query_pre_attn_scalar": round(config.score_scale**-2),
        "attn_logit_softcapping": config.softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
    }


_LAYERNORM = {"norm": "layernorm", "mlp_bias": True}
_GEMMA = {"norm_place": "both", "mlp": "geglu"}
_SILU = {"hidden_act": ("silu",)}
_TANH = {"hidden_activation": ("gelu_pytorch_tanh",), "use_bidirectional_attention": (None, False)}
_SIZES_GEMMA3 = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 131_072,
}  # published files leave out what transformers fills in
_USUAL = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False}
_USUAL_GEMMA = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}

FAMILIES = {
    "gpt2": Family(
        traits=_LAYERNORM | {"position": "learned", "qkv_bias": True, "out_bias": True},
        keys=_KEYS_GPT2,
        defaults={"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "activation_function": "gelu_new"},
        only={
            "activation_function": ("gelu_new", "gelu", "gelu_pytorch_tanh", "gelu_fast"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False, None),
            "add_cross_attention": (False, None),
        },
        more=_activation("activation_function"),
        back=lambda config: {"activation_function": _activation_back(config)},
        architecture="GPT2LMHeadModel",
    ),
    "gpt_neox": Family(
        traits=_LAYERNORM,
        keys=_KEYS_NEOX,
        defaults={"layer_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "gelu",
                  "use_parallel_residual": True},
        only={"hidden_act": ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")},
        flags={"attention_bias": True},
        ropes=("default", "linear", "dynamic", "yarn"),
        share=0.25,
        more=_neox,
        back=lambda config: {"hidden_act": _activation_back(config), "use_parallel_residual": config.parallel},
        architecture="GPTNeoXForCausalLM",
    ),
    "llama": Family(
        defaults=_USUAL, only=_SILU, flags={"attention_bias": False, "mlp_bias": False},
        architecture="LlamaForCausalLM",
    ),
    "mistral": Family(
        defaults=_USUAL | {"num_key_value_heads": 8, "sliding_window": 4096},
        only=_SILU | {"layer_types": (None,)},
        more=_mistral,
        back=lambda config: {"sliding_window": max(config.windows, default=0) or None},
        architecture="MistralForCausalLM",
    ),
    "smollm3": Family(
        defaults=_USUAL | {"num_key_value_heads": 4, "tie_word_embeddings": True},
        only=_SILU, flags={"attention_bias": False, "mlp_bias": False}, theta=2_000_000.0,
        more=_smollm3, back=_smollm3_back,
        architecture="SmolLM3ForCausalLM",
    ),
    "qwen2": Family(
        traits={"qkv_bias": True}, defaults=_USUAL | {"num_key_value_heads": 32, "sliding_window": 4096},
        only=_SILU, more=_qwen, back=_qwen_back,
        architecture="Qwen2ForCausalLM",
    ),
    "qwen3": Family(
        traits={"qk_norm": "head"},
        defaults=_USUAL | {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096},
        only=_SILU, flags={"attention_bias": False}, more=_qwen, back=_qwen_back,
        architecture="Qwen3ForCausalLM",
    ),
    "olmo2": Family(
        traits={"qk_norm": "all", "norm_place": "after"}, defaults=_USUAL | {"rms_norm_eps": 1e-5},
        only=_SILU, flags={"attention_bias": False},
        architecture="Olmo2ForCausalLM",
    ),
    "gemma2": Family(
        traits=_GEMMA,
        defaults=_USUAL_GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        only=_TANH, flags={"attention_bias": False}, more=_gemma, back=_gemma_back,
        architecture="Gemma2ForCausalLM",
    ),
    "gemma3_text": Family(
        traits=_GEMMA | {"qk_norm": "head"},
        defaults=_SIZES_GEMMA3 | _USUAL_GEMMA,
        only=_TANH | {"attn_logit_softcapping": (None,)},  # transformers' own model reads it and leaves it out
        flags={"attention_bias": False}, ropes=("default", "linear"), theta=1_000_000.0, more=_gemma3, back=_gemma_back,
        architecture="Gemma3ForCausalLM",
    ),
    "phi3": Family(
        defaults=_USUAL | {"rms_norm_eps": 1e-5, "sliding_window": None, "original_max_position_embeddings": 4096},
        only=_SILU, ropes=("default", "longrope", "su", "yarn"), share=1.0, more=_mistral,
        back=lambda config: {"sliding_window": max(config.windows, default=0) or None},
        architecture="Phi3ForCausalLM",
    ),
}  # fmt: skip
"""model_type -> family."""
