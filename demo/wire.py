"""The shape of everything that the page is told about tokens: plain values, ready for JSON.

Numbers have six significant digits, and none is infinite. Nothing here runs the model or waits for it.
"""

import base64
import math
from typing import Any

from demo.store import Entry
from gpt.branch import Branch, TokenEvent
from gpt.chat import Span
from gpt.tokenizer import Tokenizer

__all__ = ["Values", "base64_text", "sample_objects", "settings_table", "short", "stats", "token_objects"]

LEAST = -103.0  # logprob shown for a probability that is 0 in float32

Values = dict[str, Any]


def token_objects(entry: Entry, start: int, end: int | None = None, branch: Branch | None = None) -> list[Values]:
    """Tokens start..end-1 of a branch (the current one) as the page's store keeps them, all from `start` by default.

    Their message number is an index into `Engine.messages`; the template's own tokens belong to the message that comes
    next.
    """
    branch, tokenizer = branch or entry.session.current, entry.engine.tokenizer
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
        "lp": short(max(record.logprob, LEAST)),
        "fl": short(max(record.final_logprob, LEAST)),
        "rank": record.rank,
        "ent": short(record.entropy),
        "u": record.u,
        "par": entry.setting(record.params),
        "cand": [[c.token, c.text, short(c.raw), short(c.final), c.removed_by or ""] for c in record.candidates],
        "st": [[stage.name, stage.tokens, short(stage.kept)] for stage in record.stages],
        "dt": short(record.seconds),
    }
    rare = {"ig": list(record.ignored), "finish": record.finish}
    return values | {name: value for name, value in rare.items() if value}


def sample_objects(entry: Entry) -> list[Values]:
    """Every reply that is written beside others: its number, its tokens so far, and why it ended."""
    return [
        {"k": k, "toks": token_objects(entry, s.reply_start, branch=s.current),
         "n": len(s.records), "finish": s.finish}
        for k, s in enumerate(entry.samples.sessions if entry.samples else ())
    ]  # fmt: skip


def short(x: float) -> float:
    """Six significant digits, and nothing that JSON lacks."""
    return float(f"{x:.6g}") if math.isfinite(x) else 0.0


def settings_table(entry: Entry, start: int = 0) -> list[Values]:
    """Every setting that made a token of this session; `par` of a token is an index into this list."""
    return [params.as_dict() for params in list(entry.settings)[start:]]


def stats(entry: Entry, streaming: bool) -> Values:
    """`rows` are those that the page can have: what was read so far, or all, because a pull reads what is missing; from
    `first_row` on, because queries of earlier ones were not kept.
    """
    session = entry.session
    return {
        "context": entry.longest,
        "block_size": entry.engine.config.block_size,
        "memory": entry.nbytes,
        "rows": min(session.cache.length, entry.shown) if streaming else entry.shown,
        "first_row": session.cache.first_query,
    }


def base64_text(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode("ascii")
