"""From logits to a token: parameters, pure filters in a declared order, and the draw.

Every filter maps logits (V,) to logits (V,), with -inf for removed tokens, and equals the processor of the same name
in Hugging Face transformers. Randomness is an argument: `uniform(seed, position)` gives the draw u,
and `pick` inverts the cumulative distribution of the survivors in descending order, so the same prefix, seed and
parameters give the same token whatever happened before.

Sources: Keskar et al. 2019 (repetition penalty), Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al.
2024 (min-p); presence and frequency penalties as in the OpenAI API; SplitMix64 (Steele et al. 2014) for the draw.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["HEAD", "LIMITS", "ORDER", "SamplingParams", "Shaped", "pick", "shape_logits", "uniform"]

NEUTRAL: dict[str, float] = {
    "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
}  # fmt: skip
"""The value at which each filter does nothing."""

ORDER = tuple(NEUTRAL)
"""The order in which filters act: penalties, then those of Hugging Face transformers in its order."""

LIMITS: dict[str, tuple[float, float]] = {
    "repetition_penalty": (0.1, 10.0), "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0),
    "temperature": (0.0, 5.0), "top_k": (0, 1_000_000), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "max_new_tokens": (1, 1_000_000),
}  # fmt: skip
"""Smallest and largest value of each parameter, both allowed except top_p = 0."""

HEAD = 20
"""How many of the most probable tokens the draw takes in descending order."""

_WHOLE = ("top_k", "max_new_tokens")


@dataclass(frozen=True)
class SamplingParams:
    """Everything that decides how a token is chosen, but for the seed. Immutable: change it by replacing it whole.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off; the penalties are neutral at 1, 0 and 0 and look at
    all tokens before the one to be chosen. `stop` are strings that end the reply. Raises ValueError for what is out
    of range.
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

    def __post_init__(self) -> None:
        for name in LIMITS:
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if isinstance(self.stop, str) or not all(isinstance(s, str) and s for s in self.stop):
            raise ValueError(f"stop must be a list of strings that are not empty, got {self.stop!r}")
        object.__setattr__(self, "stop", tuple(self.stop))

    def replace(self, **changes: Any) -> "SamplingParams":
        """A copy with some values changed. Raises ValueError for an unknown name or a value out of range."""
        unknown = set(changes) - {f.name for f in fields(self)}
        if unknown:
            known = ", ".join(f.name for f in fields(self))
            raise ValueError(f"there is no sampling parameter {', '.join(sorted(unknown))}; there are {known}")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {f.name: list(self.stop) if f.name == "stop" else getattr(self, f.name) for f in fields(self)}


def _number(name: str, value: Any) -> float | int:
    low, high = LIMITS[name]
    whole = name in _WHOLE
    ok = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )
    if not ok or (whole and value != int(value)) or (name == "top_p" and value == 0):
        bounds = f"a whole number from {low} to {high}" if whole else f"a number from {low} to {high}"
        raise ValueError(f"{name} must be {'above 0 and ' if name == 'top_p' else ''}{bounds}, got {value!r}")
    return int(value) if whole else float(value)


# ---- filters: logits (V,) -> logits (V,) ---------------------------------------------------------


def penalise_repetition(logits: Tensor, penalty: float, counts: tuple[Tensor, Tensor]) -> Tensor:
    """Divide positive and multiply negative logits of every token seen so far by `penalty`."""
    tokens, _ = counts
    seen = logits[tokens]
    return logits.index_copy(0, tokens, torch.where(seen < 0, seen * penalty, seen / penalty))


def penalise_presence(logits: Tensor, penalty: float, counts: tuple[Tensor, Tensor]) -> Tensor:
    """Subtract `penalty` once from every token seen so far."""
    tokens, times = counts
    return logits.index_add(0, tokens, torch.full_like(times, -penalty))


def penalise_frequency(logits: Tensor, penalty: float, counts: tuple[Tensor, Tensor]) -> Tensor:
    """Subtract `penalty` for every time a token was seen so far."""
    tokens, times = counts
    return logits.index_add(0, tokens, times * -penalty)


def scale_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature; at 0 only the largest logit survives (the lowest id among equals)."""
    if temperature > 0:
        return logits / temperature
    best = logits.argmax()
    return torch.full_like(logits, -math.inf).index_copy(0, best[None], logits[best][None])


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits, and any that equal the k-th."""
    kth = logits.topk(min(k, logits.numel())).values[-1]
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose mass reaches p, at least one."""
    alive = logits.isfinite().nonzero().squeeze(1)
    order = logits[alive].sort(stable=True)  # ascending; of equals the lower id goes first
    removed = order.values.softmax(0).cumsum(0) <= 1 - p
    removed[-1] = False
    return logits.index_fill(0, alive[order.indices[removed]], -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as probable as the most probable one."""
    probs = logits.softmax(0)
    return logits.masked_fill(probs < p * probs.max(), -math.inf)


_PENALTIES = {
    "repetition_penalty": penalise_repetition,
    "presence_penalty": penalise_presence,
    "frequency_penalty": penalise_frequency,
}
_FILTERS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "temperature": scale_temperature, "top_k": keep_top_k, "top_p": keep_top_p, "min_p": keep_min_p,
}  # fmt: skip


# ---- putting them together -----------------------------------------------------------------------


@dataclass(frozen=True)
class Shaped:
    """What the filters made of one step's logits: tensors on the CPU, used within the step only."""

    probs: Tensor  # (V,) float32, the model's own distribution
    logprobs: Tensor  # (V,) float32, its natural logarithm
    final: Tensor  # (V,) float32, the distribution that was drawn from; 0 where removed
    removed: dict[str, Tensor]  # filter name -> (V,) bool, the tokens that it removed

    def removed_by(self, token: int) -> str | None:
        """The first filter that removed the token, or None if it survived."""
        return next((name for name, gone in self.removed.items() if gone[token]), None)


def shape_logits(logits: Tensor, params: SamplingParams, history: Sequence[int]) -> Shaped:
    """Run the active filters over logits (V,) float32. `history` are the tokens that the penalties look at."""
    logprobs = logits.log_softmax(0)
    removed: dict[str, Tensor] = {}
    shaped = logits
    counts = _counts(history, logits) if any(_active(params, name) for name in _PENALTIES) else None
    for name in ORDER:
        if not _active(params, name):
            continue
        value = getattr(params, name)
        if name in _PENALTIES:
            shaped = _PENALTIES[name](shaped, value, counts)
        else:
            before, shaped = shaped, _FILTERS[name](shaped, value)
            removed[name] = shaped.isneginf() & ~before.isneginf()
    return Shaped(logprobs.exp(), logprobs, shaped.softmax(0), removed)


def _active(params: SamplingParams, name: str) -> bool:
    return getattr(params, name) != NEUTRAL[name]


def _counts(history: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    tokens, times = torch.tensor(list(history), dtype=torch.int64, device=like.device).unique(return_counts=True)
    return tokens, times.to(like.dtype)


def pick(probs: Tensor, u: float) -> int:
    """The token at which the cumulative distribution (V,) first exceeds u in [0, 1).

    The HEAD most probable tokens come first, in descending order (equal ones by id), as the screen draws them; the
    others follow by id. In the long tail neighbours in probability differ by less than the rounding errors of two
    ways to compute the same logits, so an order by probability there would let one seed give two texts.
    """
    exact = probs.double()
    least = probs.topk(min(HEAD, probs.numel())).values[-1]
    head = ((probs >= least) & (probs > 0)).nonzero().squeeze(1)
    head = head[exact[head].sort(descending=True, stable=True).indices]
    rest = exact.index_fill(0, head, 0).nonzero().squeeze(1)
    order = torch.cat((head, rest))
    cumulative = exact[order].cumsum(0)
    index = int(torch.searchsorted(cumulative, u * cumulative[-1].item(), right=True))
    return int(order[min(index, len(order) - 1)])


def uniform(seed: int, position: int) -> float:
    """The draw for one position: a number in [0, 1) that depends on seed and position alone (SplitMix64, 53 bits)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
