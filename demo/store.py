"""The sessions of all open tabs.

A tab holds its session by a secret `sid`, minted here; Gradio's session hash only says which tab is its
owner, so that closing the tab frees it. Two tabs never share a session: a page that is loaded again takes its
old one over, within a grace period, and the owner before it loses it. What the sessions hold together is
bounded in bytes: the one that was not used for longest goes first, never one that is being written to.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from demo.running import Running, Source
from gpt.engine import Engine
from gpt.heads import HeadMetrics, Thumbnails
from gpt.interp import Sight
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["PATIENCE", "Busy", "Entry", "Gone", "Samples", "SessionStore", "Watched"]

CAPACITY = 2 << 30  # bytes of all sessions together
FLOOR = 64 << 10  # bytes that a session counts for at least, so that empty ones are bounded too
PATIENCE = 10.0  # seconds to wait for an interrupted reply to end; it ends within a token


class Gone(LookupError):
    """No session has this sid (any more)."""


class Busy(RuntimeError):
    """A reply that was interrupted has not ended yet."""


@dataclass(eq=False)
class Samples:
    """Several replies to one prompt: a seed each, and at most one parameter, the ladder, that differs between them.

    `sessions` is empty until the prompt was read.
    """

    seeds: tuple[int, ...]
    ladder: str = ""
    values: tuple[Any, ...] = ()
    sessions: list[Session] = field(default_factory=list)

    def params(self, k: int, common: SamplingParams) -> SamplingParams:
        """What reply k is written with when `common` is in force."""
        return common.replace(**{self.ladder: self.values[k]}) if self.ladder else common


@dataclass(frozen=True)
class Watched:
    """What the page looks at, whose new rows are pushed to it: the page's name for it, and the scale of its bytes."""

    key: str
    sight: Sight
    low: float = 0.0
    high: float = 1.0


@dataclass(eq=False)
class Entry:
    """One tab's session and what the server must remember of its page."""

    sid: str
    owner: str
    running: Running
    session: Session
    used: float = field(default_factory=time.monotonic)
    left: bool = False  # its tab has gone; freed when the grace period ends
    example: bool = False  # it shows the recorded conversation, which a first message replaces
    streaming: bool = False  # a reply is being written to it now
    system: str | None = None  # system prompt of a conversation that has not begun
    raw: bool = False  # what is typed is the start of a text that the model goes on with, not a message
    epoch: int = 0  # grows whenever history is cut or switched
    watched: Watched | None = None  # what the page looks at; None while its panel is closed, or nothing is pushed
    settings: dict[SamplingParams, int] = field(default_factory=dict)  # every one used so far, as they appeared
    samples: Samples | None = None  # replies beside each other, which the page shows in place of the last one
    logits: tuple[tuple[int, int], Tensor] | None = None  # of the position asked for last: (epoch, position), (V,)
    reading: threading.Lock = field(default_factory=threading.Lock)  # held while pending tokens are read
    patching: threading.Lock = field(default_factory=threading.Lock)  # held while parameters are changed
    gate: threading.Condition = field(default_factory=threading.Condition)
    _metrics: HeadMetrics = field(default_factory=HeadMetrics)
    _thumbnails: Thumbnails = field(default_factory=Thumbnails)
    _rolled: tuple[tuple[Session, int, int, int], Tensor] | None = None  # session, epoch, length, layer; the rollout
    _other: Session | None = None  # another branch, as the model reads it
    _deriving: threading.Lock = field(default_factory=threading.Lock)  # held while one of these is brought up to date

    @property
    def engine(self) -> Engine:
        """The model that this session belongs to."""
        return self.running.engine

    @property
    def source(self) -> Source:
        """What writes to the session."""
        return self.running.source

    @property
    def shown(self) -> int:
        """How many of the session's tokens the page shows: all, or the prompt of the replies beside each other."""
        return self.session.reply_start if self.samples else len(self.session.tokens)

    @property
    def longest(self) -> int:
        """Positions in use: of the session, or of the longest of several replies."""
        return max((len(session.tokens) for session in self._written()), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes held by the session, by the replies beside each other, and by a branch or rollout that is looked at."""
        other, rolled = self._other, self._rolled
        looked_at = (other.nbytes if other else 0) + (rolled[1].nbytes if rolled else 0)
        return sum(session.nbytes for session in self._written()) + looked_at

    def interrupt(self, run: int | None = None) -> int:
        """End what is streaming (run `run`, or any) at its next token; returns the run id that is in force then."""
        with self.gate:
            if run in (None, self.session.run):
                for session in self._written():
                    session.interrupt()
                self._tell()
            return self.session.run

    def set_params(self, params: SamplingParams) -> None:
        """Put new parameters in force for the next token, of every reply that is written."""
        with self.gate:
            self.session.params = params
            for k, session in enumerate(self.samples.sessions if self.samples else ()):
                session.params = self.samples.params(k, params)
            self._tell()

    def start_samples(self, run: int) -> list[Session]:
        """The sessions of the replies beside each other, made once the prompt was read; none if `run` is over."""
        with self.gate:
            samples = self.samples
            if self.session.run != run or samples is None or samples.sessions:
                return []
            samples.sessions = self.session.spread(samples.seeds)
            for k, session in enumerate(samples.sessions):
                session.params = samples.params(k, self.session.params)
            return samples.sessions

    def keep_samples(self) -> None:
        """Make branches of the replies beside each other, for a page that has lost sight of them."""
        with self.session.lock:
            sessions = self.samples.sessions if self.samples else []
            begun = [k for k, session in enumerate(sessions) if len(session.tokens) > self.session.reply_start]
            if begun:
                self.session.gather(sessions, begun[0])
                self.epoch += 1
            self.samples = None

    def begin(self, run: int) -> bool:
        """Claim the session for a stream; False when `run` was interrupted before it began, or has one already."""
        with self.gate:
            if self.streaming or self.session.run != run:
                return False
            self.streaming = True
            return True

    def end(self) -> None:
        """The stream no longer writes to the session."""
        with self.gate:
            self.streaming = False
            self.gate.notify_all()

    def quiet(self, timeout: float = PATIENCE) -> None:
        """Wait until the stream that was interrupted has ended. Raises Busy after `timeout` seconds."""
        with self.gate:
            if not self.gate.wait_for(lambda: not self.streaming, timeout):
                raise Busy("The model is still busy with the last reply; try again in a moment.")

    def rest(self) -> None:
        """A reply that nobody writes any more counts as stopped, so that it can be resumed."""
        with self.session.lock:
            if self.session.tokens and self.session.finish is None and not self.streaming:
                self.session.finish = "stopped"

    def renew(self, session: Session, system: str | None) -> None:
        """Go on with an empty session, whose system prompt will be `system`."""
        with self.gate:
            session.run = self.session.run
            self.session, self.settings, self.system, self.example = session, {}, system, False
            self.samples = self.logits = self._rolled = self._other = None
            self.epoch += 1

    def follow(self) -> None:
        """Have what is typed go on with what stands there: a conversation, or a text."""
        if self.session.tokens:
            self.raw = self.engine.chat is None or any(span.role == "text" for span in self.session.spans)

    def setting(self, params: SamplingParams) -> int:
        """The index of these parameters in the table of settings, which grows when they are new."""
        known = self.settings.get(params)
        if known is not None:
            return known
        with self.gate:
            return self.settings.setdefault(params, len(self.settings))

    def head_metrics(self) -> dict[str, Tensor]:
        """Every metric of every head, (L, H) each, up to the row that was computed last."""
        with self._deriving:
            return self._metrics.update(self.session)

    def thumbnails(self) -> tuple[Tensor, int]:
        """A small picture of every head's pattern, (L, H, n, n), and how many tokens a side of its cells stands for."""
        with self._deriving:
            pictures, size = self._thumbnails.update(self.session)
            return pictures.clone(), size

    def rolled(self, session: Session, layer: int, make: Callable[[Session, int], Tensor]) -> Tensor:
        """The rollout up to a layer, made by `make` when it is not the one that was asked for last."""
        with self._deriving:
            key = (session, self.epoch, session.cache.length, layer)
            if self._rolled is None or self._rolled[0] != key:
                self._rolled = (key, make(session, layer))
            return self._rolled[1]

    def beside(self, branch: int) -> Session:
        """An independent session that holds another branch; what it does not share with this one is still to be read.

        Raises ValueError for a branch that does not exist.
        """
        session, other = self.session, self._other
        with session.lock:
            known = other is not None and branch in session.branches and other.tokens == session.branches[branch].tokens
            if not known:  # it copies the cache
                self._other = other = session.only(branch)
            return other

    def _written(self) -> list[Session]:
        return [self.session, *(self.samples.sessions if self.samples else ())]

    def _tell(self) -> None:
        changed = self.running.changed
        for session in self._written() if changed is not None else ():
            changed(session)


class SessionStore:
    """sid -> Entry. Safe to use from any thread.

    capacity: bytes. grace: seconds that a session survives its tab, for a page that is loaded again. dropped: called
    when a session has gone.
    """

    def __init__(
        self, capacity: int = CAPACITY, grace: float = 60.0, dropped: Callable[[], None] = lambda: None
    ) -> None:
        self.capacity, self.grace, self.dropped = capacity, grace, dropped
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def running(self) -> list[Running]:
        """The models that have a session here."""
        return list(dict.fromkeys(entry.running for entry in list(self._entries.values())))

    def holds(self, sid: str) -> bool:
        """Whether there is such a session."""
        return sid in self._entries

    def create(self, owner: str, running: Running, session: Session | None = None) -> Entry:
        """A session of a model, a fresh one by default, that belongs to the tab `owner`."""
        entry = Entry(secrets.token_urlsafe(16), owner, running, session or running.session())
        entry.raw = running.engine.chat is None
        with self._lock:
            self._entries[entry.sid] = entry
        self.trim()
        return entry

    def get(self, sid: object) -> Entry:
        """The session of `sid`, counted as used now. Raises Gone."""
        entry = self._entries.get(sid) if isinstance(sid, str) else None
        if entry is None:
            raise Gone("This conversation is no longer on the server. Reload the page to start a new one.")
        entry.used = time.monotonic()
        return entry

    def adopt(self, sid: object, owner: str) -> Entry | None:
        """Hand a session over to the page that was loaded again; None when it is gone. Ends what was streaming."""
        entry = self._entries.get(sid) if isinstance(sid, str) else None
        if entry is None:
            return None
        with self._lock:
            entry.owner, entry.left, entry.used = owner, False, time.monotonic()
        entry.interrupt()
        return entry

    def leave(self, owner: str) -> None:
        """The tab `owner` was closed or is being loaded again: free its sessions after the grace period."""
        with self._lock:
            left = [entry for entry in self._entries.values() if entry.owner == owner]
            for entry in left:
                entry.left = True
        for entry in left:
            entry.interrupt()
            self._expire_later(entry.sid, owner)

    def trim(self) -> None:
        """Drop the least recently used sessions until the rest fits, but none that streams, and not the last one."""
        before = len(self)
        with self._lock:
            held = {entry.sid: max(entry.nbytes, FLOOR) for entry in self._entries.values()}
            total = sum(held.values())
            for entry in sorted(self._entries.values(), key=lambda entry: entry.used)[:-1]:
                if total <= self.capacity:
                    break
                if not entry.streaming:
                    total -= held[entry.sid]
                    self._drop(entry)
        if len(self) < before:
            self.dropped()

    def close(self, entry: Entry) -> None:
        """Let a session go: its tab has another one."""
        with self._lock:
            self._drop(entry)
        self.dropped()

    def _expire_later(self, sid: str, owner: str) -> None:
        timer = threading.Timer(self.grace, self._expire, (sid, owner))  # it holds no session that may go before
        timer.daemon = True
        timer.start()

    def _expire(self, sid: str, owner: str) -> None:
        with self._lock:
            entry = self._entries.get(sid)
            gone = entry is not None and entry.left and entry.owner == owner
            if gone:
                self._drop(entry)
        if gone:
            self.dropped()

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.sid, None)
        entry.interrupt()
