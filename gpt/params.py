"""What decides how a token is chosen: every parameter with its limits, the filters they belong to, presets.

Names are those of llama.cpp and Hugging Face transformers where these have the parameter. What the filters do is in
filters.py; here are values only.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

__all__ = ["FILTERS", "GRAMMARS", "LIMITS", "NEUTRAL", "ORDER", "PRESETS", "SamplingParams"]

FILTERS: dict[str, tuple[str, ...]] = {
    "logit_bias": ("logit_bias",),
    "repetition_penalty": ("repetition_penalty", "penalty_window"),
    "presence_penalty": ("presence_penalty", "penalty_window"),
    "frequency_penalty": ("frequency_penalty", "penalty_window"),
    "dry": ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_breakers", "penalty_window"),
    "no_repeat_ngram": ("no_repeat_ngram",),
    "banned": ("banned",),
    "min_new_tokens": ("min_new_tokens",),
    "grammar": ("grammar",),
    "temperature": ("temperature", "dynatemp_range", "dynatemp_exponent"),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
    "typical_p": ("typical_p",),
    "top_a": ("top_a",),
    "tfs": ("tfs_z",),
    "top_n_sigma": ("top_n_sigma",),
    "epsilon_cutoff": ("epsilon_cutoff",),
    "eta_cutoff": ("eta_cutoff",),
    "xtc": ("xtc_probability", "xtc_threshold"),
    "mirostat": ("mirostat_tau", "mirostat_eta"),
}
"""Filter -> its parameters; the first one switches it on (for temperature, the second does too)."""

ORDER = tuple(FILTERS)
"""The order in which filters act by default: that of Hugging Face transformers, the others fitted in."""

NEUTRAL: dict[str, Any] = {
    "logit_bias": (), "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "dry_multiplier": 0.0, "no_repeat_ngram": 0, "banned": (), "min_new_tokens": 0, "grammar": None,
    "temperature": 1.0, "dynatemp_range": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "top_a": 0.0,
    "tfs_z": 1.0, "top_n_sigma": 0.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "xtc_probability": 0.0,
    "mirostat_tau": 0.0,
}  # fmt: skip
"""The value of each switch at which its filter does nothing."""

LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0), "dynatemp_range": (0.0, 5.0), "dynatemp_exponent": (0.01, 10.0),
    "top_k": (0, 1_000_000), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "typical_p": (0.0, 1.0), "top_a": (0.0, 1.0),
    "tfs_z": (0.0, 1.0), "top_n_sigma": (0.0, 100.0), "epsilon_cutoff": (0.0, 1.0), "eta_cutoff": (0.0, 1.0),
    "xtc_probability": (0.0, 1.0), "xtc_threshold": (0.0, 1.0), "mirostat_tau": (0.0, 20.0),
    "mirostat_eta": (0.0, 1.0), "repetition_penalty": (0.1, 10.0), "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0), "penalty_window": (0, 1_000_000), "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 10.0), "dry_allowed_length": (1, 1_000), "no_repeat_ngram": (0, 1_000),
    "min_new_tokens": (0, 1_000_000), "max_new_tokens": (1, 1_000_000),
}  # fmt: skip
"""Smallest and largest value of each number, both allowed except 0 for those in ABOVE."""

ABOVE = ("top_p", "typical_p", "tfs_z")
WHOLE = ("top_k", "penalty_window", "dry_allowed_length", "no_repeat_ngram", "min_new_tokens", "max_new_tokens")

BIAS = 100.0
"""The largest bias, up or down."""

GRAMMARS = ("json_schema", "regex", "choice")
"""Kinds of grammar: a JSON schema, a regular expression, one choice a line."""

PRESETS: dict[str, dict[str, Any]] = {
    "neutral": {},
    "greedy": {"temperature": 0.0},
    "precise": {"temperature": 0.3, "top_p": 0.9},
    "balanced": {"temperature": 0.7, "top_k": 40, "top_p": 0.95},
    "creative": {"temperature": 1.2, "min_p": 0.05, "xtc_probability": 0.5, "dry_multiplier": 0.8},
}
"""Name -> what differs from neutral."""


@dataclass(frozen=True)
class SamplingParams:
    """Everything that decides how a token is chosen, but for the seed. Immutable: change it by replacing it whole.

    temperature 0 is greedy; the other switches are off at their NEUTRAL values. Lists are taken as tuples:
    `stop` ends the reply, `banned` never occurs in it, `dry_breakers` end a repetition, `logit_bias` holds
    (token ids, bias) pairs, `grammar` is (kind, text) with a kind of GRAMMARS. Penalties look at the last
    `penalty_window` tokens, 0 = all. `order` names filters in the order in which they act; those left out follow.
    Raises ValueError, which begins with the parameter's name, for what is out of range.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    typical_p: float = 1.0
    top_a: float = 0.0
    tfs_z: float = 1.0
    top_n_sigma: float = 0.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat_tau: float = 0.0
    mirostat_eta: float = 0.1
    penalty_window: int = 0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    no_repeat_ngram: int = 0
    logit_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    banned: tuple[str, ...] = ()
    min_new_tokens: int = 0
    grammar: tuple[str, str] | None = None
    order: tuple[str, ...] = ORDER

    def __post_init__(self) -> None:
        for name in LIMITS:
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        for name in ("stop", "banned", "dry_breakers"):
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "grammar", _grammar(self.grammar))
        object.__setattr__(self, "order", _order(self.order))

    def replace(self, **changes: Any) -> "SamplingParams":
        """A copy with some values changed. Raises ValueError for an unknown name or a value out of range."""
        known = [f.name for f in fields(self)]
        unknown = set(changes) - set(known)
        if unknown:
            raise ValueError(
                f"there is no sampling parameter {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            )
        return replace(self, **changes)

    def active(self) -> tuple[str, ...]:
        """The filters that do something, in the order in which they act."""
        return self._active

    @cached_property
    def _active(self) -> tuple[str, ...]:
        return tuple(name for name in self.order if self._acts(name))

    def _acts(self, name: str) -> bool:
        switches = FILTERS[name][:2] if name == "temperature" else FILTERS[name][:1]
        return any(getattr(self, switch) != NEUTRAL[switch] for switch in switches)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `SamplingParams(**values)` takes them back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {name: list(values[name]) for name in ("stop", "banned", "dry_breakers", "order")}
        bias = [[list(tokens), value] for tokens, value in self.logit_bias]
        return {**values, **lists, "logit_bias": bias, "grammar": list(self.grammar) if self.grammar else None}


def _number(name: str, value: Any) -> float | int:
    low, high = LIMITS[name]
    whole, above = name in WHOLE, name in ABOVE
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not low <= value <= high or (whole and value != int(value)) or (above and value == low):
        kind = "a whole number" if whole else "a number"
        raise ValueError(
            f"{name} must be {kind} {f'above {low}, at most' if above else f'from {low} to'} {high}, got {value!r}"
        )
    return int(value) if whole else float(value)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of strings that are not empty, got {value!r}")
    value = tuple(value)
    if not all(isinstance(s, str) and s for s in value):
        raise ValueError(f"{name} must be a list of strings that are not empty, got {list(value)!r}")
    return value


def _biases(value: Any) -> tuple[tuple[tuple[int, ...], float], ...]:
    try:
        pairs = tuple((tuple(tokens), float(bias)) for tokens, bias in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"logit_bias must be a list of pairs [[token ids], bias], got {value!r}") from error
    for tokens, bias in pairs:
        if not tokens or not all(isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in tokens):
            raise ValueError(
                f"logit_bias needs at least one token id in each pair, none negative, got {list(tokens)!r}"
            )
        if not -BIAS <= bias <= BIAS:
            raise ValueError(f"logit_bias must be from {-BIAS:g} to {BIAS:g} for each token, got {bias!r}")
    return pairs


def _grammar(value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    kind, text = value if isinstance(value, tuple | list) and len(value) == 2 else (None, None)
    if kind not in GRAMMARS or not isinstance(text, str) or not text.strip():
        raise ValueError(f"grammar must be [kind, text] with a kind of {', '.join(GRAMMARS)} and a text, got {value!r}")
    return kind, text


def _order(value: Any) -> tuple[str, ...]:
    names = _strings("order", value)
    unknown = [name for name in names if name not in FILTERS]
    if unknown or len(set(names)) < len(names):
        raise ValueError(f"order must name filters once each; there are {', '.join(ORDER)}, got {list(names)!r}")
    return (*names, *(name for name in ORDER if name not in names))
