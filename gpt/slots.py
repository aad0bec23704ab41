"""Keys and values of several conversations in buffers that never move, so that a step can be recorded and repeated.

A slot mirrors what one KVCache holds. The caches stay the owners: what a step computes is handed back to them, and a
slot whose cache has changed in the meantime is filled anew. All indices live on the device: nothing about a step
depends on numbers that Python knows. Rows of a slot at and after its position are never read.
"""

import weakref

import torch
from torch import Tensor

from gpt.cache import KVCache
from gpt.config import GPTConfig
from gpt.model import Segment

__all__ = ["Slots"]

_SHORTEST = 256  # positions of a slot at least


class Slots:
    """`count` slots of `length` positions; row i of a step's batch belongs to slot i.

    A step is: `place` the caches, `prepare`, the model with this as its cache, `collect`.
    """

    def __init__(self, config: GPTConfig, device: torch.device, dtype: torch.dtype, count: int, need: int) -> None:
        self.config, self.count = config, count
        self.length = max(_SHORTEST, 1 << (need - 1).bit_length())
        L, H, G, D = config.n_layer, config.n_head, config.n_kv_head, config.head_dim
        options = {"device": device, "dtype": dtype}
        self.tokens = torch.zeros(count, dtype=torch.int64, device=device)
        self.positions = torch.zeros(count, dtype=torch.int64, device=device)
        self._keys, self._values = torch.zeros(2, L, count, G, self.length, D, **options)
        self._q = torch.zeros(L, count, H, D, **options)  # of the step
        self._k, self._v = torch.zeros(2, L, count, G, D, **options)
        self._hidden = torch.zeros(count, config.n_embd, **options)
        self._owners: list[tuple[weakref.ref[KVCache], int] | None] = [None] * count  # and its changes so far
        self._masks: dict[int | None, Tensor] = {}

    def fits(self, caches: list[KVCache]) -> bool:
        """Whether one more token of each finds room."""
        return len(caches) <= self.count and all(cache.length < self.length for cache in caches)

    def place(self, caches: list[KVCache], tokens: list[int]) -> list[int]:
        """The slot of each cache, filled where it does not mirror it already; their tokens and positions are set."""
        slots = self._slots_of(caches)
        inputs = torch.zeros(2, self.count, dtype=torch.int64)
        for cache, token, slot in zip(caches, tokens, slots, strict=True):
            if self._owner(slot) is not cache or self._owners[slot][1] != cache.changes:
                reading = cache.reading()
                self._keys[:, slot, :, : reading.length] = reading.keys
                self._values[:, slot, :, : reading.length] = reading.values
            inputs[0, slot], inputs[1, slot] = token, cache.length
        for slot in set(range(self.count)) - set(slots):  # its row is computed all the same, and may spoil no key
            owner = self._owner(slot)
            self._owners[slot] = self._owners[slot] if owner and owner.length < self.length else None
            inputs[1, slot] = owner.length if self._owners[slot] else 0
        self.tokens.copy_(inputs[0])
        self.positions.copy_(inputs[1])
        return slots

    def prepare(self) -> None:
        """Decide on the device what every row may look at."""
        ago = self.positions[:, None] - torch.arange(self.length, device=self.positions.device)  # (count, length)
        past = ago >= 0
        windows = {self.config.window(layer) for layer in range(self.config.n_layer)}
        self._masks = {w: (past if w is None else past & (ago < w))[:, None, None] for w in windows}

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> list[Segment]:
        """Keep new q (count, H, 1, D), k and v (count, G, 1, D); all rows look at their own slot."""
        at = self.positions[:, None, None, None].expand_as(k)
        self._keys[layer].scatter_(2, at, k)
        self._values[layer].scatter_(2, at, v)
        for kept, new in ((self._q, q), (self._k, k), (self._v, v)):
            kept[layer].copy_(new[:, :, 0])
        return [(q, self._keys[layer], self._values[layer], self._masks[self.config.window(layer)], False)]

    def keep(self, hidden: Tensor) -> None:
        """Hidden states (count, 1, C)."""
        self._hidden.copy_(hidden[:, 0])

    def collect(self, caches: list[KVCache], slots: list[int]) -> None:
        """Hand each cache what the step made for it."""
        for cache, slot in zip(caches, slots, strict=True):
            q, k, v = (new[:, slot, :, None] for new in (self._q, self._k, self._v))
            cache.extend(q, k, v, self._hidden[slot : slot + 1])
            self._owners[slot] = weakref.ref(cache), cache.changes

    def _owner(self, slot: int) -> KVCache | None:
        owner = self._owners[slot]
        return owner and owner[0]()

    def _slots_of(self, caches: list[KVCache]) -> list[int]:
        """The slot that each has, or else one that nobody of them has: an empty one first."""
        has = {id(owner): slot for slot in range(self.count) if (owner := self._owner(slot)) is not None}
        found = [has.get(id(cache)) for cache in caches]
        free = sorted(set(range(self.count)) - set(found), key=lambda slot: self._owner(slot) is not None)
        return [free.pop(0) if slot is None else slot for slot in found]
