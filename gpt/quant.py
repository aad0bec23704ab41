"""Layers whose weights stay in the groups of codes of their file, swapped in for those of model.py.

A weight is scale * code + minimum, with one scale and one minimum for every 16 or 32 inputs of an output, and codes of
4 or 8 bits. The products are exact: codes become floats in registers and all arithmetic is float32 (product.h), so a
model computes what its dequantised weights would, from a sixth to three eighths of the bytes, which is what decoding
waits for. A row's result does not depend on what stands beside it.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn

from gpt.groups import Groups
from gpt.model import RMSNorm
from gpt.native import Matrix, kernels

__all__ = [
    "QuantEmbedding",
    "QuantLinear",
    "QuickRMSNorm",
    "StackedLinear",
    "is_quantised",
    "linear_of",
    "precision_of",
    "with_quick_norms",
]


class QuantLinear(nn.Module):
    """y = x W^T + b with a matrix in groups: x (..., in) float32 -> (..., out) float32.

    Needs `native.kernels()`.
    """

    def __init__(self, groups: Groups, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = groups.codes.shape
        self.bits = groups.bits
        self.register_buffer("packed", kernels().pack(groups.codes, groups.bits))
        self.register_buffer("scales", kernels().pack_scales(groups.scale, groups.minimum))
        self.register_parameter("bias", bias)
        self._matrix = self.matrix(0, self.out_features, bias)

    def matrix(self, start: int, stop: int, bias: Tensor | None) -> Matrix:
        """Outputs start..stop-1 for the kernels, which `start` must divide into whole vectors; valid while we live."""
        first = start // kernels().lanes
        return kernels().matrix(
            self.packed[first:], self.scales[first:], self.in_features, stop - start, self.bits, bias
        )

    def matrices(self, parts: int = 1) -> list[Matrix]:
        """The whole as so many equal parts, one below the other."""
        size = self.out_features // parts
        return [self.matrix(at, at + size, _part(self.bias, at)) for at in range(0, self.out_features, size)]

    def forward(self, x: Tensor) -> Tensor:
        return kernels().linear(x, self._matrix)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), float32; made anew at each call."""
        return kernels().linear(torch.eye(self.in_features), self.matrix(0, self.out_features, None)).T.contiguous()


def _part(bias: Tensor | None, start: int) -> Tensor | None:
    return None if bias is None else bias[start:]


class StackedLinear(nn.Module):
    """Matrices of the same inputs and different codes, one below the other, that a model holds as one."""

    def __init__(self, parts: list[Groups], bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(QuantLinear(groups) for groups in parts)
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
    """Rows of a table in groups, dequantised when they are looked up; the table may be the output matrix itself."""

    def __init__(self, table: QuantLinear) -> None:
        super().__init__()
        self.table = table

    def forward(self, tokens: Tensor) -> Tensor:
        codes, scale, minimum = kernels().unpack(self.table.packed, self.table.scales, tokens, self.table.bits)
        codes = codes.unflatten(-1, (scale.shape[-1], -1))
        return (codes * scale[..., None] + minimum[..., None]).flatten(-2)


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


def linear_of(parts: list[Groups], bias: nn.Parameter | None) -> QuantLinear | StackedLinear:
    """The layer for matrices one below the other."""
    parts = _joined(parts)
    return QuantLinear(parts[0], bias) if len(parts) == 1 else StackedLinear(parts, bias)


def _joined(parts: list[Groups]) -> list[Groups]:
    """Neighbours of the same kind as one matrix."""
    joined: list[Groups] = []
    for part in parts:
        if joined and (joined[-1].bits, joined[-1].size) == (part.bits, part.size):
            columns = zip(joined.pop()[:3], part[:3], strict=True)
            part = Groups(*map(torch.cat, columns), part.bits)
        joined.append(part)
    return joined


def is_quantised(model: nn.Module) -> bool:
    """Whether any matrix of the model is left in its groups."""
    return any(isinstance(module, QuantLinear) for module in model.modules())


def precision_of(model: nn.Module) -> str:
    """What most weights of a model are held in, for people: "int4", "int8", "float32", ..."""
    held: dict[str, int] = {}
    for module in model.modules():
        if isinstance(module, QuantLinear):
            held[f"int{module.bits}"] = held.get(f"int{module.bits}", 0) + module.out_features * module.in_features
    for parameter in model.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        held[name] = held.get(name, 0) + parameter.numel()
    return max(held, key=held.get)
