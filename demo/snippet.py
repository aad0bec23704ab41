"""A Python program that fetches what is shown from the running page's API, by token ids: the very same tokens."""

import textwrap
from dataclasses import dataclass

from gpt.interp import Sight

__all__ = ["Part", "snippet_of"]

WIDTH = 120


@dataclass(frozen=True)
class Part:
    """A sight of one text, as its token ids."""

    tokens: list[int]
    sight: Sight


def snippet_of(origin: str, about: str, part: Part, minus: Part | None, rows: range, columns: range, cells: int) -> str:
    """The program's text. It leaves the matrix, rows x columns, in `matrix`; `about` says what that is.

    `origin` is the page's address. No answer has more than `cells` cells, so the rows are fetched in pieces.
    """
    what = part.sight.what
    calls = [_call(each, name) for each, name in ((part, "TOKENS"), (minus, "OTHERS")) if each]
    lists = [_assigned(name, each.tokens) for each, name in ((part, "TOKENS"), (minus, "OTHERS")) if each]
    step = max(cells // max(len(each.tokens) for each in (part, minus) if each), 1)
    return PROGRAM.format(
        about="\n".join(textwrap.wrap(about, WIDTH - 2, initial_indent="# ", subsequent_indent="# ")),
        origin=origin,
        lists="\n".join(lists),
        rows=(rows.start, rows.stop),
        columns=(columns.start, columns.stop),
        step=step,
        calls=" - ".join(calls),
        masked=MASKED_DIFFERENCE if minus else MASKED_SCORE if what == "score" else "",
    )


PROGRAM = """\
{about}
# Needs: pip install gradio_client numpy
import numpy as np
from gradio_client import Client

ORIGIN = {origin!r}
{lists}
ROWS, COLUMNS = {rows}, {columns}  # positions of queries and keys, the last ones not included

client = Client(ORIGIN, verbose=False)


def read(tokens, heads, mix, what):
    pieces = []
    for start in range(*ROWS, {step}):  # as many rows as one answer may have
        rows = [start, min(start + {step}, ROWS[1])]
        reply = client.predict(tokens=tokens, heads=heads, mix=mix, what=what, rows=rows, api_name="/attention")
        pieces.append(np.array(reply["weights"], dtype=np.float32)[:, slice(*COLUMNS)])
    return np.concatenate(pieces)


matrix = {calls}
{masked}print(matrix.shape)  # matrix[i, j] is what token ROWS[0] + i reads of token COLUMNS[0] + j
"""

MASKED_SCORE = "matrix[np.isnan(matrix)] = -np.inf  # the query does not look there\n"
MASKED_DIFFERENCE = "matrix = np.nan_to_num(matrix, nan=0.0)  # the query does not look there\n"


def _assigned(name: str, tokens: list[int]) -> str:
    made = textwrap.fill(str(tokens), WIDTH - 4, break_long_words=False)
    return f"{name} = " + (made if len(made) < WIDTH - 10 else f"\\\n{textwrap.indent(made, '    ')}")


def _call(part: Part, name: str) -> str:
    heads = str([list(head) for head in part.sight.heads])
    return f"read({name}, {heads}, {part.sight.mix!r}, {part.sight.what!r})"
