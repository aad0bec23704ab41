"""Linear layers whose weights stay in the 4-bit groups of their file, swapped in for those of model.py.

A weight is scale * code + minimum, with one scale and one minimum for every GROUP inputs of an output. The product is
torch's packed int4 kernel: codes are unpacked in registers, inputs rounded to bfloat16, sums kept in float32, outputs
rounded to bfloat16. So a token reads an eighth of the bytes that float32 would read, which is what decoding waits for.
Codes of 8 bits are two products of 4 bits, exactly. The kernel gives every row the same bits whatever stands beside it.
Attention does not, and rounding to bfloat16 spreads its last bit: a text that is read at once or token by token differs
by as much as int4 does from float32.

Norms, attention, the residual stream and the cache stay in float32. What is lost: scales rounded to bfloat16, and the
rounding of inputs and outputs. Source: the packing of torch.ops.aten._weight_int4pack_mm_for_cpu.
"""

import torch
from torch import Tensor, nn

from gpt.weights import GROUP, Groups

__all__ = ["Int4Linear", "Int8Linear", "QuantEmbedding", "fits", "linear_of", "precision_of"]

_OUTPUTS = 16  # the kernel's packing takes so many outputs at once


class Int4Linear(nn.Module):
    """y = x W^T + b with 4-bit codes: x (..., in) float32 -> (..., out) float32."""

    def __init__(self, groups: Groups, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = groups.codes.shape
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(groups.codes.int(), 1)
        zeros = groups.minimum + 8 * groups.scale  # the kernel's codes go from -8 to 7
        scales = torch.stack((groups.scale, zeros), dim=-1).transpose(0, 1).contiguous().bfloat16()
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)  # (in / GROUP, out, 2)
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).bfloat16().contiguous()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales).float()
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], self.out_features)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in) that the products are made with, float32; made anew at each call."""
        return _matrix(self)


class Int8Linear(nn.Module):
    """As Int4Linear with 8-bit codes, code = 16 high + low: the sum of two such products."""

    def __init__(self, groups: Groups, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = groups.codes.shape
        self.high = Int4Linear(Groups(groups.codes // 16, 16 * groups.scale, groups.minimum))
        self.low = Int4Linear(Groups(groups.codes % 16, groups.scale, torch.zeros_like(groups.minimum)))
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.high(x) + self.low(x)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in) that the products are made with, float32; made anew at each call."""
        return _matrix(self)


def _matrix(linear: Int4Linear | Int8Linear) -> Tensor:
    """What a linear layer makes of each unit vector."""
    with torch.inference_mode():
        columns = linear(torch.eye(linear.in_features))
        return (columns if linear.bias is None else columns - linear.bias).T.contiguous()


class QuantEmbedding(nn.Module):
    """Rows of a table of codes of at most 8 bits, dequantised exactly when they are looked up."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        self.register_buffer("codes", groups.codes)
        self.register_buffer("scale", groups.scale)
        self.register_buffer("minimum", groups.minimum)

    def forward(self, tokens: Tensor) -> Tensor:
        codes = self.codes[tokens].float().unflatten(-1, (-1, GROUP))
        return (codes * self.scale[tokens][..., None] + self.minimum[tokens][..., None]).flatten(-2)


def linear_of(groups: Groups, bias: nn.Parameter | None) -> Int4Linear | Int8Linear:
    """The layer for codes of 4 or of 8 bits."""
    return (Int4Linear if groups.bits == 4 else Int8Linear)(groups, bias)


def fits(groups: Groups) -> bool:
    """Whether the kernel takes a matrix of this shape."""
    return groups.codes.shape[0] % _OUTPUTS == 0


def precision_of(model: nn.Module) -> str:
    """What a model computes with, for people: "int4", or the type of its weights."""
    if any(isinstance(module, Int4Linear) for module in model.modules()):
        return "int4"
    return str(next(model.parameters()).dtype).removeprefix("torch.")
