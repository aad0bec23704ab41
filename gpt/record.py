"""A conversation as plain values that can be saved, opened again without running a model, and drawn again to the bit.

`replay` reads the tokens in the pieces in which they were read before and repeats every draw from its seed, position
and settings. Same machine, same numbers; where another one rounds otherwise a draw may tip, and that is said.
A record that is opened is not trusted: whatever is wrong in it is a RecordError that names the place.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise
from typing import Any

from gpt.branch import Branch, Candidate, TokenEvent
from gpt.chat import Span
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.sampling import Stage
from gpt.session import Session

__all__ = ["RecordError", "from_record", "replay", "to_record"]

FORMAT, VERSION = "glassbox conversation", 1
FINISHES = ("end", "stop", "length", "context", "stopped")
PLAIN = ("position", "token", "text", "logprob", "rank", "entropy", "u", "finish", "seed", "mu", "seconds")
BRANCHES = 1_000  # more than anybody makes by hand

Values = dict[str, Any]


class RecordError(ValueError):
    """This is not a saved conversation, or not one of this model, or a draw of it cannot be repeated."""


# ---- saving ------------------------------------------------------------------------------------------------


def to_record(session: Session, model: str) -> Values:
    """Every branch with every record, as values for JSON. `model` is the name under which it can be opened again."""
    with session.lock:
        session.current.reads = session.cache.boundaries
        events = {id(r): r for b in session.branches.values() for r in b.records if r is not None}
        settings = {params: i for i, params in enumerate(dict.fromkeys(e.params for e in events.values()))}
        index = {key: i for i, key in enumerate(events)}
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": model,
            "branch": session.branch,
            "params": session.params.as_dict(),
            "settings": [params.as_dict() for params in settings],
            "records": [_event_values(event, settings) for event in events.values()],
            "branches": [_branch_values(n, b, index) for n, b in session.branches.items()],
        }


def _event_values(event: TokenEvent, settings: dict[SamplingParams, int]) -> Values:
    final = event.final_logprob if math.isfinite(event.final_logprob) else None
    logprob = event.logprob if math.isfinite(event.logprob) else None
    return {
        **{name: getattr(event, name) for name in PLAIN},
        "logprob": logprob,
        "final_logprob": final,
        "settings": settings[event.params],
        "stages": [[s.name, s.tokens, s.kept] for s in event.stages],
        "ignored": list(event.ignored),
        "candidates": [[c.token, c.text, c.raw, c.final, c.removed_by] for c in event.candidates],
    }


def _branch_values(number: int, branch: Branch, index: dict[int, int]) -> Values:
    plain = ("parent", "forked_at", "name", "seed", "finish", "reply_start", "budget_start")
    return {
        "id": number,
        **{name: getattr(branch, name) for name in plain},
        "reads": list(branch.reads),
        "spans": [[getattr(span, f.name) for f in fields(Span)] for span in branch.spans],
        "tokens": list(branch.tokens),
        "records": [None if record is None else index[id(record)] for record in branch.records],
    }


# ---- opening -----------------------------------------------------------------------------------------------


def from_record(engine: Engine, record: Any) -> Session:
    """A session that holds the conversation; nothing has been read by the model yet.

    Raises RecordError for what is no record of a conversation with this model.
    """
    try:
        return _Reader(engine, record).session()
    except RecordError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise RecordError(f"this is not a conversation that was saved here: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


class _Reader:
    """Takes a record apart, checking every value that an index or a screen relies on."""

    def __init__(self, engine: Engine, record: Any) -> None:
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RecordError("this is not a conversation that was saved here; choose a file that Save has written")
        if record.get("version") != VERSION:
            raise RecordError(f"this conversation has version {record.get('version')!r}; version {VERSION} can be read")
        if record.get("model") != engine.name:
            raise RecordError(f"this conversation was held with {record.get('model')!r}; start that model to open it")
        self.engine, self.record = engine, record
        self.settings = [SamplingParams(**values) for values in _list(record["settings"], dict)]
        self.events = [self._event(values) for values in _list(record["records"], dict)]

    def session(self) -> Session:
        branches = {values["id"]: self._branch(values) for values in _list(self.record["branches"], dict)}
        if not 0 < len(branches) <= BRANCHES or self.record["branch"] not in branches:
            raise RecordError(f"a conversation has from 1 to {BRANCHES} branches, one of them shown")
        for number in branches:
            _check_line(number, branches)
        session = self.engine.session(params=SamplingParams(**self.record["params"]))
        session.load(branches, self.record["branch"])
        return session

    def _branch(self, values: Values) -> Branch:
        _natural(values["id"], BRANCHES**2, "id")
        tokens = self._tokens(values["tokens"])
        n = len(tokens)
        records = [None if i is None else self._made(i, at, tokens) for at, i in enumerate(_list(values["records"]))]
        if len(records) != n:
            raise RecordError(f"branch {values['id']} has {n} tokens and {len(records)} records")
        reply_start = _natural(values["reply_start"], n, "reply_start")
        return Branch(
            tokens,
            records,
            self._spans(values["spans"], reply_start),
            reply_start,
            _natural(values["seed"], 2**63, "seed"),
            _one_of(values["finish"], (None, *FINISHES), "finish"),
            values["parent"],
            _natural(values["forked_at"], n, "forked_at"),
            _natural(values["budget_start"], n, "budget_start"),
            _text(values["name"]),
            reads=_boundaries(values["reads"], n),
        )

    def _made(self, index: int, position: int, tokens: list[int]) -> TokenEvent:
        event = self.events[_natural(index, len(self.events) - 1, "records")]
        if (event.position, event.token) != (position, tokens[position]):
            raise RecordError(f"record {index} is not that of token {position}")
        return event

    def _tokens(self, values: Any) -> list[int]:
        most = self.engine.config.block_size
        if len(_list(values)) > most:
            raise RecordError(f"this conversation has {len(values)} tokens; the model's context takes {most}")
        return [self._token(token) for token in values]

    def _token(self, value: Any) -> int:
        return _natural(value, self.engine.config.vocab_size - 1, "token")

    def _spans(self, values: Any, end: int) -> tuple[Span, ...]:
        spans = tuple(Span(*span) for span in _list(values, list))
        starts = [0, *(span.end for span in spans)]
        if [span.start for span in spans] != starts[:-1] or starts[-1] != end:
            raise RecordError("its spans do not cover the prompt one after another")
        for span in spans:
            _one_of(span.role, ("system", "user", "assistant", "template", "text"), "role")
            _natural(span.end - span.start, end, "span")
            if span.message is not None:
                _natural(span.message, end, "message")
            if span.text is not None:
                _text(span.text)
        return spans

    def _event(self, values: Values) -> TokenEvent:
        text, token = self.engine.tokenizer.piece, self._token
        stages = [Stage(_text(n), _natural(k, 2**31, "stage"), _number(m)) for n, k, m in _list(values["stages"], list)]
        candidates = [
            Candidate(token(t), text(t), _number(raw), _number(final), None if by is None else _text(by))
            for t, _, raw, final, by in _list(values["candidates"], list)
        ]
        params = self.settings[_natural(values["settings"], len(self.settings) - 1, "settings")]
        return TokenEvent(
            _natural(values["position"], self.engine.config.block_size, "position"),
            token(values["token"]),
            _text(values["text"]),
            _number(values["logprob"], -math.inf),
            _natural(values["rank"], self.engine.config.vocab_size, "rank"),
            _number(values["entropy"]),
            tuple(candidates),
            _number(values["u"], None),
            params,
            _one_of(values["finish"], (None, *FINISHES), "finish"),
            _number(values["final_logprob"], -math.inf),
            _natural(values["seed"], 2**63, "seed"),
            tuple(stages),
            tuple(_text(name) for name in _list(values["ignored"])),
            _number(values["mu"], None),
            _number(values["seconds"]),
        )


def _list(value: Any, of: type = object) -> list:
    if not isinstance(value, list) or not all(isinstance(item, of) for item in value):
        raise RecordError(f"a list was expected, not {str(value)[:40]!r}")
    return value


def _natural(value: Any, most: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise RecordError(f"{name} must be a whole number from 0 to {most}, got {str(value)[:40]!r}")
    return value


def _number(value: Any, absent: float | None = 0.0) -> float | None:
    if value is None:
        return absent
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RecordError(f"a number was expected, not {str(value)[:40]!r}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RecordError(f"a text was expected, not {str(value)[:40]!r}")
    return value


def _one_of(value: Any, known: tuple, name: str) -> Any:
    if value not in known:
        raise RecordError(f"{name} must be one of {', '.join(map(str, known))}, got {str(value)[:40]!r}")
    return value


def _boundaries(values: Any, n: int) -> tuple[int, ...]:
    reads = tuple(_natural(at, n, "reads") for at in _list(values))
    if reads and (reads[0] != 0 or any(a >= b for a, b in pairwise(reads))):
        raise RecordError("reads must begin at 0 and grow")
    return reads


def _check_line(number: int, branches: dict[int, Branch]) -> None:
    """A branch goes back to the first one, without a circle."""
    seen, at = set(), number
    while branches[at].parent is not None:
        seen.add(at)
        at = branches[at].parent
        if at in seen or at not in branches:
            raise RecordError(f"branch {number} does not go back to the first one")


# ---- drawing again -----------------------------------------------------------------------------------------


def replay(engine: Engine, session: Session, progress: Callable[[int], None] | None = None) -> int:
    """Read the current branch anew, in the same pieces, and repeat every draw in it; return how many there were.

    Raises RecordError that names the first token that comes out otherwise. progress(position) is told of each piece.
    """
    branch = session.current
    fresh = engine.session(params=session.params)
    fresh.load({0: branch}, 0)
    drawn = 0
    for start, end in _pieces(branch):
        engine.read(fresh, end)
        for position in range(start + 1, end + 1):
            record = branch.records[position] if position < len(branch.tokens) else None
            if record is not None and record.u is not None:
                _compare(record, engine.distribution(fresh, position, record.params).drawn)
                drawn += 1
        if progress is not None:
            progress(end)
    return drawn


def _pieces(branch: Branch) -> Iterator[tuple[int, int]]:
    """From where to where each read went; what was never read comes last, a token at a time as it was drawn."""
    boundaries = branch.reads or (0,)
    return pairwise((*boundaries, *range(boundaries[-1] + 1, len(branch.tokens) + 1)))


def _compare(record: TokenEvent, token: int) -> None:
    if token != record.token:
        raise RecordError(
            f"token {record.position} came out as {token}, not {record.token}: this machine or another thread count "
            "rounds otherwise than the one that wrote it"
        )
