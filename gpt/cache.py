"""The KV cache, which keeps the post-rotary QUERIES beside keys and values, and each position's last hidden state.

Those extra writes are all that capture costs: any attention pattern is rebuilt later as softmax(q k^T / sqrt(D))
(interp.py), and the logits after any position by one product with the output matrix. So memory grows with the text,
not with its square nor with the vocabulary, and cutting or copying the cache cannot put what is shown and the text out
of step. Where memory is bounded, queries are kept of the last positions only; keys and values never go, because
whoever looks at attention needs them; where a layer looks back through a window only, it is given the keys in it.
Nothing here knows about tokens or models.

A step is: `reserve(n)`, one `append` per layer, `keep`, `advance(n)`. Rows at and after `length` are never read.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gpt.config import GPTConfig
from gpt.model import Segment, sight_mask

__all__ = ["KVCache", "PackedCaches", "Reading"]

BLOCK = 256  # positions by which the buffers grow


class _Buffers(NamedTuple):
    """What is held, replaced by buffers that hold the same and more, so that a reader on another thread has either."""

    queries: Tensor  # (L, H, capacity - first, D)
    keys: Tensor  # (L, G, capacity, D)
    values: Tensor  # (L, G, capacity, D)
    hidden: Tensor  # (1, 1, capacity, C)
    first: int  # the first position whose query is here


class Reading(NamedTuple):
    """Views of one moment, for whoever reads while the text goes on: rows first..length-1 can be derived."""

    queries: Tensor  # (L, H, length - first, D)
    keys: Tensor  # (L, G, length, D)
    values: Tensor  # (L, G, length, D)
    first: int
    length: int
    config: GPTConfig  # what else scores are made with: the scale, a soft-cap, windows


Sight = tuple[int, Tensor | None, bool]
"""The first key that new queries look at, the mask over the keys from there on, and whether causality is enough."""


class KVCache:
    """What a model has computed for one sequence, for S = `length` positions.

    Queries (L, H, S - first, D), keys and values (L, G, S, D), hidden states after the last norm (S, C). `reads` are
    the positions at which each read of one or more tokens began: the same reads give the same numbers, bit for bit.
    `query_bytes` bounds what the queries may take, reserved space included: of a longer text, the last ones are kept.
    `changes` grows whenever positions come or go.
    """

    def __init__(
        self,
        config: GPTConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        query_bytes: int | None = None,
    ) -> None:
        self.config = config
        self.length = self.changes = 0
        self.reads: list[int] = []
        heads = (config.n_head, config.n_kv_head, config.n_kv_head)
        shapes = [*((config.n_layer, h, 0, config.head_dim) for h in heads), (1, 1, 0, config.n_embd)]
        self._buffers = _Buffers(*(torch.empty(shape, device=device, dtype=dtype) for shape in shapes), first=0)
        self.window = None
        if query_bytes is not None:
            row = config.n_layer * config.n_head * config.head_dim * dtype.itemsize
            self.window = max(query_bytes // row - BLOCK, BLOCK)
        self._sights: dict[int | None, Sight] = {}  # by window

    @property
    def capacity(self) -> int:
        """Positions that fit before the buffers must grow."""
        return self._buffers.keys.shape[2]

    @property
    def first_query(self) -> int:
        """The first position whose query is kept: 0, unless the text has outgrown `query_bytes`."""
        return min(self._buffers.first, self.length)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """From where to where each read went: where they began, and where the last one ended."""
        return (*self.reads, self.length)

    @property
    def nbytes(self) -> int:
        """Bytes held, reserved space included."""
        return sum(b.nbytes for b in self._buffers[:4])

    def reading(self) -> Reading:
        """Queries, keys and values of one moment, as views."""
        length = self.length  # first: what grows afterwards holds these positions too
        queries, keys, values, _, first = self._buffers
        length = min(length, keys.shape[2])  # and what is cut in between holds fewer
        first = min(first, length)
        kept = queries[:, :, : length - first], keys[:, :, :length], values[:, :, :length]
        return Reading(*kept, first, length, self.config)

    def queries(self) -> Tensor:
        """(L, H, S - first_query, D), a view."""
        return self.reading().queries

    def keys(self) -> Tensor:
        """(L, G, S, D), a view."""
        return self.reading().keys

    def values(self) -> Tensor:
        """(L, G, S, D), a view."""
        return self.reading().values

    def hidden(self) -> Tensor:
        """(S, C), a view: what the output matrix makes the logits of the next token from."""
        return self._buffers.hidden[0, 0, : self.length]

    def expect(self, length: int) -> None:
        """Make room for that many positions at once, for a text that is read piece by piece."""
        self._grow(length)

    def reserve(self, n: int) -> None:
        """Make room for n new positions and decide what they may look at: the past, and each other up to themselves."""
        self._grow(self.length + n)
        self._sights = {window: self._sight(n, window or None) for window in set(self.config.windows) or {0}}

    def _sight(self, n: int, window: int | None) -> Sight:
        """What n new positions look at of the past, or of a window so many positions wide."""
        start, end = self.length, self.length + n
        if window is not None and window >= end:
            window = None
        first = 0 if window is None else max(start + 1 - window, 0)
        if n == 1:
            return first, None, False
        if start == 0 and window is None:
            return first, None, True
        return first, sight_mask(start, first, end, window, self._buffers[0].device), False

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> list[Segment]:
        """Write one layer's new q (1, H, n, D), k and v (1, G, n, D); return them with all keys and values so far."""
        start, end = self.length, self.length + q.shape[2]
        queries, keys, values, _, first = self._buffers
        kept = max(start, first)  # a prompt longer than the window leaves only its end
        queries[layer, :, kept - first : end - first] = q[0, :, kept - start :]
        keys[layer, :, start:end] = k[0]
        values[layer, :, start:end] = v[0]
        return [self._segment(layer, q, keys[layer, :, :end], values[layer, :, :end])]

    def _segment(self, layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Segment:
        """New q (1, H, n, D) with what they look at of a layer's keys and values (G, S, D)."""
        first, mask, causal = self._sights[self.config.windows[layer] if self.config.windows else 0]
        return q, keys[None, :, first:], values[None, :, first:], mask, causal

    def keep(self, hidden: Tensor) -> None:
        """Write the hidden states (1, n, C) of the new positions."""
        self._buffers.hidden[0, 0, self.length : self.length + hidden.shape[1]] = hidden[0]

    def advance(self, n: int) -> None:
        """Count the n positions written since `reserve` as present."""
        if n:
            self.reads.append(self.length)
            self.length += n
            self.changes += 1

    def extend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> None:
        """Take over n positions computed elsewhere: q (L, H, n, D), k and v (L, G, n, D), hidden (n, C)."""
        n = q.shape[2]
        self._grow(self.length + n)
        *buffers, first = self._buffers
        buffers[0] = buffers[0][:, :, max(self.length - first, 0) :]
        kept = max(first - self.length, 0)
        buffers[0][:, :, : n - kept] = q[:, :, kept:]
        for buffer, new in zip(buffers[1:], (k, v, hidden[None, None]), strict=True):
            buffer[:, :, self.length : self.length + n] = new
        self.advance(n)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and {self.length}, got {length}")
        if length < self._buffers.first:  # no query is left, and there is room for them again
            self._buffers = self._first_positions(length)
        self.changes += length < self.length
        self.length = length
        self.reads = [start for start in self.reads if start < length]

    def fork(self, length: int | None = None) -> "KVCache":
        """An independent copy of the first `length` positions (all by default)."""
        length = self.length if length is None else length
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be between 0 and {self.length}, got {length}")
        copy = object.__new__(KVCache)
        copy.config, copy.length, copy.window, copy._sights = self.config, length, self.window, {}
        copy.changes = 0
        copy.reads = [start for start in self.reads if start < length]
        copy._buffers = self._first_positions(length)
        return copy

    def _first_positions(self, length: int) -> _Buffers:
        """A copy of what is held of the first `length` positions."""
        first = min(self._buffers.first, length)
        queries = self._buffers.queries[:, :, : length - first].clone()
        return _Buffers(queries, *(b[:, :, :length].clone() for b in self._buffers[1:4]), first)

    def _grow(self, need: int) -> None:
        if need <= self.capacity:
            return
        capacity = -(-need // BLOCK) * BLOCK
        first = self._buffers.first
        since = first if self.window is None else max(first, need - self.window)
        queries = _lengthened(self._buffers.queries[:, :, since - first :], capacity - since)
        self._buffers = self._buffers._replace(queries=queries, first=since)
        del queries  # one after the other, so that only one is held twice
        for name in ("values", "hidden", "keys"):  # keys last: their length is the capacity
            longer = _lengthened(getattr(self._buffers, name), capacity)
            self._buffers = self._buffers._replace(**{name: longer})


def _lengthened(buffer: Tensor, positions: int) -> Tensor:
    longer = buffer.new_empty(*buffer.shape[:2], positions, buffer.shape[3])  # what is not written is not read either
    longer[:, :, : buffer.shape[2]] = buffer
    return longer


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
