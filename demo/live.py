"""The engine inside a forked GPU worker, as Hugging Face ZeroGPU runs it.

There a function marked with `spaces.GPU` runs in a child process that was forked from this one, so nothing
that the page changes here is seen there. Two channels cross: an anonymous shared mapping, made before the
fork, carries the parameters and the run id to the worker, which reads them before every token; pickled pieces
carry each token's event back, with the queries and keys of what was read, from which every attention pattern
is derived here. The values stay in the worker: the next call reads the conversation again.
"""

import importlib
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from gpt.cache import KVCache
from gpt.engine import Engine
from gpt.sampling import LIMITS, SamplingParams
from gpt.session import Branch, Session, TokenEvent

__all__ = ["Remote", "Slots", "gpu_decorator"]

# The library must be imported before anything touches CUDA.
_spaces = importlib.import_module("spaces") if os.environ.get("SPACES_ZERO_GPU") else None

NUMBERS = tuple(LIMITS)  # the parameters that act on a running reply; stop strings go with the job


def gpu_decorator() -> Callable | None:
    """What marks a function as one for the GPU on ZeroGPU; None anywhere else."""
    return partial(_spaces.GPU, duration=_seconds) if _spaces else None


def _seconds(job: "Job") -> int:
    """How long a job may take, which counts against its visitor's quota: at least 20 tokens a second."""
    return min(60, 10 + job.params.max_new_tokens // 20)


class Slots:
    """Places in shared memory, one for each running reply: a ticket (0: end it) and the parameters in force.

    A sequence lock guards each: odd while it is written, so that a reader takes all of a change or tries
    again.
    """

    _FORMAT = struct.Struct(f"<q{len(NUMBERS)}d")
    _SIZE = 8 + _FORMAT.size

    def __init__(self, n: int = 64) -> None:
        self._memory = mmap.mmap(-1, n * self._SIZE)
        self._free = list(range(n))
        self._lock = threading.Lock()

    def take(self) -> int:
        """A free slot. Raises RuntimeError when all are in use."""
        with self._lock:
            if not self._free:
                raise RuntimeError("too many replies are running at the same time; try again in a moment")
            return self._free.pop()

    def give_back(self, slot: int) -> None:
        """End what still reads the slot, and let another reply have it."""
        self.write(slot, 0, SamplingParams())
        with self._lock:
            self._free.append(slot)

    def write(self, slot: int, ticket: int, params: SamplingParams) -> None:
        at = slot * self._SIZE
        with self._lock:
            (sequence,) = struct.unpack_from("<q", self._memory, at)
            struct.pack_into("<q", self._memory, at, sequence + 1)
            self._FORMAT.pack_into(self._memory, at + 8, ticket, *(getattr(params, name) for name in NUMBERS))
            struct.pack_into("<q", self._memory, at, sequence + 2)

    def read(self, slot: int) -> tuple[int, dict[str, float]]:
        """The ticket and the parameters' values by name."""
        at = slot * self._SIZE
        while True:
            before = struct.unpack_from("<q", self._memory, at)
            ticket, *values = self._FORMAT.unpack_from(self._memory, at + 8)
            if before[0] % 2 == 0 and struct.unpack_from("<q", self._memory, at) == before:
                return ticket, dict(zip(NUMBERS, values, strict=True))


@dataclass(frozen=True)
class Job:
    """What a worker needs to go on with a conversation. `known`: positions whose queries and keys the parent has."""

    branch: Branch
    params: SamplingParams
    known: int
    slot: int
    ticket: int


@dataclass(frozen=True)
class Piece:
    """One token's event (None in the last piece) with the columns that were computed since the piece before."""

    event: TokenEvent | None
    queries: np.ndarray  # (L, H, n, D * itemsize) uint8
    keys: np.ndarray  # (L, G, n, D * itemsize) uint8


class Remote:
    """An engine that computes in a GPU worker; it streams and feeds as `Engine` does.

    decorator: turns a generator function into one whose body runs in the worker (`spaces.GPU`, or an
    emulation in tests).
    """

    def __init__(self, engine: Engine, decorator: Callable) -> None:
        self.engine, self.config, self.tokenizer = engine, engine.config, engine.tokenizer
        self._slots = Slots()
        self._tickets = count(1)
        self._running: dict[int, tuple[int, int, int]] = {}  # id of the session -> run, slot, ticket
        self._compute = decorator(self._work)

    def session(self, *, params: SamplingParams | None = None, seed: int = 0) -> Session:
        """An empty session whose cache lies in this process, on the CPU."""
        return Session(KVCache(self.config, "cpu", self.engine.dtype), params, seed)

    def publish(self, session: Session) -> None:
        """Let the worker of this session, if one is running, know its run id and parameters."""
        run, slot, ticket = self._running.get(id(session), (0, 0, 0))
        if ticket:
            self._slots.write(slot, ticket if session.run == run else 0, session.params)

    def stream(self, session: Session, run: int | None = None) -> Iterator[TokenEvent]:
        """As `Engine.stream`; patterns of everything that was read are there afterwards."""
        run = session.run if run is None else run
        if session.finish is not None or session.run != run:
            return
        for piece in self._call(session, run, session.current):
            with session.lock:
                if session.run != run:
                    break
                self._take(session, piece)
            if piece.event is not None:
                yield piece.event
        with session.lock:
            if session.finish is None and session.run != run:
                session.finish = "stopped"

    def feed(self, session: Session) -> None:
        """As `Engine.feed`."""
        if session.cache.length < len(session.tokens):
            for piece in self._call(session, session.run, replace(session.current, finish="fed")):
                with session.lock:
                    self._take(session, piece)

    def _call(self, session: Session, run: int, branch: Branch) -> Iterator[Piece]:
        slot, ticket = self._slots.take(), next(self._tickets)
        job = Job(replace(branch, records=[]), session.params, session.cache.length, slot, ticket)
        self._running[id(session)] = (run, slot, ticket)
        self.publish(session)
        try:
            yield from self._compute(job)
        except gr.Error as error:  # no GPU was to be had, or the visitor's quota is used up
            raise RuntimeError(str(error.message)) from error
        finally:
            self._running.pop(id(session), None)
            self._slots.give_back(slot)

    def _take(self, session: Session, piece: Piece) -> None:
        dtype = self.engine.dtype
        queries, keys = (torch.from_numpy(x).view(dtype) for x in (piece.queries, piece.keys))
        session.cache.extend(queries, keys, torch.zeros_like(keys))
        if piece.event is not None:
            session.append(piece.event)

    # ---- in the worker -------------------------------------------------------------------------------------

    def _work(self, job: Job) -> Iterator[Piece]:
        session = Session(KVCache(self.config, self.engine.device, self.engine.dtype), job.params)
        session.branches = [replace(job.branch, records=[None] * len(job.branch.tokens))]
        sent = job.known
        self._refresh(session, job)
        for event in self.engine.stream(session, run=0):
            yield _piece(event, session.cache, sent)
            sent = session.cache.length
            self._refresh(session, job)
        if session.finish != "stopped":
            self.engine.feed(session)
            yield _piece(None, session.cache, sent)

    def _refresh(self, session: Session, job: Job) -> None:
        """Bring the run (0 while it may go on) and the parameters up to date."""
        ticket, values = self._slots.read(job.slot)
        session.run = int(ticket != job.ticket)
        if ticket:
            session.params = job.params.replace(**values)


def _piece(event: TokenEvent | None, cache: KVCache, start: int) -> Piece:
    return Piece(event, _bytes(cache.queries()[:, :, start:]), _bytes(cache.keys()[:, :, start:]))


def _bytes(x: Tensor) -> np.ndarray:
    """(..., D) of any type as (..., D * itemsize) bytes: numpy has no bfloat16."""
    return x.contiguous().cpu().view(torch.uint8).numpy()
