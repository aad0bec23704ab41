"""What is pushed to the page while replies are written.

A thread takes tokens from the engine and makes plain values of each, together with the rows of attention that its
step computed; the generator that Gradio drives joins what is ready and yields it as one JSON
string, at most some 40 a second. So the model does not wait while a message travels, and a slider still acts
on the next token that is sampled. Nothing is held over a yield.
"""

import atexit
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue

from demo.matrix import Scale, encode_rows
from demo.running import Chosen
from demo.store import PATIENCE, Entry, Gone, SessionStore
from demo.wire import Values, base64_text, sample_objects, settings_table, stats, token_objects
from gpt.session import Session
from gpt.threads import use_all_threads

__all__ = ["run", "run_requested", "snapshot"]

INTERVAL = 1 / 40  # seconds between two messages at least
PULSE = 0.5  # seconds between two messages at most
PUSHED_ROWS = 64  # more new rows than this, after a long prompt, are left for the page to pull
WINDOW = 32  # tokens over which the speed is taken


# ---- messages ----------------------------------------------------------------------------------------------


def snapshot(entry: Entry, start: int = 0, streaming: bool = False) -> Values:
    """A message that holds every token from `start` on: what a pull, a greeting or a new prompt is answered with.

    While several replies are written beside each other, their prompt and all of them.
    """
    session, several = entry.session, entry.samples is not None
    start = min(start, entry.shown)
    toks = token_objects(entry, start, entry.shown)
    replies = {"samples": sample_objects(entry)} if several else {}
    return {
        "sid": entry.sid,
        "run": session.run,
        "epoch": entry.epoch,
        "from": start,
        "n": start + len(toks),
        "toks": toks,
        **replies,
        "settings": settings_table(entry),
        "state": "streaming" if streaming or entry.streaming else "idle",
        "finish": None if streaming or several else session.finish,
        "stats": stats(entry, streaming or entry.streaming),
    }


class _Writer:
    """Makes what the thread hands over: one dict for each step, and one when the reply has ended.

    It does so between two steps, in the thread that drives the engine, so that it never waits for the session's lock.
    """

    def __init__(self, entry: Entry, run_id: int) -> None:
        self.entry, self.source, self.run_id = entry, entry.source, run_id
        self._times: deque[float] = deque([time.perf_counter()], maxlen=WINDOW)
        self._rows_from = entry.session.cache.length
        self._settings = 0
        self.start = entry.shown

    def steps(self) -> Iterator[Chosen]:
        """Write the reply, token by token."""
        for event in self.source.stream(self.entry.session, self.run_id):
            yield [(0, event)]

    def step(self, chosen: Chosen) -> Values:
        """What the page is told of one step."""
        self._times += [time.perf_counter()] * len(chosen)
        ((_, event),) = chosen
        n = event.position + 1
        return self._part(token_objects(self.entry, event.position, n), n)

    def end(self, error: str) -> Values:
        """The last part: a state, and why the reply ended."""
        part = self._part([], self.entry.shown)
        return part | {"state": "idle", "finish": self.entry.session.finish} | ({"error": error} if error else {})

    def pulse(self, n: int) -> Values:
        """A sign of life after n tokens: how far the model has read."""
        rows = {"key": None, "items": []}
        return {"from": n, "n": n, "toks": [], "rows": rows, "stats": stats(self.entry, True)}

    def settle(self) -> None:
        """A reply of which a few tokens were asked for can go on; and the token that came last gets its row."""
        session = self.entry.session
        with session.lock:
            if session.finish is None and session.run == self.run_id:
                session.finish = "stopped"
        if len(session.tokens) - session.cache.length == 1:
            self.source.feed(session)

    def _part(self, toks: list[Values], n: int) -> Values:
        part: Values = {"from": n - len(toks), "n": n, "toks": toks, "rows": self._new_rows()}
        if len(self.entry.settings) > self._settings:
            part["settings_from"], part["settings"] = self._settings, settings_table(self.entry, self._settings)
            self._settings += len(part["settings"])
        return part | {"stats": {"tps": self._tps(), **stats(self.entry, True)}}

    def _new_rows(self) -> Values:
        """Rows that the model has read since, of what the page looks at; those that do not fit its scale are pulled."""
        watched, cache = self.entry.watched, self.entry.session.cache
        rows = range(self._rows_from, min(cache.length, self.entry.shown))
        self._rows_from = max(rows.start, rows.stop)
        if watched is None or not 0 < len(rows) <= PUSHED_ROWS or rows.start < cache.first_query:
            return {"key": watched and watched.key, "items": []}
        scale = Scale(watched.sight.what, watched.low, watched.high)
        pushed = encode_rows(self.entry.session, watched.sight, self.source.gram, rows, scale)
        return {"key": watched.key, "items": list(zip(rows, pushed or (), strict=False))}

    def _tps(self) -> float:
        return round((len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-6), 1)


class _SamplesWriter(_Writer):
    """As `_Writer` for several replies to one prompt: each part says what is new of each."""

    def steps(self) -> Iterator[Chosen]:
        """Read the prompt once, then write all replies in shared steps."""
        self.source.feed(self.entry.session)
        sessions = self.entry.start_samples(self.run_id)
        yield from self.source.stream_all(sessions, [0] * len(sessions)) if sessions else ()

    def step(self, chosen: Chosen) -> Values:
        """What the page is told of one step: a token of each reply that still runs."""
        self._times += [time.perf_counter()] * len(chosen)
        sessions = self.entry.samples.sessions
        samples = [self._reply(k, sessions[k], event.position) for k, event in chosen]
        return self._part([], self.start) | {"samples": samples}

    def end(self, error: str) -> Values:
        """The last part: why each reply ended."""
        sessions = self.entry.samples.sessions
        samples = [self._reply(k, session, len(session.tokens)) for k, session in enumerate(sessions)]
        return super().end(error) | {"samples": samples, "finish": None}

    def settle(self) -> None:
        """Replies of which a few tokens were asked for can go on."""
        for session in self.entry.samples.sessions:
            with session.lock:
                session.finish = session.finish or "stopped"

    def _reply(self, k: int, session: Session, start: int) -> Values:
        toks = token_objects(self.entry, start, branch=session.current)
        return {"k": k, "toks": toks, "n": start + len(toks), "finish": session.finish}


def _join(entry: Entry, run: int, epoch: int, parts: list[Values]) -> str:
    """One message out of the parts that were ready together."""
    message: Values = {"sid": entry.sid, "run": run, "epoch": epoch, "state": "streaming", "finish": None}
    for part in parts:
        message.update(part)
    last = parts[-1]["rows"]
    items = [item for part in parts if part["rows"]["key"] == last["key"] for item in part["rows"]["items"]]
    message["from"] = parts[0]["from"]
    message["toks"] = [token for part in parts for token in part["toks"]]
    message["rows"] = {**last, "items": [[i, base64_text(row)] for i, row in items]}
    message |= _joined_settings(parts) | _joined_samples(parts)
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _joined_settings(parts: list[Values]) -> Values:
    grown = [part for part in parts if "settings" in part]
    new = [setting for part in grown for setting in part["settings"]]
    return {"settings_from": grown[0]["settings_from"], "settings": new} if grown else {}


def _joined_samples(parts: list[Values]) -> Values:
    joined: dict[int, Values] = {}
    for sample in (sample for part in parts for sample in part.get("samples", ())):
        toks = joined[sample["k"]]["toks"] if sample["k"] in joined else []
        joined[sample["k"]] = {**sample, "toks": [*toks, *sample["toks"]]}
    return {"samples": [joined[k] for k in sorted(joined)]} if joined else {}


# ---- the stream --------------------------------------------------------------------------------------------


def run_requested(store: SessionStore, request: Values) -> Iterator[str]:
    """What the page's event `run` starts: {sid, run, count?}. A session that is gone says so at once."""
    run_id, limit = request.get("run"), request.get("count")
    try:
        entry = store.get(request.get("sid"))
    except Gone as error:
        yield json.dumps(
            {"sid": request.get("sid"), "run": run_id, "state": "idle", "error": str(error), "code": "gone"}
        )
        return
    if isinstance(run_id, int) and (limit is None or (isinstance(limit, int) and limit > 0)):
        yield from run(entry, run_id, limit)
        store.trim()


def run(entry: Entry, run_id: int, limit: int | None = None) -> Iterator[str]:
    """Write the reply, or `limit` tokens of it; yield messages until it ends or `session.run` is not `run_id`.

    Where several replies were asked for, all of them.
    """
    if not entry.begin(run_id):
        return
    writer = (_SamplesWriter if entry.samples else _Writer)(entry, run_id)
    epoch, ready = entry.epoch, SimpleQueue()
    thread = threading.Thread(target=partial(copy_context().run, _write, writer, limit, ready), daemon=True)
    _writing[thread] = entry
    thread.start()
    try:
        for parts in _batches(ready, writer):
            yield _join(entry, run_id, epoch, parts)
    except GeneratorExit:  # the page has gone
        entry.interrupt(run_id)
        raise


_writing: dict[threading.Thread, Entry] = {}


@atexit.register
def _end_all() -> None:
    """End what is still being written: a thread that the interpreter stops inside torch takes the program down."""
    for thread, entry in list(_writing.items()):
        entry.interrupt()
        thread.join(PATIENCE)


def _batches(ready: SimpleQueue, writer: _Writer) -> Iterator[list[Values]]:
    """What is ready, two batches at least INTERVAL and at most PULSE apart; the last part has a state."""
    parts, due = [writer.pulse(writer.start)], 0.0
    while "state" not in parts[-1]:
        try:
            parts = [ready.get(timeout=PULSE)]
        except Empty:  # a long prompt is being read
            parts = [writer.pulse(parts[-1]["n"])]
        time.sleep(max(0.0, due - time.perf_counter()))
        while not ready.empty():
            parts.append(ready.get())
        due = time.perf_counter() + INTERVAL
        yield parts


def _write(writer: _Writer, limit: int | None, ready: SimpleQueue) -> None:
    """The thread: make each step's part, then the row of the last token."""
    use_all_threads()  # another model's step may have left one
    error = ""
    try:
        for n, chosen in enumerate(writer.steps(), 1):
            ready.put(writer.step(chosen))
            if n == limit:
                break
        writer.settle()
    except (RuntimeError, ValueError) as failure:  # out of memory, say: the page must be told
        error = str(failure)
    finally:
        ready.put(writer.end(error))
        writer.entry.end()
        _writing.pop(threading.current_thread(), None)
