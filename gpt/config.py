"""The shape of a GPT: every number and every choice that tells one network from another.

Differences between families are values of `GPTConfig`; the model knows no family by name. families.py translates the
formats of others into it.
"""

from dataclasses import dataclass, fields
from typing import Literal

__all__ = ["GPTConfig", "Rope", "UnsupportedModel"]


class UnsupportedModel(ValueError):
    """The checkpoint is readable, but it is a model that this program cannot run exactly."""


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _positive(name: str, value: float) -> None:
    if not 0 < float(value) < float("inf"):
        raise ValueError(f"{name} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Rope:
    """How positions turn queries and keys (rope.py computes the frequencies).

    The first `dim` dimensions of a head turn, all of them if it is 0. `kind` says how the frequencies theta^(-2i/dim)
    were stretched for a longer context than the `original` one: "linear" divides all by `factor`; "llama3" the low
    ones, with a ramp between `original / low` and `original / high` positions a turn; "yarn" blends by dimension
    between `high` and `low` turns in the original context; "divided" divides each by its own one of `divisors`. cos and
    sin are multiplied by `amplitude`. "dynamic" is plain in the context that is run. `beyond` and `longest` compute
    nothing: the divisors that others take in contexts longer than `original`, and their longest.
    """

    theta: float = 10_000.0
    dim: int = 0
    kind: Literal["plain", "dynamic", "linear", "llama3", "yarn", "divided"] = "plain"
    factor: float = 1.0
    original: int = 0
    low: float = 1.0
    high: float = 1.0
    whole: bool = True  # yarn: whether the dimensions between which it blends are rounded to whole ones
    divisors: tuple[float, ...] = ()
    beyond: tuple[float, ...] = ()
    longest: int = 0
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        _one_of("the kind of rotary positions", self.kind, ("plain", "dynamic", "linear", "llama3", "yarn", "divided"))
        for name in ("theta", "factor", "amplitude", "low", "high"):
            _positive(f"rope {name}", getattr(self, name))
        if self.dim % 2:
            raise ValueError(f"an even number of dimensions must turn, got {self.dim}")
        if self.kind in ("llama3", "yarn") and not self.original > 0:
            raise ValueError(f"{self.kind} needs the length of the original context, got {self.original!r}")


@dataclass(frozen=True)
class GPTConfig:
    """Every number that decides the shape of the network. Names are GPT-2's own.

    `head_dim * n_head` need not equal `n_embd`. With `n_kv_head < n_head`, consecutive query heads share a key/value
    head. Norms stand before attention and MLP, after them, or both. `mlp` is "gelu" (exact), "gelu_tanh" (GPT-2's),
    "swiglu" silu(gate) * up, or "geglu" gelu_tanh(gate) * up. `qk_norm` is over each "head" or over "all" heads
    together. Scores are q k^T * `scale` (0: 1 / sqrt(head_dim)), then softcap * tanh(scores / softcap) if there is a
    `softcap`; `logit_softcap` does the same to logits. `windows` says per layer how many positions back a query looks,
    itself included, 0 being all; windowed layers turn by `local_rope` if it is given. `unturned` layers do not turn.
    `family` names the tensors in a Hugging Face folder (names.py) and computes nothing.
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
    norm_place: Literal["before", "after", "both"] = "before"
    position: Literal["learned", "rope"] = "rope"
    rope: Rope = Rope()
    local_rope: Rope | None = None
    unturned: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    scale: float = 0.0
    softcap: float = 0.0
    logit_softcap: float = 0.0
    qk_norm: Literal["none", "head", "all"] = "none"
    mlp: Literal["gelu", "gelu_tanh", "swiglu", "geglu"] = "swiglu"
    parallel: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    embed_scale: float = 1.0
    tied: bool = True
    family: str = "llama"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value > 0):
                raise ValueError(f"{field.name} must be a positive whole number, got {value!r}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"n_head ({self.n_head}) must be a multiple of n_kv_head ({self.n_kv_head})")
        _one_of("norm", self.norm, ("layernorm", "rmsnorm"))
        _one_of("norm_place", self.norm_place, ("before", "after", "both"))
        _one_of("position", self.position, ("learned", "rope"))
        _one_of("qk_norm", self.qk_norm, ("none", "head", "all"))
        _one_of("mlp", self.mlp, ("gelu", "gelu_tanh", "swiglu", "geglu"))
        for name in ("norm_eps", "embed_scale"):
            _positive(name, getattr(self, name))
        for name in ("scale", "softcap", "logit_softcap"):
            if getattr(self, name) != 0:
                _positive(name, getattr(self, name))
        self._check_layers()

    def _check_layers(self) -> None:
        if len(self.windows) not in (0, self.n_layer) or any(window < 0 for window in self.windows):
            raise ValueError(f"windows must give one number from 0 on for each of {self.n_layer} layers")
        for rope in filter(None, (self.rope, self.local_rope)):
            if self.position == "rope" and (self.head_dim % 2 or rope.dim > self.head_dim):
                raise ValueError(
                    f"head_dim must be even for rotary positions, and at least {rope.dim}, got {self.head_dim}"
                )

    @property
    def score_scale(self) -> float:
        """What q k^T is multiplied by."""
        return self.scale or self.head_dim**-0.5

    def window(self, layer: int) -> int | None:
        """How many positions back, itself included, a query of a layer looks; None: all."""
        return self.windows[layer] or None if self.windows else None

    def rope_of(self, layer: int) -> Rope | None:
        """What turns a layer's queries and keys; None where nothing does."""
        if self.position != "rope" or layer in self.unturned:
            return None
        return self.local_rope if self.local_rope and self.window(layer) else self.rope
