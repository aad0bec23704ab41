"""The kernels of kernels.c, compiled on the machine that runs them: `kernels()`, or None where there is no compiler.

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
from torch import Tensor

from gpt.catalog import home
from gpt.threads import all_threads

__all__ = ["Kernels", "kernels"]

SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread")
_TARGETS = ("-march=native", "-mcpu=native")  # how compilers are told to use all that this processor has
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120  # after which a compiler is given up


class Kernels:
    """The functions of a compiled kernels.c."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.lanes.restype = library.block_size.restype = ctypes.c_long
        library.linear.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 7
        library.linear.restype = None
        library.rms_norm.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_long] * 2 + [ctypes.c_double]
        library.rms_norm.restype = None
        self.lanes, self.block_size = library.lanes(), library.block_size()
        self._linear, self._rms_norm = library.linear, library.rms_norm

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

    def linear(self, x: Tensor, packed: Tensor, scales: Tensor, out: int) -> Tensor:
        """x W^T (..., out) for x (..., in) float32 and a matrix of `out` outputs as packed above."""
        inputs, groups = x.shape[-1], scales.shape[1]
        bits = 32 * packed.shape[1] // inputs
        x = x.contiguous()
        rows = x.numel() // inputs
        y, sums = x.new_empty(*x.shape[:-1], out), x.new_empty(rows * groups)
        self._linear(
            x.data_ptr(),
            sums.data_ptr(),
            packed.data_ptr(),
            scales.data_ptr(),
            y.data_ptr(),
            rows,
            inputs,
            out,
            bits,
            inputs // groups,
            scales.dtype == torch.float16,
            all_threads(),
        )
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last dimension of x, float32; of its shape."""
        x = x.contiguous()
        y, dim = torch.empty_like(x), x.shape[-1]
        self._rms_norm(x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // dim, dim, eps)
        return y


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
    name = hashlib.sha256(machine + SOURCE.read_bytes() + repr(flags).encode()).hexdigest()[:32]
    path = home() / "kernels" / f"{name}.so"
    with suppress(OSError):  # not there yet, or damaged
        return Kernels(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        _output(compiler, *flags, str(SOURCE), "-o", str(made), "-lm")  # a library after what needs it
        made.replace(path)  # whole or not at all, whoever else is at it
    return Kernels(path)


def _output(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout


def _is_right(made: Kernels) -> bool:
    """Whether small products equal those of the matrices that they are made with."""
    generator = torch.Generator().manual_seed(0)
    for bits, group, halves in ((b, g, h) for b, g in ((4, 32), (8, 32), (8, 16)) for h in (False, True)):
        codes = torch.randint(0, 2**bits, (made.block_size + 1, 64), generator=generator, dtype=torch.uint8)
        scale, minimum = torch.randn(2, len(codes), 64 // group, generator=generator)
        if halves:
            scale, minimum = scale.half().float(), minimum.half().float()
        x = torch.randn(8, 64, generator=generator)
        terms = scale.double()[..., None] * codes.unflatten(1, (-1, group)), minimum.double()[..., None]
        matrix, bound = sum(terms).flatten(1), 1e-5 * sum(term.abs() for term in terms).flatten(1)
        y = made.linear(x, made.pack(codes, bits), made.pack_scales(scale, minimum), len(codes))
        if not torch.all((y - x.double() @ matrix.T).abs() <= x.double().abs() @ bound.T):
            return False
    return True
