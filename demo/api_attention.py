"""The named endpoints about attention: /attention, /heads and /attention_file. Each call has a session of its own.

Gradio reads names, types and docstrings of these functions at run time, so their annotations must be real
types: no `from __future__ import annotations` in this file.
"""

import math

from gradio.data_classes import FileData

from demo.args import Invalid
from demo.downloads import Downloads, file_name
from demo.matrix import Matrix
from demo.prompts import prompt, refusing
from demo.running import Source
from demo.sights import sight_of, window_of
from demo.wire import short
from gpt.engine import Engine
from gpt.export import METRIC_DEFINITIONS, definition, facts, write_everything
from gpt.heads import HeadMetrics
from gpt.interp import Sight, rollout
from gpt.session import Session

__all__ = ["MAX_CELLS", "AttentionEndpoints"]

MAX_CELLS = 512 * 512  # weights in one answer: JSON takes some ten bytes for each


class AttentionEndpoints:
    """One method an endpoint; its docstring is what callers are shown."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.engine, self.source, self.downloads = engine, source, Downloads()

    def attention(
        self,
        layer: int = 0,
        head: int = 0,
        text: str = "",
        messages: list[dict] | None = None,
        tokens: list[int] | None = None,
        heads: list[list[int]] | None = None,
        mix: str = "mean",
        what: str = "weight",
        rows: list[int] | None = None,
    ) -> dict:
        """Attention of one head, or of several taken together, over a text or a conversation as the model reads it.

        Args:
            layer: counted from 0
            head: counted from 0
            text: a plain text, read without the chat template
            messages: instead of a text, a conversation: [{"role": "user", "content": "..."}, ...]
            tokens: instead of both, token ids, read as they are
            heads: instead of layer and head, a list of [layer, head]
            mix: how several heads become one: mean, max, or rollout, which takes one head and goes up to its layer
            what: weight, rest (without the first position), score (before the softmax), value (weight times ||v W_o||)
            rows: [from, to): the tokens whose rows are returned, all by default; 262,144 cells at most
        Returns:
            ids and pieces of the tokens, rows, what a cell is (definition), and weights: weights[i][j] is what token
            rows[0] + i reads of token j, six significant digits; null where a score does not exist
        """
        with refusing():
            asked = {"heads": [[layer, head]] if heads is None else heads, "mix": mix, "what": what}
            sight = sight_of(self.engine.config, asked)
            session = self.source.session()
            prompt(self.engine, session, text, messages, tokens)
            span = _rows(rows, len(session.tokens))
            self.source.feed(session)
            cells = window_of(self._matrix(session, sight), span, range(len(session.tokens)))
        weights = [[_digits(value) for value in row] for row in cells.tolist()]
        return {**self._read(session), "rows": [span.start, span.stop], "definition": definition(sight),
                "weights": weights}  # fmt: skip

    def heads(self, text: str = "", messages: list[dict] | None = None, tokens: list[int] | None = None) -> dict:
        """What every head does in a text or a conversation, in numbers: how much it looks at which places.

        Args:
            text: a plain text, read without the chat template
            messages: instead of a text, a conversation: [{"role": "user", "content": "..."}, ...]
            tokens: instead of both, token ids, read as they are
        Returns:
            ids and pieces of the tokens, metrics: metrics[name][layer][head], null where there is none, and
            definitions: what each name means
        """
        with refusing():
            session = self._fed(text, messages, tokens)
            found = HeadMetrics().update(session)
        metrics = {name: [[_digits(value) for value in row] for row in m.tolist()] for name, m in found.items()}
        return {**self._read(session), "metrics": metrics, "definitions": METRIC_DEFINITIONS}

    def attention_file(
        self, text: str = "", messages: list[dict] | None = None, tokens: list[int] | None = None
    ) -> FileData:
        """Everything that a text or a conversation leaves in the model's attention, as an NPZ file.

        Args:
            text: a plain text, read without the chat template
            messages: instead of a text, a conversation: [{"role": "user", "content": "..."}, ...]
            tokens: instead of both, token ids, read as they are
        Returns:
            the file, for numpy.load: tokens, queries, keys, values, metrics of every head, patterns of short texts,
            and metadata, which is JSON: what each array is, and Python code that derives any pattern from them
        """
        with refusing():
            session = self._fed(text, messages, tokens)
            known = facts(self.engine.name, self.engine.config)
            name = file_name("attention", self.engine.name, f"{session.cache.length}-tokens", ending="npz")
            path = self.downloads.make(name, lambda path: write_everything(path, session, self.engine.tokenizer, known))
        return FileData(path=str(path), orig_name=name)

    def _fed(self, text: str, messages: list[dict] | None, tokens: list[int] | None) -> Session:
        session = self.source.session()
        prompt(self.engine, session, text, messages, tokens)
        self.source.feed(session)
        return session

    def _matrix(self, session: Session, sight: Sight) -> Matrix:
        rolled = rollout(session, sight.heads[0][0]) if sight.mix == "rollout" else None
        return Matrix(session, sight, self.source.gram, None, rolled)

    def _read(self, session: Session) -> dict:
        return {"ids": session.tokens, "pieces": [self.engine.tokenizer.piece(token) for token in session.tokens]}


def _rows(rows: object, n: int) -> range:
    """`rows` = [from, to) of n tokens, all by default. Raises ValueError for more cells than one answer may have."""
    start, stop = (0, n) if rows is None else _pair(rows)
    if not 0 <= start < stop <= n:
        raise Invalid(f"rows must be [from, to] within 0 and {n}, the number of tokens, got {rows!r}", "rows")
    cells = (stop - start) * n
    if cells > MAX_CELLS:
        raise ValueError(
            f"rows {start} to {stop} of {n} tokens are {cells:,} cells; at most {MAX_CELLS:,} are returned: "
            "ask for fewer rows, or for /attention_file"
        )
    return range(start, stop)


def _pair(rows: object) -> tuple[int, int]:
    good = isinstance(rows, list) and len(rows) == 2 and all(type(at) is int for at in rows)
    return tuple(rows) if good else (-1, -1)


def _digits(value: float) -> float | None:
    return short(value) if math.isfinite(value) else None
