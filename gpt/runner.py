"""How one forward pass is executed.

The eager runner calls the model as it is written, on any device. The graph runner does so for prompts; steps of one
token a session it runs over buffers that never move, which a GPU records once and then repeats without Python.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from gpt.cache import KVCache, PackedCaches
from gpt.model import GPT
from gpt.quant import is_packed
from gpt.slots import Slots
from gpt.threads import one_thread

__all__ = ["EagerRunner", "Feed", "GraphRunner", "Runner"]

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
        self._threads = one_thread if is_packed(model) else nullcontext

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


class GraphRunner:
    """Steps of one token a session by a CUDA graph, one for each power of two of sessions; all else eagerly.

    A graph is used after it has given what the step itself gave. Where a device records none, such as a processor,
    steps are computed over the same buffers as they are written, which is how the tests reach all but the recording.
    """

    _MOST = 32  # sessions of a step

    def __init__(self, model: GPT) -> None:
        self.model, self._eager = model, EagerRunner(model)
        self._steps: dict[int, _Step] = {}

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> Tensor:
        caches = [cache for cache, _ in feeds]
        if len(feeds) > self._MOST or any(len(tokens) > 1 for _, tokens in feeds):
            return self._eager.run(feeds)
        step = self._step(caches)
        slots = step.slots.place(caches, [token for _, (token,) in feeds])
        step.run()
        step.slots.collect(caches, slots)
        return step.logits[slots]

    def _step(self, caches: list[KVCache]) -> "_Step":
        count = 1 << (len(caches) - 1).bit_length()
        step = self._steps.get(count)
        if step is None or not step.slots.fits(caches):
            need = 1 + max(cache.length for cache in caches)
            self._steps.pop(count, None)  # the old buffers go before new ones come
            slots = Slots(self.model.config, self.model.device, self.model.dtype, count, need)
            step = self._steps[count] = _Step(self.model, slots)
        return step


class _Step:
    """One step of all slots; `logits` (count, V) are those of the last run."""

    def __init__(self, model: GPT, slots: Slots) -> None:
        self.model, self.slots = model, slots
        self.logits: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._recordable = model.device.type == "cuda"

    def run(self) -> None:
        if self._graph is not None:
            return self._graph.replay()
        self._compute()
        if self._recordable:
            self._recordable = False
            self._record()

    def _compute(self) -> None:
        self.slots.prepare()
        tokens, positions = self.slots.tokens[:, None], self.slots.positions[:, None]
        self.logits = self.model(tokens, positions, self.slots)[:, -1]

    def _record(self) -> None:
        """Keep a graph of the step if it gives what the step gave; a step may be repeated, it writes the same."""
        expected = self.logits.clone()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        try:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._compute()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                self._compute()
            graph.replay()
        except RuntimeError:  # something that cannot be recorded
            self._compute()
            return
        if torch.allclose(self.logits, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            self._graph = graph
        else:
            self._compute()
