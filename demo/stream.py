"""What is pushed to the page while a reply is written, and the shape of everything that it is told about
tokens.

A thread takes tokens from the engine and makes plain values of each, together with the rows of the selected
head that its step computed; the generator that Gradio drives joins what is ready and yields it as one JSON
string, at most some 40 a second. So the model does not wait while a message travels, and a slider still acts
on the next token that is sampled. Nothing is held over a yield.
"""

import base64
import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from demo.store import Entry, Gone, SessionStore
from gpt.chat import Span
from gpt.config import GPTConfig
from gpt.interp import attention_pattern
from gpt.sampling import SamplingParams
from gpt.session import Session, TokenEvent
from gpt.tokenizer import Tokenizer

__all__ = ["Source", "packed_rows", "run", "run_requested", "snapshot", "token_objects"]

INTERVAL = 1 / 40  # seconds between two messages at least
PULSE = 0.5  # seconds between two messages at most
PUSHED_ROWS = 64  # more new rows than this, after a long prompt, are left for the page to pull
WINDOW = 32  # tokens over which the speed is taken
LEAST = -103.0  # logprob shown for a probability that is 0 in float32

Values = dict[str, Any]


class Source(Protocol):
    """What writes replies: an `Engine`, or a `Remote` one."""

    config: GPTConfig
    tokenizer: Tokenizer

    def session(self, *, params: SamplingParams | None = None, seed: int = 0) -> Session: ...

    def stream(self, session: Session, run: int | None = None) -> Iterator[TokenEvent]: ...

    def feed(self, session: Session) -> None: ...


# ---- tokens and rows as plain values -----------------------------------------------------------------------


def token_objects(entry: Entry, tokenizer: Tokenizer, start: int, end: int | None = None) -> list[Values]:
    """Tokens start..end-1 of the current branch as the page's store keeps them (all from `start` by default).

    Their message number is an index into `Engine.messages`; the template's own tokens belong to the message that comes
    next.
    """
    branch = entry.session.current
    end = len(branch.records) if end is None else end
    objects, number = [], 0
    for span in (*branch.spans, Span("assistant", branch.reply_start, end)):
        first, last = max(span.start, start), min(span.end, end)
        for i, text in enumerate(_texts(branch.tokens, span.start, first, last, tokenizer), first):
            given = _token_object(tokenizer, i, branch.tokens[i], text, span.role, number)
            objects.append(given | _record_values(entry, branch.records[i]))
        number += span.role != "template"
    return objects


def _texts(tokens: list[int], least: int, first: int, last: int, tokenizer: Tokenizer) -> list[str]:
    """What each of tokens first..last-1 completes. A character has 4 bytes at most: 3 tokens before them suffice."""
    if first >= last:
        return []
    begin = max(least, first - 3)
    return tokenizer.pieces(tokens[begin:last])[first - begin :]


def _token_object(tokenizer: Tokenizer, i: int, token: int, text: str, role: str, number: int) -> Values:
    special = tokenizer.is_special(token)
    text = tokenizer.piece(token) if special else text
    values: Values = {"i": i, "id": token, "s": text, "role": role, "m": number}
    if special:
        return values | {"sp": 1}
    return values if text else values | {"b": tokenizer.token_bytes(token).hex()}


def _record_values(entry: Entry, record: TokenEvent | None) -> Values:
    if record is None:
        return {}
    values: Values = {
        "lp": _short(max(record.logprob, LEAST)),
        "rank": record.rank,
        "ent": _short(record.entropy),
        "u": record.u,
        "par": entry.setting(record.params),
        "cand": [[c.token, c.text, _short(c.raw), _short(c.final), c.removed_by or ""] for c in record.candidates],
    }
    return values | {"finish": record.finish} if record.finish else values


def _short(x: float) -> float:
    """Six significant digits, and nothing that JSON lacks."""
    return float(f"{x:.6g}") if math.isfinite(x) else 0.0


def packed_rows(session: Session, layer: int, head: int, rows: range) -> list[bytes]:
    """Row i of a head's pattern as i + 1 bytes round(255 * sqrt(weight)), for each i of `rows`."""
    pattern = attention_pattern(session, layer, [head], rows)[0].numpy()  # (R, S)
    values = np.rint(255 * np.sqrt(pattern)).astype(np.uint8)
    return [row[: i + 1].tobytes() for i, row in zip(rows, values, strict=True)]


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# ---- messages ----------------------------------------------------------------------------------------------


def snapshot(source: Source, entry: Entry, start: int = 0, streaming: bool = False) -> Values:
    """A message that holds every token from `start` on: what a pull, a greeting or a new prompt is answered with."""
    session = entry.session
    toks = token_objects(entry, source.tokenizer, start)
    return {
        "sid": entry.sid,
        "run": session.run,
        "epoch": entry.epoch,
        "from": start,
        "n": start + len(toks),
        "toks": toks,
        "settings": settings_table(entry),
        "state": "streaming" if streaming or entry.streaming else "idle",
        "finish": None if streaming else session.finish,
        "stats": _stats(source, entry, streaming or entry.streaming),
    }


def settings_table(entry: Entry) -> list[Values]:
    """Every setting that made a token of this session; `par` of a token is an index into this list."""
    return [params.as_dict() for params in list(entry.settings)]


def _stats(source: Source, entry: Entry, streaming: bool) -> Values:
    """`rows` are those that the page can have: what was read so far, or all, because a pull reads what is missing."""
    session = entry.session
    return {
        "context": len(session.tokens),
        "block_size": source.config.block_size,
        "memory": session.nbytes,
        "rows": session.cache.length if streaming else len(session.tokens),
    }


class _Writer:
    """Makes what the thread hands over: one dict for each token, and one when the reply has ended.

    It does so between two steps, in the thread that drives the engine, so that it never waits for the session's lock.
    """

    def __init__(self, source: Source, entry: Entry) -> None:
        self.source, self.entry = source, entry
        self._times: deque[float] = deque([time.perf_counter()], maxlen=WINDOW)
        self._rows_from = entry.session.cache.length
        self._settings = 0
        self.start = len(entry.session.tokens)

    def token(self, event: TokenEvent) -> Values:
        self._times.append(time.perf_counter())
        n = event.position + 1
        return self._part(token_objects(self.entry, self.source.tokenizer, event.position, n), n)

    def end(self, error: str) -> Values:
        session = self.entry.session
        part = self._part([], len(session.tokens))
        return part | {"state": "idle", "finish": session.finish} | ({"error": error} if error else {})

    def pulse(self, n: int) -> Values:
        """A sign of life after n tokens: how far the model has read."""
        layer, head = self.entry.selected
        rows = {"layer": layer, "head": head, "items": []}
        stats = _stats(self.source, self.entry, streaming=True)
        return {"from": n, "n": n, "toks": [], "rows": rows, "stats": stats}

    def _part(self, toks: list[Values], n: int) -> Values:
        part: Values = {"from": n - len(toks), "n": n, "toks": toks, "rows": self._new_rows()}
        if len(self.entry.settings) > self._settings:
            self._settings = len(self.entry.settings)
            part["settings"] = settings_table(self.entry)
        return part | {"stats": {"tps": self._tps(), **_stats(self.source, self.entry, streaming=True)}}

    def _new_rows(self) -> Values:
        layer, head = self.entry.selected
        rows = range(self._rows_from, self.entry.session.cache.length)
        self._rows_from = rows.stop
        pushed = packed_rows(self.entry.session, layer, head, rows) if 0 < len(rows) <= PUSHED_ROWS else []
        return {"layer": layer, "head": head, "items": list(zip(rows, pushed, strict=False))}

    def _tps(self) -> float:
        return round((len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-6), 1)


def _join(entry: Entry, run: int, epoch: int, parts: list[Values]) -> str:
    """One message out of the parts that were ready together."""
    message: Values = {"sid": entry.sid, "run": run, "epoch": epoch, "state": "streaming", "finish": None}
    for part in parts:
        message.update(part)
    last = parts[-1]["rows"]
    items = [item for part in parts if _same_head(part["rows"], last) for item in part["rows"]["items"]]
    message["from"] = parts[0]["from"]
    message["toks"] = [token for part in parts for token in part["toks"]]
    message["rows"] = {**last, "items": [[i, base64_text(row)] for i, row in items]}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _same_head(a: Values, b: Values) -> bool:
    return (a["layer"], a["head"]) == (b["layer"], b["head"])


# ---- the stream --------------------------------------------------------------------------------------------


def run_requested(source: Source, store: SessionStore, request: Values) -> Iterator[str]:
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
        yield from run(source, entry, run_id, limit)
        store.trim()


def run(source: Source, entry: Entry, run_id: int, limit: int | None = None) -> Iterator[str]:
    """Write the reply, or `limit` tokens of it; yield messages until it ends or `session.run` is not `run_id`."""
    if not entry.begin(run_id):
        return
    epoch, ready, writer = entry.epoch, SimpleQueue(), _Writer(source, entry)
    task = partial(copy_context().run, _write, writer, run_id, limit, ready)
    threading.Thread(target=task, daemon=True).start()
    try:
        for parts in _batches(ready, writer):
            yield _join(entry, run_id, epoch, parts)
    except GeneratorExit:  # the page has gone
        entry.interrupt(run_id)
        raise


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


def _write(writer: _Writer, run_id: int, limit: int | None, ready: SimpleQueue) -> None:
    """The thread: make each token's part, then the row of the last one."""
    source, entry, error = writer.source, writer.entry, ""
    try:
        for n, event in enumerate(source.stream(entry.session, run_id), 1):
            ready.put(writer.token(event))
            if n == limit:
                break
        _settle(source, entry.session, run_id)
    except (RuntimeError, ValueError) as failure:  # out of memory, say: the page must be told
        error = str(failure)
    finally:
        ready.put(writer.end(error))
        entry.end()


def _settle(source: Source, session: Session, run_id: int) -> None:
    """A reply of which a few tokens were asked for can go on; and the token that came last gets its row."""
    with session.lock:
        if session.finish is None and session.run == run_id:
            session.finish = "stopped"
    if len(session.tokens) - session.cache.length == 1:
        source.feed(session)
