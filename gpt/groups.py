"""Quantised matrices as GGUF files store them: codes of few bits, with a scale and a minimum for every few inputs.

Nothing is lost: scale * code + minimum is what the `gguf` library dequantises to, rounded once. Sources: ggml's block
layouts, the `gguf` library.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor

__all__ = ["GROUPED", "Groups", "coded_bytes", "groups_of"]


_PIECE = 1 << 22  # bytes taken apart at once: what lies between the file and the codes needs little memory


class Groups(NamedTuple):
    """A quantised matrix: weight = scale * code + minimum.

    codes (out, in) uint8, of which 4 or 8 bits count; scale and minimum (out, in / size) float32.
    """

    codes: Tensor
    scale: Tensor
    minimum: Tensor
    bits: int = 4

    @property
    def size(self) -> int:
        """Inputs that share a scale and a minimum."""
        return self.codes.shape[1] // self.scale.shape[1]


Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Codes, scales and minima (out, n, ...) of n blocks a row."""


def groups_of(kind: Kind, rows: np.ndarray) -> Groups:
    """The matrix whose rows, as bytes (out, b), are stored as `kind`, one of GROUPED."""
    step = max(_PIECE // rows.shape[1], 1)
    whole: list[np.ndarray] = []
    for start in range(0, len(rows), step):
        columns = _columns(kind, rows[start : start + step])
        whole = whole or [np.empty((len(rows), x.shape[1]), x.dtype) for x in columns]
        for all_rows, some in zip(whole, columns, strict=True):
            all_rows[start : start + step] = some
    return Groups(*map(torch.from_numpy, whole), GROUPED[kind][1])


def _columns(kind: Kind, rows: np.ndarray) -> Iterable[np.ndarray]:
    """Codes, scales and minima (out, ...) of some rows."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return [x.reshape(len(rows), -1) for x in GROUPED[kind][0](rows.reshape(len(rows), -1, block_bytes))]


def _halves(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def _nibbles(data: np.ndarray) -> np.ndarray:
    """Bytes (..., b) as codes (..., 2 b): all low halves, then all high ones."""
    return np.concatenate((data & 15, data >> 4), axis=-1)


def _bits(data: np.ndarray, width: int) -> np.ndarray:
    """Bytes (..., b) as codes of `width` bits (..., 8 / width, b): the lowest of all bytes, then the next ones."""
    shifts = np.arange(0, 8, width, dtype=np.uint8)
    return data[..., None, :] >> shifts[:, None] & np.uint8(2**width - 1)


def _fifth_bits(data: np.ndarray) -> np.ndarray:
    """The bits of 4 bytes (..., 4), one for each of 32 codes, where a code has its fifth bit."""
    return np.unpackbits(data, axis=-1, bitorder="little") << 4


def _q4_0(blocks: np.ndarray) -> Columns:
    scale = _halves(blocks[..., :2])
    return _nibbles(blocks[..., 2:]), scale, -8 * scale


def _q4_1(blocks: np.ndarray) -> Columns:
    both = _halves(blocks[..., :4])
    return _nibbles(blocks[..., 4:]), both[..., :1], both[..., 1:]


def _q5_0(blocks: np.ndarray) -> Columns:
    scale = _halves(blocks[..., :2])
    return _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6]), scale, -16 * scale


def _q5_1(blocks: np.ndarray) -> Columns:
    both = _halves(blocks[..., :4])
    return _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8]), both[..., :1], both[..., 1:]


def _q8_0(blocks: np.ndarray) -> Columns:
    scale = _halves(blocks[..., :2])
    return blocks[..., 2:] + np.uint8(128), scale, -128 * scale  # signed bytes, from 0 on


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima (out, n, 8) of eight groups a block: numbers of 6 bits, times two common factors."""
    factors = _halves(blocks[..., :4])
    sixes = gguf.quants.Q4_K.get_scale_min(np.ascontiguousarray(blocks[..., 4:16]).reshape(-1, 12))
    scales, minima = (six.reshape(*blocks.shape[:2], 8).astype(np.float32) for six in sixes)
    return factors[..., :1] * scales, -factors[..., 1:] * minima


def _q4_k(blocks: np.ndarray) -> Columns:
    return _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32)), *_k_scales(blocks)


def _q5_k(blocks: np.ndarray) -> Columns:
    low = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32)).reshape(*blocks.shape[:2], 8, 32)
    return low | _bits(blocks[..., 16:48], 1) << 4, *_k_scales(blocks)


def _q6_k(blocks: np.ndarray) -> Columns:
    """Sixteen groups a block: their scales are signed bytes, times a common factor."""
    low = _bits(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64), 4).reshape(*blocks.shape[:2], 8, 32)
    high = _bits(blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 32), 2).reshape(*blocks.shape[:2], 8, 32)
    scale = _halves(blocks[..., 208:]) * blocks[..., 192:208].view(np.int8).astype(np.float32)
    return low | high << 4, scale, -32 * scale


GROUPED: dict[Kind, tuple[Callable[[np.ndarray], Columns], int]] = {
    Kind.Q4_0: (_q4_0, 4),
    Kind.Q4_1: (_q4_1, 4),
    Kind.Q4_K: (_q4_k, 4),
    Kind.Q5_0: (_q5_0, 8),
    Kind.Q5_1: (_q5_1, 8),
    Kind.Q5_K: (_q5_k, 8),
    Kind.Q6_K: (_q6_k, 8),
    Kind.Q8_0: (_q8_0, 8),
}
"""How each kind of quantisation is taken apart, and the bits that hold its codes here."""


def coded_bytes(kind: Kind, count: int) -> int:
    """What `count` weights of a kind take as quant.py holds them: codes, and a scale and a minimum for every group.

    Those of the newer kinds (_K) are products that only float32 holds exactly, the others fit into 16 bits.
    """
    group, each = 16 if kind is Kind.Q6_K else 32, 4 if kind.name.endswith("_K") else 2
    return count * GROUPED[kind][1] // 8 + count * 2 * each // group
