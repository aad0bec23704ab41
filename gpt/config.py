"""The shape of a GPT and the one table that translates other formats into it.

Differences between families are values of `GPTConfig`; no other file knows a family by name. A checkpoint whose
architecture cannot be expressed exactly is refused by name, never loaded approximately.
Sources: the config.json keys of Hugging Face transformers, the GGUF specification (general.architecture and friends).
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["GPTConfig", "UnsupportedModel"]


class UnsupportedModel(ValueError):
    """The checkpoint is readable, but it is a model that this program cannot run exactly."""


@dataclass(frozen=True)
class GPTConfig:
    """Every number that decides the shape of the network. Names are GPT-2's own.

    `head_dim * n_head` need not equal `n_embd`. With `n_kv_head < n_head`, consecutive query heads share a key/value
    head. `mlp="gelu"` is GPT-2's tanh approximation; `"swiglu"` is silu(gate) * up.
    """

    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    head_dim: int
    d_mlp: int
    block_size: int
    vocab_size: int
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    position: Literal["learned", "rope"] = "rope"
    rope_theta: float = 10_000.0
    mlp: Literal["gelu", "swiglu"] = "swiglu"
    bias: bool = False
    tied: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{field.name} must be a positive whole number, got {value!r}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.n_kv_head})")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        _one_of("norm", self.norm, ("layernorm", "rmsnorm"))
        _one_of("position", self.position, ("learned", "rope"))
        _one_of("mlp", self.mlp, ("gelu", "swiglu"))
        for name in ("norm_eps", "rope_theta"):
            if not 0 < float(getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)!r}")

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "GPTConfig":
        """Translate the parsed config.json of a Hugging Face checkpoint.

        Raises UnsupportedModel for an architecture or a feature that is not expressed here, ValueError for a missing
        key.
        """
        family = config.get("model_type")
        if family not in _FROM_HF:
            raise UnsupportedModel(_unsupported(family))
        return _FROM_HF[family](config)

    @classmethod
    def from_gguf(cls, fields: dict[str, Any]) -> "GPTConfig":
        """Translate the metadata of a GGUF file, given as plain values. Raises as `from_hf` does."""
        family = fields.get("general.architecture")
        if family not in _FROM_GGUF:
            raise UnsupportedModel(_unsupported(family))
        return _FROM_GGUF[family](fields)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _unsupported(family: object) -> str:
    return f"the architecture {family!r} is not supported; supported are {', '.join(sorted(_FROM_HF))}"


def _need(source: dict[str, Any], key: str) -> Any:
    if source.get(key) is None:
        raise ValueError(f"the checkpoint's configuration lacks {key!r}; is the file complete?")
    return source[key]


def _refuse_unless(source: dict[str, Any], key: str, allowed: tuple[Any, ...]) -> None:
    if source.get(key, allowed[0]) not in allowed:
        raise UnsupportedModel(f"{key} = {source[key]!r} is not supported (only {' or '.join(map(repr, allowed))})")


def _gpt2_shape(n_layer: int, n_head: int, n_embd: int, **rest: Any) -> GPTConfig:
    if n_embd % n_head:
        raise ValueError(f"n_embd ({n_embd}) must be a multiple of n_head ({n_head})")
    return GPTConfig(
        n_layer=n_layer,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
        head_dim=n_embd // n_head,
        norm="layernorm",
        position="learned",
        mlp="gelu",
        bias=True,
        **rest,
    )


def _gpt2_from_hf(c: dict[str, Any]) -> GPTConfig:
    _refuse_unless(c, "activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        _refuse_unless(c, key, (False, None))
    _refuse_unless(c, "scale_attn_weights", (True,))
    n_embd = _need(c, "n_embd")
    return _gpt2_shape(
        _need(c, "n_layer"),
        _need(c, "n_head"),
        n_embd,
        d_mlp=c.get("n_inner") or 4 * n_embd,
        block_size=_need(c, "n_positions"),
        vocab_size=_need(c, "vocab_size"),
        norm_eps=c.get("layer_norm_epsilon", 1e-5),
        tied=c.get("tie_word_embeddings", True),
    )


def _gpt2_from_gguf(f: dict[str, Any]) -> GPTConfig:
    return _gpt2_shape(
        _need(f, "gpt2.block_count"),
        _need(f, "gpt2.attention.head_count"),
        _need(f, "gpt2.embedding_length"),
        d_mlp=_need(f, "gpt2.feed_forward_length"),
        block_size=_need(f, "gpt2.context_length"),
        vocab_size=_gguf_vocab(f, "gpt2"),
        norm_eps=f.get("gpt2.attention.layer_norm_epsilon", 1e-5),
    )


def _llama_from_hf(c: dict[str, Any]) -> GPTConfig:
    _refuse_unless(c, "hidden_act", ("silu",))
    _refuse_unless(c, "attention_bias", (False,))
    _refuse_unless(c, "mlp_bias", (False,))
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UnsupportedModel(f"rope scaling {rope.get('rope_type', rope.get('type'))!r} is not supported")
    n_head, n_embd = _need(c, "num_attention_heads"), _need(c, "hidden_size")
    return GPTConfig(
        n_layer=_need(c, "num_hidden_layers"),
        n_head=n_head,
        n_kv_head=c.get("num_key_value_heads") or n_head,
        n_embd=n_embd,
        head_dim=c.get("head_dim") or n_embd // n_head,
        d_mlp=_need(c, "intermediate_size"),
        block_size=_need(c, "max_position_embeddings"),
        vocab_size=_need(c, "vocab_size"),
        norm_eps=c.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta") or c.get("rope_theta", 10_000.0)),
        tied=c.get("tie_word_embeddings", False),
    )


def _llama_from_gguf(f: dict[str, Any]) -> GPTConfig:
    if f.get("llama.rope.scaling.type", "none") != "none":
        raise UnsupportedModel(f"rope scaling {f['llama.rope.scaling.type']!r} is not supported")
    if f.get("llama.expert_count", 0):
        raise UnsupportedModel("mixtures of experts are not supported")
    n_head, n_embd = _need(f, "llama.attention.head_count"), _need(f, "llama.embedding_length")
    head_dim = f.get("llama.attention.key_length") or n_embd // n_head
    if f.get("llama.rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedModel("rotary positions over a part of the head are not supported")
    return GPTConfig(
        n_layer=_need(f, "llama.block_count"),
        n_head=n_head,
        n_kv_head=f.get("llama.attention.head_count_kv") or n_head,
        n_embd=n_embd,
        head_dim=head_dim,
        d_mlp=_need(f, "llama.feed_forward_length"),
        block_size=_need(f, "llama.context_length"),
        vocab_size=_gguf_vocab(f, "llama"),
        norm_eps=f.get("llama.attention.layer_norm_rms_epsilon", 1e-5),
        rope_theta=float(f.get("llama.rope.freq_base", 10_000.0)),
    )


def _gguf_vocab(f: dict[str, Any], family: str) -> int:
    return f.get(f"{family}.vocab_size") or len(_need(f, "tokenizer.ggml.tokens"))


_FROM_HF = {"gpt2": _gpt2_from_hf, "llama": _llama_from_hf}
_FROM_GGUF = {"gpt2": _gpt2_from_gguf, "llama": _llama_from_gguf}
