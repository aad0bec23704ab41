"""Layers whose weights stay as their file stores them, in few bits, swapped in for those of model.py.

A weight is scale * code + minimum, with one scale and one minimum for every 16 or 32 inputs of an output, and codes of
4 or 8 bits; or it is a number of 16 bits. The products are exact: weights become floats in registers and all arithmetic
is float32 (product.h), so a model computes what its float32 weights would, from a sixth to a half of the bytes, which
is what decoding waits for. A row's result does not depend on what stands beside it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn

from gpt.bindings import Matrix
from gpt.groups import Groups
from gpt.model import RMSNorm
from gpt.native import kernels

__all__ = [
    "HalfLinear",
    "PackedLinear",
    "QuantEmbedding",
    "QuantLinear",
    "QuickRMSNorm",
    "StackedLinear",
    "is_packed",
    "linear_of",
    "precision_of",
    "with_quick_norms",
]


Stored = Groups | Tensor
"""A matrix as a file stores it: in groups of codes, or numbers (out, in) of float16 or bfloat16."""


class PackedLinear(nn.Module, ABC):
    """y = x W^T + b: x (..., in) float32 -> (..., out) float32. Needs `native.kernels()`."""

    def __init__(self, shape: Sequence[int], bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.register_parameter("bias", bias)

    @abstractmethod
    def matrix(self, start: int, stop: int, bias: Tensor | None) -> Matrix:
        """Outputs start..stop-1 for the kernels, which `start` must divide into whole vectors; valid while we live."""

    @abstractmethod
    def look_up(self, rows: Tensor) -> Tensor:
        """The weights (..., in) float32 of the outputs `rows` (...) int64."""

    def matrices(self, parts: int = 1) -> list[Matrix]:
        """The whole as so many equal parts, one below the other."""
        size = self.out_features // parts
        return [self.matrix(at, at + size, _part(self.bias, at)) for at in range(0, self.out_features, size)]

    def forward(self, x: Tensor) -> Tensor:
        return kernels().linear(x, self._whole)

    @cached_property
    def _whole(self) -> Matrix:
        return self.matrix(0, self.out_features, self.bias)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), float32; made anew at each call."""
        return self.look_up(torch.arange(self.out_features))


class QuantLinear(PackedLinear):
    """A matrix in groups of codes."""

    def __init__(self, groups: Groups, bias: nn.Parameter | None = None) -> None:
        super().__init__(groups.codes.shape, bias)
        self.bits = groups.bits
        self.register_buffer("packed", kernels().pack(groups.codes, groups.bits))
        self.register_buffer("scales", kernels().pack_scales(groups.scale, groups.minimum))

    def matrix(self, start: int, stop: int, bias: Tensor | None) -> Matrix:
        first = start // kernels().lanes
        shape = stop - start, self.in_features
        return kernels().matrix(self.packed[first:], self.scales[first:], shape, self.bits, bias=bias)

    def look_up(self, rows: Tensor) -> Tensor:
        codes, scale, minimum = kernels().unpack(self.packed, self.scales, rows, self.bits)
        codes = codes.unflatten(-1, (scale.shape[-1], -1))
        return (codes * scale[..., None] + minimum[..., None]).flatten(-2)


class HalfLinear(PackedLinear):
    """A matrix of float16 or bfloat16 numbers."""

    def __init__(self, numbers: Tensor, bias: nn.Parameter | None = None) -> None:
        super().__init__(numbers.shape, bias)
        self.stored = numbers.dtype
        self.register_buffer("packed", kernels().pack_halves(numbers))

    def matrix(self, start: int, stop: int, bias: Tensor | None) -> Matrix:
        packed, shape = self.packed[start // kernels().lanes :], (stop - start, self.in_features)
        return kernels().matrix(packed, None, shape, 16, self.stored == torch.float16, bias)

    def look_up(self, rows: Tensor) -> Tensor:
        return kernels().unpack_halves(self.packed, rows, self.stored).float()


def _part(bias: Tensor | None, start: int) -> Tensor | None:
    return None if bias is None else bias[start:]


class StackedLinear(nn.Module):
    """Matrices of the same inputs that are stored in different ways, one below the other, and held as one."""

    def __init__(self, parts: list[Stored], bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(map(_linear, parts))
        self.register_parameter("bias", bias)

    def matrices(self) -> list[Matrix]:
        """Those of the parts, for the kernels; valid while we live."""
        ends = accumulate((part.out_features for part in self.parts), initial=0)
        return [
            part.matrix(0, part.out_features, _part(self.bias, at)) for part, at in zip(self.parts, ends, strict=False)
        ]

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([part(x) for part in self.parts], dim=-1)
        return y if self.bias is None else y.add_(self.bias)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), float32; made anew at each call."""
        return torch.cat([part.weight for part in self.parts])


class QuantEmbedding(nn.Module):
    """Rows of a packed table, float32 when they are looked up; the table may be the output matrix itself."""

    def __init__(self, table: PackedLinear) -> None:
        super().__init__()
        self.table = table

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table.look_up(tokens)


class QuickRMSNorm(nn.Module):
    """What RMSNorm of model.py computes, float32, in one call."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels().rms_norm(x, self.weight, self.eps)


def with_quick_norms(model: nn.Module) -> None:
    """Put QuickRMSNorm in the place of every RMSNorm."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, RMSNorm):
                setattr(module, name, QuickRMSNorm(child))


def linear_of(parts: list[Stored], bias: nn.Parameter | None) -> PackedLinear | StackedLinear:
    """The layer for matrices one below the other."""
    parts = _joined(parts)
    return _linear(parts[0], bias) if len(parts) == 1 else StackedLinear(parts, bias)


def _linear(stored: Stored, bias: nn.Parameter | None = None) -> PackedLinear:
    return HalfLinear(stored, bias) if isinstance(stored, Tensor) else QuantLinear(stored, bias)


def _joined(parts: list[Stored]) -> list[Stored]:
    """Neighbours that are stored alike as one matrix."""
    joined: list[Stored] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Tensor) and isinstance(last, Tensor) and part.dtype == last.dtype:
            joined[-1] = torch.cat((last, part))
        elif isinstance(part, Groups) and isinstance(last, Groups) and (last.bits, last.size) == (part.bits, part.size):
            columns = zip(last[:3], part[:3], strict=True)
            joined[-1] = Groups(*map(torch.cat, columns), part.bits)
        else:
            joined.append(part)
    return joined


def is_packed(model: nn.Module) -> bool:
    """Whether any matrix of the model is left as its file stores it."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def precision_of(model: nn.Module) -> str:
    """What most weights of a model are held in, for people: "int4", "int8", "float32", ..."""
    held: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, PackedLinear):
            name = f"int{module.bits}" if isinstance(module, QuantLinear) else _short(module.stored)
            held[name] = held.get(name, 0) + module.out_features * module.in_features
    for parameter in model.parameters():
        name = _short(parameter.dtype)
        held[name] = held.get(name, 0) + parameter.numel()
    return max(held, key=held.get)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
