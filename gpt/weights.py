"""The tensors of a checkpoint's files, GGUF or safetensors: their names, their shapes, and a way to copy one.

Nothing here knows what a tensor means. Files that are damaged or cut short are refused when they are opened, and
nothing is ever unpickled. Sources: the GGUF specification, the `gguf` library (dequantisation), `safetensors`.
"""

import math
import mmap
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gpt.groups import GROUPED, Groups, coded_bytes, groups_of

__all__ = ["CheckpointError", "GGUFFile", "SafeTensors"]

_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes of each
_HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
_PIECE = 1 << 19  # numbers dequantised at once: few enough to need little memory, enough to keep threads busy
_CODES = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.UINT16: "H",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT8: "b",
    GGUFValueType.INT16: "h",
    GGUFValueType.INT32: "i",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.BOOL: "?",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.FLOAT64: "d",
}  # the codes of `struct`


class CheckpointError(ValueError):
    """The checkpoint cannot be used. The message names the file, what is wrong with it and what to do."""


class SafeTensors:
    """One or several .safetensors files. `named` gives each tensor its name here, or None to leave it out."""

    def __init__(self, files: Iterable[Path], named: Callable[[str], str | None] = lambda full: full) -> None:
        self._named = named
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, str] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        for path in files:
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                for full in file.keys():  # noqa: SIM118 (not a dict)
                    self._place(path, full, file.get_slice(full))
        except SafetensorError as error:
            raise CheckpointError(f"has a broken {path.name} ({error}); fetch it again") from error

    def _place(self, path: Path, full: str, tensor: Any) -> None:
        name, kind = self._named(full), tensor.get_dtype()
        if name is None:
            return
        if kind not in _DTYPES:
            raise CheckpointError(f"stores {name} as {kind}; use full precision or a GGUF")
        self.shapes[name], self.kinds[name] = tuple(tensor.get_shape()), kind
        self._places[name] = path, full

    def nbytes(self, name: str) -> int:
        """What a tensor takes in its file."""
        return math.prod(self.shapes[name]) * _DTYPES[self.kinds[name]]

    def copy(self, name: str, out: Tensor, order: str = "plain", head_dim: int = 0) -> None:
        """Copy a tensor into `out`. The order is "plain", "transposed" for a matrix stored as (in, out), or "by head"
        where q, k and v of a head, head_dim rows each, come one after another.

        Raises CheckpointError when it cannot be read.
        """
        path, full = self._places[name]
        try:
            with safe_open(path, framework="pt") as file:  # anew each time: pages that were read are let go with it
                tensor = file.get_tensor(full)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"holds {name}, which cannot be read ({error}); fetch it again") from error
        if order == "by head":
            out, tensor = out.unflatten(0, (3, -1, head_dim)), tensor.unflatten(0, (-1, 3, head_dim)).transpose(0, 1)
        out.copy_(tensor.T if order == "transposed" and tensor.dim() == 2 else tensor)

    def is_packed(self, name: str, order: str = "plain") -> bool:
        """Whether a tensor is a matrix that `packed` gives."""
        shape = self.shapes[name]
        return _is_half(self.kinds[name], shape[::-1] if order == "transposed" else shape)

    @property
    def packed_bytes(self) -> int:
        """What a model takes whose matrices stay as they are stored, the other tensors in float32."""
        return sum(math.prod(shape) * (2 if self.is_packed(name) else 4) for name, shape in self.shapes.items())

    def packed(self, name: str, order: str = "plain", head_dim: int = 0) -> Tensor:
        """A matrix (out, in) in the 16 bits in which it is stored, the order as in `copy`. Raises as that."""
        shape = self.shapes[name]
        out = torch.empty(shape[::-1] if order == "transposed" else shape, dtype=_HALVES[self.kinds[name]])
        self.copy(name, out, order, head_dim)
        return out


def _is_half(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether it is a matrix (out, in) of 16-bit numbers whose inputs are a multiple of 32, as kernels want."""
    return kind in _HALVES and len(shape) == 2 and shape[1] % 32 == 0


class _Stored(NamedTuple):
    """A tensor of a GGUF file: the bytes start:stop of the file, in blocks of one quantisation."""

    kind: GGMLQuantizationType
    start: int
    stop: int


class _Header:
    """Reads the values at the start of a GGUF file one after another, and refuses to run past its end."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> memoryview:
        self.at += size
        if self.at > len(self.data):
            raise CheckpointError("ends in the middle of its header; it is cut short, fetch it again")
        return self.data[self.at - size : self.at]

    def numbers(self, code: str, count: int) -> list[Any]:
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def texts(self, count: int) -> list[str]:
        """`count` strings. A vocabulary and its merges are 100,000 of them, hence the bare loop."""
        data, at, end, unpack, texts = self.data, self.at, len(self.data), struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            start = at + 8
            at = start + unpack(data, at)[0] if start <= end else end + 1
            if at > end:
                break
            texts.append(str(data[start:at], "utf-8"))
        self.at = at
        self.take(0)
        return texts

    def value(self, kind: int) -> Any:
        if kind == GGUFValueType.STRING:
            return self.texts(1)[0]
        if kind == GGUFValueType.ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind == GGUFValueType.STRING:
                return self.texts(count)
            return self.numbers(self.code(kind), count)
        return self.number(self.code(kind))

    def code(self, kind: int) -> str:
        if kind not in _CODES:
            raise CheckpointError(f"holds metadata of the unknown type {kind}; it is damaged, fetch it again")
        return _CODES[kind]


class GGUFFile:
    """The metadata and the tensors of one GGUF file, which stays mapped into memory."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < 24:
            raise CheckpointError("is too short to be a GGUF file; fetch it again")
        self._data = np.memmap(path, mode="c")  # copy on write: torch warns about memory that it may not write
        header = _Header(memoryview(self._data))
        if header.take(4) != b"GGUF":
            raise CheckpointError("is not a GGUF file; give a .gguf file or a folder with config.json")
        version = header.number("I")
        if version not in (2, 3):
            raise CheckpointError(f"is GGUF version {version}; little-endian versions 2 and 3 are supported")
        n_tensors, n_fields = header.numbers("Q", 2)
        self.fields: dict[str, Any] = {}
        for _ in range(n_fields):
            key = header.value(GGUFValueType.STRING)
            self.fields[key] = header.value(header.number("I"))
        if self.fields.get("split.count", 1) != 1:
            raise CheckpointError(
                f"is one of {self.fields['split.count']} parts; join them with llama-gguf-split --merge"
            )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._stored: dict[str, _Stored] = {}
        self._read_places(header, n_tensors)

    def _read_places(self, header: _Header, count: int) -> None:
        kinds = {}
        for _ in range(count):
            name = header.value(GGUFValueType.STRING)
            self.shapes[name] = tuple(reversed(header.numbers("Q", header.number("I"))))
            kinds[name] = header.number("I"), header.number("Q")
        alignment = self.fields.get("general.alignment", 32)
        base = -(-header.at // alignment) * alignment  # rounded up
        for name, (kind, offset) in kinds.items():
            self._stored[name] = self._place(name, kind, base + offset)

    def _place(self, name: str, kind: int, start: int) -> _Stored:
        if kind not in gguf.GGML_QUANT_SIZES:
            raise CheckpointError(f"stores {name} in the unknown quantisation {kind}; use another file")
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if not self.shapes[name] or self.shapes[name][-1] % per_block:
            raise CheckpointError(f"stores rows of {name} in parts of blocks; it is damaged, fetch it again")
        stop = start + math.prod(self.shapes[name]) // per_block * block_bytes
        if stop > len(self._data):
            missing = stop - len(self._data)
            raise CheckpointError(f"is cut short, {missing} bytes of {name} are missing; fetch it again")
        return _Stored(GGMLQuantizationType(kind), start, stop)

    def copy(self, name: str, out: Tensor, order: str = "plain", head_dim: int = 0) -> None:
        """Dequantise a tensor into `out`, which is contiguous, piece by piece.

        The order is "plain", or "interleaved" where the rows of each head, head_dim of them, come as 0, D/2, 1, ...
        Raises CheckpointError for a kind of numbers that the `gguf` library cannot turn into floats.
        """
        kind, start, stop = self._stored[name]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        data = self._data[start:stop]
        if order == "interleaved":
            data = data.reshape(-1, head_dim // 2, 2, len(data) // out.shape[0]).swapaxes(1, 2)
        data, out, step = data.reshape(-1), out.view(-1), max(_PIECE // per_block, 1)
        for first in range(0, out.numel() // per_block, step):
            piece = data[first * block_bytes : (first + step) * block_bytes]
            out[first * per_block : (first + step) * per_block] = _dequantise(piece, kind, name)
        self._let_go(start, stop)

    def nbytes(self, name: str) -> int:
        """What a tensor takes in its file."""
        return self._stored[name].stop - self._stored[name].start

    @property
    def kinds(self) -> dict[str, str]:
        """What each tensor is stored as."""
        return {name: stored.kind.name for name, stored in self._stored.items()}

    def is_packed(self, name: str, order: str = "plain") -> bool:
        """Whether a tensor is a matrix that `packed` gives."""
        kind, shape = self._stored[name].kind, self.shapes[name]
        return (kind in GROUPED and len(shape) == 2) or _is_half(kind.name, shape)

    @property
    def packed_bytes(self) -> int:
        """What a model takes whose matrices stay as they are stored, the other tensors in float32."""
        return sum(map(self._packed_bytes, self.shapes))

    def _packed_bytes(self, name: str) -> int:
        kind, count = self._stored[name].kind, math.prod(self.shapes[name])
        if not self.is_packed(name):
            return 4 * count
        return coded_bytes(kind, count) if kind in GROUPED else 2 * count

    def packed(self, name: str, order: str = "plain", head_dim: int = 0) -> Groups | Tensor:
        """A matrix (out, in) in the groups or the 16 bits in which it is stored, `order` as in `copy`."""
        kind, start, stop = self._stored[name]
        if kind not in GROUPED:
            numbers = torch.empty(self.shapes[name], dtype=_HALVES[kind.name])
            self.copy(name, numbers, order, head_dim)
            return numbers
        rows = self._data[start:stop].reshape(self.shapes[name][0], -1)
        if order == "interleaved":
            rows = rows.reshape(-1, head_dim // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        groups = groups_of(kind, rows)
        self._let_go(start, stop)
        return groups

    def _let_go(self, start: int, stop: int) -> None:
        """Tell the system that these bytes of the file have been read and need not stay in memory."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages only: the others belong to neighbours too
            if stop - first >= mmap.PAGESIZE:
                self._data._mmap.madvise(mmap.MADV_DONTNEED, first, (stop - first) // mmap.PAGESIZE * mmap.PAGESIZE)


def _dequantise(data: np.ndarray, kind: GGMLQuantizationType, name: str) -> Tensor:
    try:
        return torch.from_numpy(gguf.dequantize(data[None], kind)[0])  # as one row: the library goes by 16 of them
    except NotImplementedError as error:
        raise CheckpointError(f"stores {name} as {kind.name}, which cannot be read; use another file") from error
