"""Export: what is shown as a file, all that was kept as a file, or a program that fetches what is shown.

A small file is part of the answer; a large one is written where Gradio serves it, so that it never goes through JSON.
"""

import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from demo.api_attention import MAX_CELLS as CELLS_OF_AN_ANSWER
from demo.args import Args, Invalid, Reply
from demo.downloads import Downloads, file_name
from demo.matrix import Matrix
from demo.rpc import Server, answered
from demo.sights import matrix_of, window_of
from demo.snippet import Part, snippet_of
from demo.store import PATIENCE, Busy, Entry
from demo.wire import Values, base64_text
from gpt.export import FORMATS, Shown, definition, facts, text_of, write_everything
from gpt.interp import Sight
from gpt.session import Session

__all__ = ["Export"]

MAX_CELLS = 2048 * 2048  # of one matrix as a file: some 50 MB of text
TYPES = {"csv": "text/csv", "json": "application/json", "npz": "application/octet-stream"}
MAX_ORIGIN = 2000  # characters of an address


class Export:
    """A sight comes as in the attention panel; `rows` and `columns` are [from, to), all of them by default."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.downloads = Downloads()
        self._writing = threading.Lock()  # one large file at a time: each takes a copy of the cache

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.export_shown, self.export_all, self.snippet)]

    def export_shown(self, args: Args) -> Reply:
        """The exact values of what is shown, as a file of `format`: its name, its type, and its bytes in base64."""
        entry, ending = self.server.read(args), args.get("format")
        if ending not in list(FORMATS):
            raise Invalid(f"format must be one of {', '.join(FORMATS)}, got {ending!r}", "format")
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        rows, columns = _window(args, matrix)
        cells = len(rows) * len(columns)
        if cells > MAX_CELLS:
            raise Invalid(
                f"this has {cells:,} cells; a file of at most {MAX_CELLS:,} can be made: "
                "choose fewer rows or columns, or export everything",
                "rows",
            )
        values = window_of(matrix, rows, columns)
        with entry.session.lock:
            _check_epoch(entry, epoch)
            text = text_of(matrix.session.current, entry.engine.tokenizer, max(rows.stop, columns.stop))
            metadata = self._facts(entry, args, matrix, rows, columns)
        name = file_name("attention", entry.engine.name, _label(matrix), ending=ending)
        data = base64_text(FORMATS[ending](Shown(values, rows, columns, text, metadata)))
        return {"epoch": epoch, "name": name, "type": TYPES[ending], "data": data}

    def export_all(self, args: Args) -> Reply:
        """Everything that was kept of a branch (the current one) as an NPZ: its name, where it is fetched, its bytes.

        The address is relative to the page's. The file goes after some minutes, or when this session has another made.
        """
        entry = self.server.read(args)
        session = self.server.branch_session(entry, args.get("branch"))
        if not session.cache.length:
            raise Invalid("There is nothing to export yet; write a message first.")
        if not self._writing.acquire(timeout=PATIENCE):
            raise Busy("Another file is being written; try again in a moment.")
        try:
            still = session
            if session is entry.session:  # it may go on meanwhile
                still = session.only(session.branch)
                still.cache.truncate(min(still.cache.length, entry.shown))
            known = facts(entry.engine.name, entry.engine.config) | {"branch": _branch(entry, args)}
            name = file_name("attention", entry.engine.name, f"{still.cache.length}-tokens", ending="npz")
            path = self.downloads.make(
                name, lambda path: write_everything(path, still, entry.engine.tokenizer, known), entry.sid
            )
        finally:
            self._writing.release()
        return {"name": name, "url": self.downloads.url(path), "bytes": path.stat().st_size}

    def snippet(self, args: Args) -> Reply:
        """A Python program that fetches what is shown from this page at `origin`, its address, by token ids."""
        entry, origin = self.server.read(args), _origin(args.get("origin"))
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        rows, columns = _window(args, matrix)
        end = max(rows.stop, columns.stop)
        with entry.session.lock:
            _check_epoch(entry, epoch)
            part, *others = [Part(s.tokens[:end], sight) for s, sight in _sides(matrix)]
        defined = definition(matrix.sight, matrix.minus and matrix.minus[1])
        about = f"{_label(matrix)} of {entry.engine.name}: {defined}."
        minus = others[0] if others else None
        return {"text": snippet_of(origin, about, part, minus, rows, columns, CELLS_OF_AN_ANSWER)}

    def _facts(self, entry: Entry, args: Args, matrix: Matrix, rows: range, columns: range) -> Values:
        known = facts(entry.engine.name, entry.engine.config)
        minus = None
        if matrix.minus:
            session, sight = matrix.minus
            minus = {**_sight_facts(sight), "branch": _branch(entry, args["minus"])}
            minus["tokens"] = session.tokens[: max(rows.stop, columns.stop)]
        return {
            **known,
            **_sight_facts(matrix.sight),
            "definition": definition(matrix.sight, matrix.minus and matrix.minus[1]),
            "branch": _branch(entry, args),
            "minus": minus,
            "rows": [rows.start, rows.stop],
            "columns": [columns.start, columns.stop],
        }


def _window(args: Args, matrix: Matrix) -> tuple[range, range]:
    there = matrix.rows
    if not there:
        raise Invalid("There is nothing to export yet; write a message first.")
    return _span(args, "rows", there), _span(args, "columns", range(there.stop))


def _span(args: Args, name: str, there: range) -> range:
    """`args[name]` = [from, to) as positions; all that are there by default. Raises Invalid."""
    value = args.get(name)
    if value is None:
        return there
    good = isinstance(value, list) and len(value) == 2 and all(type(at) is int for at in value)
    if not good or not there.start <= value[0] < value[1] <= there.stop:
        raise Invalid(f"{name} must be [from, to] within {there.start} and {there.stop}, got {value!r}", name)
    return range(*value)


def _check_epoch(entry: Entry, epoch: int) -> None:
    if entry.epoch != epoch:
        raise RuntimeError("the conversation was changed while it was read; export it again")


def _origin(value: object) -> str:
    """The page's address. Raises Invalid."""
    parts = urlsplit(value) if isinstance(value, str) and len(value) <= MAX_ORIGIN else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise Invalid("origin must be the page's address, such as http://127.0.0.1:7860", "origin")
    return value


def _sides(matrix: Matrix) -> list[tuple[Session, Sight]]:
    return [(matrix.session, matrix.sight), *([matrix.minus] if matrix.minus else [])]


def _branch(entry: Entry, args: Args) -> int:
    return entry.session.branch if args.get("branch") is None else int(args["branch"])


def _sight_facts(sight: Sight) -> Values:
    return {"heads": [list(head) for head in sight.heads], "mix": sight.mix, "what": sight.what}


def _label(matrix: Matrix) -> str:
    """What is shown in a few words: rollout-L3, L2H5-weight, mean-of-4-heads-score-difference."""
    sight = matrix.sight
    layer, head = sight.heads[0]
    several = f"{sight.mix}-of-{len(sight.heads)}-heads"
    which = f"L{layer}H{head}" if len(sight.heads) == 1 else several
    name = f"rollout-L{layer}" if sight.mix == "rollout" else f"{which}-{sight.what}"
    return f"{name}-difference" if matrix.minus else name
