"""The KV cache, which keeps the post-rotary QUERIES beside keys and values, and each position's last hidden state.

Those extra writes are all that capture costs: any attention pattern is rebuilt later as softmax(q k^T / sqrt(D))
(interp.py), and the logits after any position by one product with the output matrix. So memory grows with the text,
not with its square nor with the vocabulary, and cutting or copying the cache cannot put what is shown and the text out
of step. Nothing here knows about tokens or models.

A step is: `reserve(n)`, one `append` per layer, `keep`, `advance(n)`. Rows at and after `length` are never read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt.config import GPTConfig
from gpt.model import Segment

__all__ = ["KVCache", "PackedCaches"]

BLOCK = 256  # positions by which the buffers grow


class KVCache:
    """What a model has computed for one sequence, for S = `length` positions.

    Queries (L, H, S, D), keys and values (L, G, S, D), hidden states after the last norm (S, C). `reads` are the
    positions at which each read of one or more tokens began: the same reads give the same numbers, bit for bit.
    """

    def __init__(
        self, config: GPTConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.length = 0
        self.reads: list[int] = []
        heads = (config.n_head, config.n_kv_head, config.n_kv_head)
        shapes = [*((config.n_layer, h, 0, config.head_dim) for h in heads), (1, 1, 0, config.n_embd)]
        self._buffers = tuple(torch.empty(shape, device=device, dtype=dtype) for shape in shapes)
        self._mask: Tensor | None = None
        self._causal = False

    @property
    def capacity(self) -> int:
        """Positions that fit before the buffers must grow."""
        return self._buffers[0].shape[2]

    @property
    def boundaries(self) -> tuple[int, ...]:
        """From where to where each read went: where they began, and where the last one ended."""
        return (*self.reads, self.length)

    @property
    def nbytes(self) -> int:
        """Bytes held, reserved space included."""
        return sum(b.nbytes for b in self._buffers)

    def queries(self) -> Tensor:
        """(L, H, S, D), a view."""
        return self._buffers[0][:, :, : self.length]

    def keys(self) -> Tensor:
        """(L, G, S, D), a view."""
        return self._buffers[1][:, :, : self.length]

    def values(self) -> Tensor:
        """(L, G, S, D), a view."""
        return self._buffers[2][:, :, : self.length]

    def hidden(self) -> Tensor:
        """(S, C), a view: what the output matrix makes the logits of the next token from."""
        return self._buffers[3][0, 0, : self.length]

    def reserve(self, n: int) -> None:
        """Make room for n new positions and decide what they may look at: the past, and each other up to themselves."""
        self._grow(self.length + n)
        self._causal = n > 1 and self.length == 0
        self._mask = None
        if n > 1 and self.length > 0:
            self._mask = torch.ones(n, self.length + n, dtype=torch.bool, device=self._buffers[0].device).tril_(
                self.length
            )

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> list[Segment]:
        """Write one layer's new q (1, H, n, D), k and v (1, G, n, D); return them with all keys and values so far."""
        start, end = self.length, self.length + q.shape[2]
        for buffer, new in zip(self._buffers, (q, k, v), strict=False):
            buffer[layer, :, start:end] = new[0]
        _, keys, values, _ = self._buffers
        return [(q, keys[None, layer, :, :end], values[None, layer, :, :end], self._mask, self._causal)]

    def keep(self, hidden: Tensor) -> None:
        """Write the hidden states (1, n, C) of the new positions."""
        self._buffers[3][0, 0, self.length : self.length + hidden.shape[1]] = hidden[0]

    def advance(self, n: int) -> None:
        """Count the n positions written since `reserve` as present."""
        if n:
            self.reads.append(self.length)
            self.length += n

    def extend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> None:
        """Take over n positions computed elsewhere: q (L, H, n, D), k and v (L, G, n, D), hidden (n, C)."""
        n = q.shape[2]
        self._grow(self.length + n)
        for buffer, new in zip(self._buffers, (q, k, v, hidden[None, None]), strict=True):
            buffer[:, :, self.length : self.length + n] = new
        self.advance(n)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and {self.length}, got {length}")
        self.length = length
        self.reads = [start for start in self.reads if start < length]

    def fork(self, length: int | None = None) -> "KVCache":
        """An independent copy of the first `length` positions (all by default)."""
        length = self.length if length is None else length
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and {self.length}, got {length}")
        copy = object.__new__(KVCache)
        copy.length, copy._mask, copy._causal = length, None, False
        copy.reads = [start for start in self.reads if start < length]
        copy._buffers = tuple(b[:, :, :length].clone() for b in self._buffers)
        return copy

    def _grow(self, need: int) -> None:
        if need <= self.capacity:
            return
        extra = -(-need // BLOCK) * BLOCK - self.capacity
        # A new tuple, never in place: a reader on another thread keeps the old buffers, whole.
        self._buffers = tuple(
            torch.cat((b, b.new_zeros(*b.shape[:2], extra, b.shape[3])), dim=2) for b in self._buffers
        )


class PackedCaches:
    """Several sequences in one forward: piece i of the packed positions, lengths[i] long, belongs to caches[i]."""

    def __init__(self, caches: Sequence[KVCache], lengths: Sequence[int]) -> None:
        self.caches, self.lengths = list(caches), list(lengths)

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> list[Segment]:
        """q (1, H, T, D), k and v (1, G, T, D) with T the sum of all lengths; one segment per sequence."""
        pieces = zip(*(x.split(self.lengths, dim=2) for x in (q, k, v)), strict=True)
        return [
            segment for cache, piece in zip(self.caches, pieces, strict=True) for segment in cache.append(layer, *piece)
        ]

    def keep(self, hidden: Tensor) -> None:
        """Hidden states (1, T, C) of all sequences."""
        for cache, piece in zip(self.caches, hidden.split(self.lengths, dim=1), strict=True):
            cache.keep(piece)

    def reserve(self) -> None:
        for cache, n in zip(self.caches, self.lengths, strict=True):
            cache.reserve(n)

    def advance(self) -> None:
        for cache, n in zip(self.caches, self.lengths, strict=True):
            cache.advance(n)
