"""How one forward pass is executed. The eager runner calls the model as it is written, on any device."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from gpt.cache import KVCache, PackedCaches
from gpt.model import GPT
from gpt.quant import is_quantised
from gpt.threads import one_thread

__all__ = ["EagerRunner", "Feed", "Runner"]

Feed = tuple[KVCache, Sequence[int]]
"""A cache and the tokens, at least one, that come after what it holds."""


class Runner(Protocol):
    """What the engine asks of a runner."""

    def run(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed every cache its tokens; logits (len(feeds), V) float32 that follow each feed's last token."""
        ...


class EagerRunner:
    """One call of the model per step, all feeds packed one after another."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self._threads = one_thread if is_quantised(model) else nullcontext

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> Tensor:
        device = self.model.device
        lengths = [len(tokens) for _, tokens in feeds]
        tokens = torch.tensor([t for _, feed in feeds for t in feed], device=device)
        positions = torch.cat([torch.arange(c.length, c.length + n) for (c, _), n in zip(feeds, lengths, strict=True)])
        last = torch.tensor(lengths).cumsum(0) - 1
        packed = PackedCaches([cache for cache, _ in feeds], lengths)
        packed.reserve()
        with self._threads():
            logits = self.model(tokens[None], positions.to(device), packed, rows=last.to(device))
        packed.advance()
        return logits[0]
