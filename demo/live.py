"""The engine inside a forked GPU worker, as Hugging Face ZeroGPU runs it.

There a function marked with `spaces.GPU` runs in a child process that was forked from this one, so nothing
that the page changes here is seen there. Two channels cross: an anonymous shared mapping, made before the
fork, carries the parameters and the run id to the worker, which reads them before every token; pickled pieces
carry each token's event back, with the queries, keys, values and hidden states of what was read, from which every
attention pattern is derived here. The next call reads the conversation again.
"""

import importlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from gpt.branch import Branch, TokenEvent
from gpt.cache import KVCache
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["MAX_SETTINGS", "Remote", "Slots", "gpu_decorator"]

# The library must be imported before anything touches CUDA.
_spaces = importlib.import_module("spaces") if os.environ.get("SPACES_ZERO_GPU") else None

MAX_SETTINGS = 64 << 10  # bytes of all settings of a reply, as JSON


def gpu_decorator() -> Callable | None:
    """What marks a function as one for the GPU on ZeroGPU; None anywhere else."""
    return partial(_spaces.GPU, duration=_seconds) if _spaces else None


def _seconds(job: "Job | Look | Gram") -> int:
    """How long a job may take, which counts against its visitor's quota: at least 20 tokens a second."""
    return min(60, 10 + job.longest // 20) if isinstance(job, Job) else 10


class Slots:
    """Places in shared memory, one for each running reply: a ticket (0: end it) and the parameters in force.

    A sequence lock guards each: odd while it is written, so that a reader takes all of a change or tries
    again.
    """

    _HEAD = struct.Struct("<qqI")  # sequence, ticket, bytes of JSON that follow
    _SIZE = _HEAD.size + MAX_SETTINGS

    def __init__(self, n: int = 128) -> None:
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
        """Raises ValueError for parameters that take more than MAX_SETTINGS bytes."""
        settings = json.dumps(params.as_dict(), ensure_ascii=False).encode()
        if len(settings) > MAX_SETTINGS:
            raise ValueError(f"all settings together may take {MAX_SETTINGS} bytes, not {len(settings)}; shorten them")
        at = slot * self._SIZE
        with self._lock:
            (sequence,) = struct.unpack_from("<q", self._memory, at)
            struct.pack_into("<q", self._memory, at, sequence + 1)
            struct.pack_into("<qI", self._memory, at + 8, ticket, len(settings))
            self._memory[at + self._HEAD.size : at + self._HEAD.size + len(settings)] = settings
            struct.pack_into("<q", self._memory, at, sequence + 2)

    def read(self, slot: int) -> tuple[int, bytes]:
        """The ticket, and the parameters as JSON."""
        at = slot * self._SIZE
        while True:
            before, ticket, size = self._HEAD.unpack_from(self._memory, at)
            settings = self._memory[at + self._HEAD.size : at + self._HEAD.size + min(size, MAX_SETTINGS)]
            if before % 2 == 0 and struct.unpack_from("<q", self._memory, at) == (before,):
                return ticket, settings


@dataclass(frozen=True)
class Part:
    """What a worker needs to go on with one reply. `known`: positions whose queries and keys the parent has."""

    branch: Branch
    params: SamplingParams
    known: int
    slot: int
    ticket: int


@dataclass(frozen=True)
class Job:
    """Replies to be written in shared steps."""

    parts: tuple[Part, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest reply that may come."""
        return max(part.params.max_new_tokens for part in self.parts)


@dataclass(frozen=True)
class Look:
    """One position's hidden state (1, C), as bytes: its logits are wanted."""

    hidden: np.ndarray


@dataclass(frozen=True)
class Gram:
    """The products of one layer's output matrix are wanted (`interp.output_gram`)."""

    layer: int


@dataclass(frozen=True)
class Piece:
    """One token's event (None in the last piece) with the columns that were computed since the piece before.

    `number` is that of the reply; arrays end in bytes, because numpy has no bfloat16.
    """

    number: int
    event: TokenEvent | None
    queries: np.ndarray  # (L, H, n, D * itemsize) uint8
    keys: np.ndarray  # (L, G, n, D * itemsize) uint8
    values: np.ndarray  # (L, G, n, D * itemsize) uint8
    hidden: np.ndarray  # (n, C * itemsize) uint8


class Remote:
    """An engine that computes in a GPU worker; it streams and feeds as `Engine` does.

    decorator: turns a generator function into one whose body runs in the worker (`spaces.GPU`, or an
    emulation in tests).
    """

    def __init__(self, engine: Engine, decorator: Callable) -> None:
        self.engine, self.config, self.tokenizer, self.name = engine, engine.config, engine.tokenizer, engine.name
        self._slots = Slots()
        self._tickets = count(1)
        self._running: dict[int, tuple[int, int, int]] = {}  # id of the session -> run, slot, ticket
        self._grams: dict[int, Tensor] = {}
        self._compute = decorator(self._work)

    def session(self, *, params: SamplingParams | None = None, seed: int = 0) -> Session:
        """An empty session whose cache lies in this process, on the CPU."""
        return Session(KVCache(self.config, "cpu", self.engine.dtype, self.engine.query_bytes), params, seed)

    def publish(self, session: Session) -> None:
        """Let the worker of this session, if one is running, know its run id and parameters."""
        run, slot, ticket = self._running.get(id(session), (0, 0, 0))
        if ticket:
            self._slots.write(slot, ticket if session.run == run else 0, session.params)

    def stream(self, session: Session, run: int | None = None) -> Iterator[TokenEvent]:
        """As `Engine.stream`; patterns of everything that was read are there afterwards."""
        for ((_, event),) in self.stream_all([session], None if run is None else [run]):
            yield event

    def stream_all(
        self, sessions: Sequence[Session], runs: Sequence[int] | None = None
    ) -> Iterator[list[tuple[int, TokenEvent]]]:
        """As `Engine.stream_all`."""
        runs = [session.run for session in sessions] if runs is None else list(runs)
        live = [i for i, s in enumerate(sessions) if s.finish is None and s.run == runs[i]]
        if live:
            running = [(sessions[i], runs[i]) for i in live]
            for pieces in self._call(running, [session.current for session, _ in running]):
                events = [(live[piece.number], self._take(*running[piece.number], piece)) for piece in pieces]
                if chosen := [(i, event) for i, event in events if event is not None]:
                    yield chosen
                if all(session.run != run for session, run in running):
                    break
        for session, run in zip(sessions, runs, strict=True):
            session.end_run(run)

    def feed(self, session: Session) -> None:
        """As `Engine.feed`."""
        if session.cache.length < len(session.tokens):
            read = replace(session.current, finish="fed")
            for pieces in self._call([(session, session.run)], [read]):
                for piece in pieces:
                    self._take(session, session.run, piece)

    def logits(self, session: Session, position: int) -> Tensor:
        """As `Engine.logits`: the output matrix is in the worker."""
        with session.lock:
            read = session.cache.length
            if not 1 <= position <= read:
                raise ValueError(f"the model has read {read} tokens, so position {position} is not known yet")
            hidden = _bytes(session.cache.hidden()[position - 1 : position])
        (logits,) = self._results(Look(hidden))
        return torch.from_numpy(logits)

    def gram(self, layer: int) -> Tensor:
        """As `Engine.gram`, asked of the worker once."""
        if layer not in self._grams:
            (gram,) = self._results(Gram(layer))
            self._grams[layer] = torch.from_numpy(gram)
        return self._grams[layer]

    def _call(self, running: Sequence[tuple[Session, int]], branches: Sequence[Branch]) -> Iterator[list[Piece]]:
        """Have a worker go on with `branches`, those of the sessions that run. Gives all slots back in the end."""
        parts: list[Part] = []
        try:
            for (session, run), branch in zip(running, branches, strict=True):
                slot, ticket = self._slots.take(), next(self._tickets)
                parts.append(Part(_slim(branch), session.params, session.cache.length, slot, ticket))
                self._running[id(session)] = (run, slot, ticket)
                self.publish(session)
            yield from self._results(Job(tuple(parts)))
        finally:
            for (session, _), part in zip(running, parts, strict=False):
                self._running.pop(id(session), None)
                self._slots.give_back(part.slot)

    def _results(self, job: Job | Look | Gram) -> Iterator[list[Piece] | np.ndarray]:
        try:
            yield from self._compute(job)
        except gr.Error as error:  # no GPU was to be had, or the visitor's quota is used up
            raise RuntimeError(str(error.message)) from error

    def _take(self, session: Session, run: int, piece: Piece) -> TokenEvent | None:
        """Add what a worker has computed to the session, unless its run is over."""
        dtype = self.engine.dtype
        with session.lock:
            if session.run != run:
                return None
            columns = (piece.queries, piece.keys, piece.values, piece.hidden)
            session.cache.extend(*(torch.from_numpy(x).view(dtype) for x in columns))
            if piece.event is not None:
                session.append(piece.event)
                session.current.forced = session.current.forced[1:]
        return piece.event

    # ---- in the worker -------------------------------------------------------------------------------------

    def _work(self, job: Job | Look | Gram) -> Iterator[list[Piece] | np.ndarray]:
        if isinstance(job, Look):
            hidden = torch.from_numpy(job.hidden).view(self.engine.dtype).to(self.engine.device)
            with torch.inference_mode():
                yield self.engine.model.unembed(hidden)[0].cpu().numpy()
        elif isinstance(job, Gram):
            yield self.engine.gram(job.layer).cpu().numpy()
        else:
            yield from _Worker(self.engine, self._slots, job).pieces()


class _Worker:
    """Writes the replies of a job, in the process that has the GPU."""

    def __init__(self, engine: Engine, slots: Slots, job: Job) -> None:
        self.engine, self.slots, self.parts = engine, slots, job.parts
        self.sessions = [self._session(part) for part in job.parts]
        self.sent = [part.known for part in job.parts]
        self.settings: list[bytes] = [b""] * len(job.parts)

    def pieces(self) -> Iterator[list[Piece]]:
        """What each step chose, then the columns of the tokens that came last."""
        self._refresh()
        for chosen in self.engine.stream_all(self.sessions, [0] * len(self.sessions)):
            yield [self._piece(i, event) for i, event in chosen]
            self._refresh()
        done = [i for i, session in enumerate(self.sessions) if session.finish != "stopped"]
        for i in done:
            self.engine.feed(self.sessions[i])
        yield [self._piece(i, None) for i in done]

    def _session(self, part: Part) -> Session:
        session = Session(KVCache(self.engine.config, self.engine.device, self.engine.dtype), part.params)
        given = [None] * (len(part.branch.tokens) - len(part.branch.records))
        session.load({0: replace(part.branch, records=[*given, *part.branch.records])}, 0)
        return session

    def _refresh(self) -> None:
        """Bring the runs (0 while they may go on) and the parameters up to date."""
        for i, (session, part) in enumerate(zip(self.sessions, self.parts, strict=True)):
            ticket, settings = self.slots.read(part.slot)
            session.run = int(ticket != part.ticket)
            if session.run == 0 and settings != self.settings[i]:
                self.settings[i], session.params = settings, SamplingParams(**json.loads(settings))

    def _piece(self, i: int, event: TokenEvent | None) -> Piece:
        cache, start = self.sessions[i].cache, self.sent[i]
        self.sent[i] = cache.length
        columns = (x[:, :, start:] for x in cache.reading()[:3])
        columns = (*columns, cache.hidden()[start:])
        return Piece(i, event, *map(_bytes, columns))


def _slim(branch: Branch) -> Branch:
    """A branch with no more records than the filters look at: those of its reply, without their candidates."""
    made = [record and replace(record, candidates=(), stages=()) for record in branch.records[branch.reply_start :]]
    return replace(branch, records=made, reads=())


def _bytes(x: Tensor) -> np.ndarray:
    """(..., D) of any type as (..., D * itemsize) bytes."""
    return x.contiguous().cpu().view(torch.uint8).numpy()
