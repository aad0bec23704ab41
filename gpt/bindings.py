"""The functions of the compiled kernels as Python calls them: tensors in, tensors out.

Nothing here checks what it is given; native.py makes the only `Kernels` there is.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from gpt.threads import all_threads

__all__ = ["Block", "Kernels", "Matrix"]

_PIECE = 1 << 22  # codes packed at once
_GROUP = 32  # inputs that are summed apart where a matrix has no groups of its own


class Matrix(ctypes.Structure):
    """A packed matrix as product.h knows it. Whoever makes one keeps its tensors."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "bias")),
        *((name, ctypes.c_long) for name in ("inputs", "outputs", "bits", "group", "halves")),
    )


class Block(ctypes.Structure):
    """What kernels.c needs of a layer: norms, matrices, numbers of heads. Whoever makes one keeps its tensors."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm_1", "norm_2", "post_norm_1", "post_norm_2", "q_norm", "k_norm")),
        ("qkv", Matrix * 3),
        *((name, Matrix) for name in ("out", "gate", "up", "down")),
        *((name, ctypes.c_long) for name in ("count", "n_head", "n_kv_head", "head_dim", "gelu")),
        ("eps", ctypes.c_double),
    )


class Kernels:
    """The functions of the compiled library. Tensors are float32 unless it is said otherwise."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.lanes.restype = library.block_size.restype = ctypes.c_long
        self.lanes, self.block_size = library.lanes(), library.block_size()
        pointer, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_double
        signatures = {
            "linear": [pointer] * 3 + [number] * 2,
            "rms_norm": [pointer] * 3 + [number] * 2 + [real],
            "before_attention": [pointer] * 4 + [number] * 2 + [pointer] + [number] * 2,
            "attention": [pointer] * 6 + [real, number],
            "after_attention": [pointer] * 4 + [number] * 2,
        }
        for name, types in signatures.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, None
            setattr(self, f"_{name}", function)

    def pack(self, codes: Tensor, bits: int) -> Tensor:
        """Codes (out, in) uint8, of 4 or 8 bits, in the kernel's order: int32 (out / lanes, in * bits / 32, lanes).

        Outputs are padded to whole blocks. They are taken a few at a time, so that little is held twice.
        """
        step = self.block_size * max(_PIECE // (self.block_size * codes.shape[1]), 1)
        lanes = (len(codes) + -len(codes) % self.block_size) // self.lanes
        packed = torch.empty(lanes, codes.shape[1] * bits // 32, self.lanes, dtype=torch.int32)
        for start in range(0, len(codes), step):
            some = self._whole_blocks(codes[start : start + step])
            if bits == 4:
                some = some[:, ::2] | some[:, 1::2] << 4
            some = some.contiguous().view(torch.int32).unflatten(0, (-1, self.lanes)).transpose(1, 2)
            packed[start // self.lanes :][: len(some)] = some
        return packed

    def pack_scales(self, scale: Tensor, minimum: Tensor) -> Tensor:
        """Both (out, in / group) float32 in the kernel's order: (out / lanes, in / group, lanes, 2) float16 where that
        loses nothing, else (out / lanes, in / group, 2, lanes) float32.
        """
        both = self._whole_blocks(torch.stack((scale, minimum), dim=-1)).unflatten(0, (-1, self.lanes)).transpose(1, 2)
        halves = both.half()
        exact = torch.equal(halves.float(), both)
        return halves.contiguous() if exact else both.transpose(2, 3).contiguous()

    def pack_halves(self, numbers: Tensor) -> Tensor:
        """Numbers (out, in) float16 or bfloat16 in the kernel's order: int32 (out / lanes, in / 2, lanes)."""
        words = self._whole_blocks(numbers).contiguous().view(torch.int32)
        return words.unflatten(0, (-1, self.lanes)).transpose(1, 2).contiguous()

    def unpack_halves(self, packed: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Numbers (..., in) of the outputs `rows` (...) int64."""
        return packed.transpose(1, 2)[rows // self.lanes, rows % self.lanes].view(dtype)

    def unpack(self, packed: Tensor, scales: Tensor, rows: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
        """Codes (..., in) uint8, scale and minimum (..., in / group) float32 of the outputs `rows` (...) int64."""
        place = rows // self.lanes, rows % self.lanes
        codes = packed.transpose(1, 2)[place].view(torch.uint8)
        if bits == 4:
            codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2)
        both = scales.transpose(1, 2) if scales.dtype == torch.float16 else scales.permute(0, 3, 1, 2)
        return codes, *both[place].float().unbind(-1)

    def _whole_blocks(self, rows: Tensor) -> Tensor:
        missing = -len(rows) % self.block_size
        return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows

    def matrix(
        self,
        packed: Tensor,
        scales: Tensor | None,
        shape: tuple[int, int],
        bits: int,
        halves: bool = False,
        bias: Tensor | None = None,
    ) -> Matrix:
        """A matrix of `shape` (out, in) as packed above, and what is added to its products.

        `halves` tells float16 from bfloat16 where there are no scales.
        """
        outputs, inputs = shape
        if scales is None:
            return Matrix(packed.data_ptr(), None, _at(bias), inputs, outputs, bits, _GROUP, halves)
        group, halves = inputs // scales.shape[1], scales.dtype == torch.float16
        return Matrix(packed.data_ptr(), scales.data_ptr(), _at(bias), inputs, outputs, bits, group, halves)

    def linear(self, x: Tensor, matrix: Matrix) -> Tensor:
        """x W^T + bias (..., outputs) for x (..., inputs)."""
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], matrix.outputs)
        rows = x.numel() // matrix.inputs
        self._linear(ctypes.byref(matrix), x.data_ptr(), y.data_ptr(), rows, all_threads())
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last dimension of x, float32; of its shape."""
        x = x.contiguous()
        y, dim = torch.empty_like(x), x.shape[-1]
        self._rms_norm(x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // dim, dim, eps)
        return y

    def before_attention(self, block: Block, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        """Queries, keys and values (B, T, (H + 2 G) D) of x (B, T, C): norm, products, norms of heads, rotation.

        `angles` are those of `Rotary.angles`; without them nothing turns.
        """
        x = x.contiguous()
        cos, sin = angles or (None, None)
        turned, count = (0, 1) if cos is None else (cos.shape[-1], cos.numel() // cos.shape[-1])
        qkv = x.new_empty(*x.shape[:-1], sum(part.outputs for part in block.qkv[: block.count]))
        rows, at = x.numel() // x.shape[-1], (_at(tensor) for tensor in (x, cos, sin))
        self._before_attention(ctypes.byref(block), *at, turned, count, qkv.data_ptr(), rows, all_threads())
        return qkv

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """softmax(q k^T * scale) v: q (1, H, T, D), k and v (1, G, S, D) -> (1, H, T, D), a view of (T, H, D).

        Numbers of a head stand beside each other, and so do keys, and values. A query sees the keys for which mask
        (T, S) is True; without a mask query t of a `causal` one sees keys 0..t, else all.
        """
        (_, H, T, D), (_, G, S, _) = q.shape, k.shape
        z = q.new_empty(T, H, D)
        strides = q.stride(1), q.stride(2), k.stride(1), v.stride(1)
        shape = (ctypes.c_long * 10)(H, G, T, S, D, *strides, causal)
        mask = None if mask is None else mask.contiguous()
        at = (tensor.data_ptr() for tensor in (q, k, v))
        self._attention(*at, _at(mask), z.data_ptr(), shape, scale, all_threads())
        return z.transpose(0, 1)[None]

    def after_attention(self, block: Block, x: Tensor, z: Tensor) -> Tensor:
        """The residual stream (B, T, C) after a block: x (B, T, C) and what attention (B, T, H D) and the MLP add."""
        x, z = x.contiguous(), z.contiguous()
        y = torch.empty_like(x)
        at = (tensor.data_ptr() for tensor in (x, z, y))
        self._after_attention(ctypes.byref(block), *at, x.numel() // x.shape[-1], all_threads())
        return y


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
