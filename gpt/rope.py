"""The frequencies of rotary positions, plain or stretched for a longer context than a model was first trained on.

All are fixed numbers: what a position turns by never depends on the length of the text, so that keys in a cache stay
right. Two schemes of others do depend on it once a text outgrows the original context (dynamic NTK, and the long half
of LongRoPE): what they compute then depends on how a text was cut into steps, so their models run in the original
context, where both are fixed too.

Sources: Su et al. 2021 (RoPE), kaiokendev 2023 (linear), Peng et al. 2023 (YaRN), Dubey et al. 2024 (Llama 3), Ding et
al. 2024 (LongRoPE: a divisor a dimension); computed in float32, in the order in which Hugging Face transformers does.
"""

import math

import torch
from torch import Tensor

from gpt.config import Rope

__all__ = ["frequencies"]


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """The angle a position of each pair of dimensions (i, i + dim/2): (dim/2,) float32 on the CPU."""
    dim = rope.dim or head_dim
    periods = rope.theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if rope.kind == "linear":
        return 1.0 / periods / rope.factor
    if rope.kind == "divided":
        return 1.0 / (torch.tensor(rope.divisors) * periods)
    if rope.kind == "llama3":
        return _llama3(1.0 / periods, rope)
    if rope.kind == "yarn":
        return _yarn(periods, rope, dim)
    return 1.0 / periods


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """High frequencies stay, low ones are divided; between, a blend by the turns in the original context."""
    length = 2 * math.pi / plain  # positions a turn
    stretched = torch.where(length > rope.original / rope.low, plain / rope.factor, plain)
    share = (rope.original / length - rope.low) / (rope.high - rope.low)
    blend = (1 - share) * stretched / rope.factor + share * stretched
    between = (length >= rope.original / rope.high) & (length <= rope.original / rope.low)
    return torch.where(between, blend, stretched)


def _yarn(periods: Tensor, rope: Rope, dim: int) -> Tensor:
    """Dimensions that turn often stay, those that turn rarely are divided, a ramp over the dimensions between."""

    def dimension(turns: float) -> float:
        return dim * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    first, last = dimension(rope.high), dimension(rope.low)
    if rope.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - first) / (last - first if last != first else 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return 1.0 / (rope.factor * periods) * (1 - kept) + 1.0 / periods * kept
