"""The kernels of gpt/kernels, compiled on the machine that runs them: `kernels()`, or None where there is no compiler.

Compiling takes two seconds, once: the library is kept in the cache folder under a name that tells the source, the
compiler and the processor apart, and is used only after a product of its has come out right.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.catalog import home
from gpt.threads import all_threads

__all__ = ["Block", "Kernels", "Matrix", "kernels"]

SOURCES = Path(__file__).with_name("kernels")
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread")
_TARGETS = ("-march=native", "-mcpu=native")  # how compilers are told to use all that this processor has
_COMPILERS = ("cc", "gcc", "clang")
_GROUP = 32  # inputs that are summed apart where a matrix has no groups of its own
_SECONDS = 120  # after which a compiler is given up


class Matrix(ctypes.Structure):
    """A packed matrix as product.h knows it. Whoever makes one keeps its tensors."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "scales", "bias")),
        *((name, ctypes.c_long) for name in ("inputs", "outputs", "bits", "group", "halves")),
    )


class Block(ctypes.Structure):
    """What kernels.c needs of a layer: weights of the norms, matrices, how many heads are turned, their size."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm_1", "norm_2")),
        *((name, ctypes.c_double) for name in ("eps_1", "eps_2")),
        ("qkv", Matrix * 3),
        *((name, Matrix) for name in ("out", "gate", "up", "down")),
        *((name, ctypes.c_long) for name in ("count", "rotated", "head_dim")),
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

        Outputs are padded to whole blocks.
        """
        codes = self._whole_blocks(codes)
        if bits == 4:
            codes = codes[:, ::2] | codes[:, 1::2] << 4
        return codes.contiguous().view(torch.int32).unflatten(0, (-1, self.lanes)).transpose(1, 2).contiguous()

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

    def before_attention(self, block: Block, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Queries, keys and values (B, T, (H + 2 G) D) of x (B, T, C): norm, products, rotation by `Rotary.angles`."""
        x = x.contiguous()
        rows, turned = x.numel() // x.shape[-1], cos.shape[-1]
        qkv = x.new_empty(*x.shape[:-1], sum(part.outputs for part in block.qkv[: block.count]))
        at = (tensor.data_ptr() for tensor in (x, cos, sin))
        self._before_attention(
            ctypes.byref(block), *at, turned, cos.numel() // turned, qkv.data_ptr(), rows, all_threads()
        )
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


@functools.cache
def kernels() -> Kernels | None:
    """The kernels for this processor; None where they cannot be compiled, or compute something else."""
    for compiler in filter(shutil.which, filter(None, (os.environ.get("CC"), *_COMPILERS))):
        for target in _TARGETS:
            try:
                made = _library(compiler, (*_FLAGS, target))
            except (OSError, subprocess.SubprocessError):
                continue
            if _is_right(made):
                return made
    return None


def _library(compiler: str, flags: tuple[str, ...]) -> Kernels:
    """The library in the cache folder, made first if need be. Raises OSError or SubprocessError when it cannot be."""
    machine = _output(compiler, *flags, "-dM", "-E", "-x", "c", os.devnull)
    text = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    name = hashlib.sha256(machine + text + repr(flags).encode()).hexdigest()[:32]
    path = home() / "kernels" / f"{name}.so"
    with suppress(OSError):  # not there yet, or damaged
        return Kernels(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        _output(compiler, *flags, str(SOURCES / "kernels.c"), "-o", str(made), "-lm")  # a library after what needs it
        made.replace(path)  # whole or not at all, whoever else is at it
    return Kernels(path)


def _output(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout


def _is_right(made: Kernels) -> bool:
    """Whether small products, what one query reads, and a block equal what torch makes of the same numbers."""
    generator = torch.Generator().manual_seed(0)
    kinds = [(bits, group, halves) for bits, group in ((4, 32), (8, 32), (8, 16)) for halves in (False, True)]
    kinds += [(16, 32, False), (16, 32, True)]
    matrices = [_Random(made, kind, (made.block_size + 1, 64), generator) for kind in kinds]
    return all(m.is_right(made) for m in matrices) and _reads_right(made, generator) and _adds_right(made, generator)


class _Random:
    """A random matrix as the kernels know it, and in float64."""

    def __init__(
        self, made: Kernels, kind: tuple[int, int, bool], shape: tuple[int, int], generator: torch.Generator
    ) -> None:
        bits, group, halves = kind
        codes = torch.randint(0, 2 ** min(bits, 8), shape, generator=generator, dtype=torch.uint8)
        scale, minimum = torch.randn(2, shape[0], shape[1] // group, generator=generator)
        if halves:
            scale, minimum = scale.half().float(), minimum.half().float()
        terms = scale.double()[..., None] * codes.unflatten(1, (-1, group)), minimum.double()[..., None]
        self.exact, self.bound = sum(terms).flatten(1), 1e-5 * sum(term.abs() for term in terms).flatten(1)
        if bits == 16:
            numbers = self.exact.to(torch.float16 if halves else torch.bfloat16)
            self.exact, self._kept = numbers.double(), (made.pack_halves(numbers), None)
        else:
            self._kept = made.pack(codes, bits), made.pack_scales(scale, minimum)
        self.matrix = made.matrix(*self._kept, shape, bits, halves)

    def is_right(self, made: Kernels) -> bool:
        x = torch.linspace(-1, 1, 8 * self.exact.shape[1]).view(8, -1).sin()
        error = made.linear(x, self.matrix) - x.double() @ self.exact.T
        return bool(torch.all(error.abs() <= x.double().abs() @ self.bound.T))


def _reads_right(made: Kernels, generator: torch.Generator) -> bool:
    mask = torch.ones(70, 150, dtype=torch.bool).tril_(80)
    for D, T in ((D, T) for D in (24, 64, 128) for T in (1, 70)):
        q, k, v = (torch.randn(1, heads, n, D, generator=generator) for heads, n in ((4, T), (2, 150), (2, 150)))
        visible = mask if T > 1 else None
        expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), visible, enable_gqa=True)
        if not torch.allclose(made.attention(q, k, v, D**-0.5, visible).double(), expected, rtol=0, atol=1e-5):
            return False
    return True


def _adds_right(made: Kernels, generator: torch.Generator) -> bool:
    """A block of 2 + 1 heads of 16 numbers, with products as small as a model's."""
    C, D, inner, T = 64, 16, 2 * made.block_size, 5
    shapes = {"qkv": (4 * D, C), "out": (C, 2 * D), "gate": (inner, C), "up": (inner, C), "down": (C, inner)}
    m = {name: _Random(made, (4, 32, True), shape, generator) for name, shape in shapes.items()}
    norms = torch.rand(2, C, generator=generator)
    x, z, angles = (torch.randn(1, T, n, generator=generator) / 64 for n in (C, 2 * D, D))
    parts = (m[name].matrix for name in ("out", "gate", "up", "down"))
    block = Block(*(n.data_ptr() for n in norms), 1e-5, 1e-5, (Matrix * 3)(m["qkv"].matrix), *parts, 1, 3, D)

    def of(name: str, x: Tensor) -> Tensor:
        return x @ m[name].exact.T

    def normed(x: Tensor, i: int) -> Tensor:
        return F.rms_norm(x, (C,), norms[i].double(), 1e-5)

    qkv = of("qkv", normed(x.double(), 0)).view(T, 4, D)
    swapped = torch.cat((-qkv[..., D // 2 :], qkv[..., : D // 2]), dim=-1)
    cos, sin = angles.double().cos().view(T, 1, D), angles.double().sin().view(T, 1, D)
    qkv[:, :3] = (qkv * cos + swapped * sin)[:, :3]
    stream = x.double() + of("out", z.double())
    hidden = normed(stream, 1)
    added = stream + of("down", F.silu(of("gate", hidden)) * of("up", hidden))
    ours = made.before_attention(block, x, angles.cos(), angles.sin()), made.after_attention(block, x, z)
    pairs = zip(ours, (qkv.view(1, T, -1), added), strict=True)
    return all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4 * float(b.abs().max())) for a, b in pairs)
