"""What the attention panel looks at, as a matrix that is cut into pieces for the page.

A matrix is one sight of the attention (`gpt.interp.Sight`), or the difference of two. The page sees it as a map: tiles
of TILE x TILE cells, at level 0 one cell a pair of tokens, at level k the largest of 2^k x 2^k. Cells travel as bytes:

weight, rest   round(255 sqrt(x))
value          round(255 sqrt(x / high))
score          1 + round(254 (x - low) / (high - low)); 0 where a query does not look
difference     128 + round(127 sign(x) sqrt(|x| / high))

So a byte says about 1/255 of the root; exact values are asked for by the row. The first key stands apart in every
level above 0, since most heads park their attention there: cells leave it out, a column of its own holds it.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from gpt.interp import Gram, Sight, sight_rows
from gpt.session import Session

__all__ = ["TILE", "Matrix", "Overview", "Scale", "Tile", "encode_rows"]

TILE = 256
ROWS_AT_ONCE = 256  # of a matrix that are made in one go


@dataclass(frozen=True)
class Scale:
    """What the bytes of a matrix mean: `kind` is a quantity or "difference"."""

    kind: str
    low: float = 0.0
    high: float = 1.0

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Bytes for values; what lies outside of low..high is put at its end."""
        if self.kind == "score":
            share = (values - self.low) / max(self.high - self.low, 1e-9)
            return np.where(np.isfinite(values), 1 + np.rint(254 * share.clip(0, 1)), 0).astype(np.uint8)
        share = np.sqrt((np.abs(values) / max(self.high, 1e-9)).clip(0, 1))
        if self.kind == "difference":
            return (128 + np.rint(127 * np.copysign(share, values))).astype(np.uint8)
        return np.rint(255 * share).astype(np.uint8)


@dataclass(frozen=True)
class Tile:
    """Cells (h, w) as bytes; in the leftmost tiles above level 0, `first` holds the first key's column (h,)."""

    level: int
    y: int
    x: int
    cells: np.ndarray
    first: np.ndarray | None


@dataclass(frozen=True)
class Overview:
    """The whole matrix as one tile, how its bytes are read, and the largest values: without the first key, and its."""

    tile: Tile
    scale: Scale
    top: float
    first: float


@dataclass(frozen=True)
class Matrix:
    """`sight` of `session`; with `minus`, less another sight of the same or another session, position by position.

    `rolled` is the rollout, where it is looked at. Rows from `end` on are left out.
    """

    session: Session
    sight: Sight
    gram: Gram
    minus: tuple[Session, Sight] | None = None
    rolled: Tensor | None = None
    end: int | None = None

    @property
    def rows(self) -> range:
        """The rows there are: from the first whose query was kept to the last that was read."""
        caches = [session.cache for session, _ in self._parts()]
        ends = [cache.length for cache in caches]
        ends += [] if self.rolled is None else [len(self.rolled)]  # a reply may have grown since
        ends += [] if self.end is None else [self.end]
        return range(max(cache.first_query for cache in caches), min(ends))

    @property
    def kind(self) -> str:
        return "difference" if self.minus else self.sight.what

    def exact(self, rows: range) -> np.ndarray:
        """Rows as they are, (R, rows.stop) float32; 0 where a query does not look, -inf in scores."""
        (values, *others) = [
            sight_rows(session, sight, rows, self.gram, self.rolled).numpy() for session, sight in self._parts()
        ]
        for other in others:
            with np.errstate(invalid="ignore"):  # -inf less -inf, or less a score of a head that looks further back
                values = np.nan_to_num(values - other, nan=0.0, posinf=0.0, neginf=0.0)
        return values

    def overview(self) -> Overview:
        """The whole matrix at the first level where it fits into one tile."""
        rows = self.rows
        level = max(0, math.ceil(math.log2(max(rows.stop, 1) / TILE)))
        cells, first, least = self._pooled(rows, level)
        rest = cells[:, 1:] if level == 0 else cells
        ends = [(_least(part), _largest(part)) for part in (rest, first)]
        scale = self._scale(min(least, *(low for low, _ in ends)), max(high for _, high in ends))
        tile = Tile(level, 0, 0, scale.encode(cells), None if level == 0 else scale.encode(first))
        return Overview(tile, scale, *(max(high, -low) if self.minus else high for low, high in ends))

    def tiles(self, wanted: list[tuple[int, int, int]], scale: Scale) -> list[Tile]:
        """The tiles (level, y, x) of `wanted` as far as there are rows; rows are made once for all tiles beside each
        other.
        """
        made: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, float]] = {}
        tiles = []
        for level, y, x in wanted:
            span = TILE << level
            rows = range(max(y * span, self.rows.start), min((y + 1) * span, self.rows.stop))
            if not rows or x > y:
                continue
            if (level, y) not in made:
                made[level, y] = self._pooled(rows, level, y * span)
            cells, first, _ = made[level, y]
            part = scale.encode(cells[:, x * TILE : (x + 1) * TILE])
            tiles.append(Tile(level, y, x, part, scale.encode(first) if x == 0 and level else None))
        return tiles

    def column(self, key: int) -> np.ndarray:
        """What every row from `key` (or the first there is) on reads of that key, float32."""
        start = max(key, self.rows.start)
        pieces = [self.exact(piece)[:, key] for piece in _pieces(range(start, self.rows.stop))]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _parts(self) -> list[tuple[Session, Sight]]:
        return [(self.session, self.sight), *([self.minus] if self.minus else [])]

    def _pooled(self, rows: range, level: int, origin: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
        """Rows from `origin` to rows.stop as cells of a level, of each the first key alone, and the least score of all.

        Where there is no row, nothing.
        """
        side = 1 << level
        width = -(-rows.stop // side)
        height = -(-(rows.stop - origin) // side)
        nothing = -np.inf if self.kind == "score" else 0.0
        cells = np.full((height, width), nothing, np.float32)
        first = np.full(height, nothing, np.float32)
        least = np.inf
        for piece in _pieces(rows):
            values = self.exact(piece)
            least = min(least, _least(values)) if self.kind == "score" else least
            at, lead = (piece.start - origin) // side, (piece.start - origin) % side
            alone = values[:, 0].copy()
            if level:
                values[:, 0] = nothing
            pooled = self._largest_of(_padded(values, lead, side, nothing), side)
            column = self._largest_of(_padded(alone[:, None], lead, side, nothing), side)[:, 0]
            place = np.s_[at : at + pooled.shape[0], : pooled.shape[1]]
            cells[place] = self._larger(cells[place], pooled)
            first[place[0]] = self._larger(first[place[0]], column)
        return cells, first, least

    def _largest_of(self, values: np.ndarray, side: int) -> np.ndarray:
        if side == 1:
            return values
        blocks = values.reshape(values.shape[0] // side, side, values.shape[1] // side, side)
        high = blocks.max((1, 3))
        return self._larger(high, blocks.min((1, 3))) if self.minus else high

    def _larger(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The larger of two; of differences, the one further from 0."""
        return np.where(np.abs(a) >= np.abs(b), a, b) if self.minus else np.maximum(a, b)

    def _scale(self, low: float, high: float) -> Scale:
        if self.minus:
            return Scale("difference", -max(high, -low), max(high, -low))
        if self.kind == "score":
            return Scale("score", low, high)
        return Scale(self.kind, 0.0, high if self.kind == "value" else 1.0)


def encode_rows(session: Session, sight: Sight, gram: Gram, rows: range, scale: Scale) -> list[bytes] | None:
    """Row i as i + 1 bytes for each i of `rows`; None when a value does not fit into the scale."""
    values = sight_rows(session, sight, rows, gram).numpy()
    finite = values[np.isfinite(values)] if scale.kind == "score" else values
    if scale.kind in ("score", "value") and (finite.max() > scale.high or finite.min() < scale.low):
        return None
    return [row[: i + 1].tobytes() for i, row in zip(rows, scale.encode(values), strict=True)]


def _pieces(rows: range) -> list[range]:
    """`rows` in pieces that end at multiples of ROWS_AT_ONCE."""
    edges = [rows.start, *range((rows.start // ROWS_AT_ONCE + 1) * ROWS_AT_ONCE, rows.stop, ROWS_AT_ONCE), rows.stop]
    return [range(a, b) for a, b in pairwise(edges)] if rows else []


def _padded(values: np.ndarray, lead: int, side: int, nothing: float) -> np.ndarray:
    height, width = values.shape
    around = ((lead, -(lead + height) % side), (0, -width % side))
    return values if not any(map(any, around)) else np.pad(values, around, constant_values=nothing)


def _largest(values: np.ndarray) -> float:
    return float(values.max(initial=-np.inf, where=np.isfinite(values))) if np.isfinite(values).any() else 0.0


def _least(values: np.ndarray) -> float:
    return float(values.min(initial=np.inf, where=np.isfinite(values))) if np.isfinite(values).any() else 0.0
