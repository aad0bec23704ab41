"""The attention panel's server functions: tiles and exact rows of what it looks at, and metrics of every head.

Everything is derived from what the session's cache kept; nothing runs the model but the reading of tokens that are
pending after a switch of branches.
"""

import base64
import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from demo.args import Args, Invalid, Reply, number, whole
from demo.matrix import TILE, Scale, Tile
from demo.rpc import Server, answered
from demo.sights import head_of, matrix_of, sight_of
from demo.store import Watched
from demo.wire import base64_text, short
from gpt.heads import METRICS, similarity

__all__ = ["Attention"]

MAX_TILES = 64  # of one answer
MAX_ROWS = 64


class Attention:
    """A sight comes as {heads: [[layer, head], ...], mix, what, branch} and, for a difference, the same in `minus`."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        methods = (self.select, self.overview, self.tiles, self.rows, self.column, self.grid)
        return [answered(method) for method in methods]

    def select(self, args: Args) -> Reply:
        """Say what new rows are to be pushed of, under the name `key`; none of them without heads."""
        entry = self.server.entry(args)
        if args.get("heads") is None:
            entry.watched = None
            return {}
        sight = sight_of(entry.engine.config, args)
        if sight.mix == "rollout":
            raise Invalid("rows of a rollout cannot be pushed: every row needs all that are before", "mix")
        key = args.get("key")
        if not isinstance(key, str):
            raise Invalid("key must be the name that the page gives to what it looks at", "key")
        entry.watched = Watched(key, sight, *self._ends(args))
        return {}

    def overview(self, args: Args) -> Reply:
        """The whole matrix as one tile, and how its bytes are to be read."""
        entry = self.server.read(args)
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        rows = matrix.rows
        if not rows:
            return {"epoch": epoch, "n": rows.stop, "start": rows.start, "tile": None}
        made = matrix.overview()
        ends = {name: short(value) for name, value in (("top", made.top), ("first", made.first))}
        scale = {"low": made.scale.low, "high": made.scale.high}
        return {"epoch": epoch, "n": rows.stop, "start": rows.start, "tile": _tile(made.tile), **scale, **ends}

    def tiles(self, args: Args) -> Reply:
        """The tiles [level, y, x] of `tiles`, in bytes of the scale low..high; those without a row are left out."""
        entry = self.server.read(args)
        wanted = args.get("tiles")
        if not isinstance(wanted, list) or not 0 < len(wanted) <= MAX_TILES:
            raise Invalid(f"tiles must be a list of 1 to {MAX_TILES} tiles [level, y, x]", "tiles")
        places = [_place(tile, entry.engine.config.block_size) for tile in wanted]
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        n = matrix.rows.stop
        made = matrix.tiles(places, Scale(matrix.kind, *self._ends(args)))
        return {"epoch": epoch, "n": n, "tiles": [_tile(tile) for tile in made]}

    def rows(self, args: Args) -> Reply:
        """Exact rows: for each i of `rows`, i + 1 numbers of 32 bits."""
        entry = self.server.read(args)
        wanted = args.get("rows")
        if not isinstance(wanted, list) or not 0 < len(wanted) <= MAX_ROWS:
            raise Invalid(f"rows must be a list of 1 to {MAX_ROWS} positions", "rows")
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        last = max(matrix.rows.stop - 1, 0)
        found = [whole({"rows": i}, "rows", matrix.rows.start, last) for i in wanted]
        return {"epoch": epoch, "rows": [[i, _floats(matrix.exact(range(i, i + 1))[0])] for i in found]}

    def column(self, args: Args) -> Reply:
        """What every row from `start` on reads of one key, exactly."""
        entry = self.server.read(args)
        epoch, matrix = entry.epoch, matrix_of(self.server, entry, args)
        key = whole(args, "key", 0, max(matrix.rows.stop - 1, 0))
        start = max(key, matrix.rows.start)
        return {"epoch": epoch, "start": start, "weights": _floats(matrix.column(key))}

    def grid(self, args: Args) -> Reply:
        """One metric of every head, layer by layer, null where it has no value; or a small picture of every head.

        `metric` is one of METRICS, "like" (how alike a head's pattern is to that of `layer`, `head`), or "pattern".
        """
        entry, metric = self.server.read(args), args.get("metric")
        epoch, n = entry.epoch, entry.session.cache.length
        reply = {"epoch": epoch, "n": n, "metric": metric}
        if metric == "pattern":
            pictures, size = entry.thumbnails()
            side = pictures.shape[-1]
            return {**reply, "side": side, "size": size, "data": base64_text(Scale("weight").encode(pictures.numpy()))}
        if metric == "like":
            layer, head = head_of(entry.engine.config, [args.get("layer"), args.get("head")])
            return reply | _values(similarity(entry.session, layer, head)) | {"layer": layer, "head": head}
        if metric not in METRICS:
            raise Invalid(f"metric must be one of {', '.join(METRICS)}, like, pattern, got {metric!r}", "metric")
        return reply | _values(entry.head_metrics()[metric])

    # ---- reading what is asked for ----

    def _ends(self, args: Args) -> tuple[float, float]:
        return number(args, "low", 0.0), number(args, "high", 1.0)


def _place(tile: object, most: int) -> tuple[int, int, int]:
    if not isinstance(tile, list) or len(tile) != 3:
        raise Invalid("tiles must be a list of [level, y, x]", "tiles")
    named = dict(zip(("level", "y", "x"), tile, strict=True))
    top = max(0, math.ceil(math.log2(most / TILE)))  # one tile holds all: higher, its cells would be mostly padding
    return whole(named, "level", 0, top), whole(named, "y", 0, most), whole(named, "x", 0, most)


def _tile(tile: Tile) -> list:
    """[level, y, x, rows, columns, cells, first key's column or null]"""
    first = None if tile.first is None else base64_text(tile.first)
    return [tile.level, tile.y, tile.x, *tile.cells.shape, base64_text(np.ascontiguousarray(tile.cells)), first]


def _floats(values: np.ndarray) -> str:
    """Numbers of 32 bits, little end first; what comes after the query in a row of scores is left out by the caller."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4")).decode("ascii")


def _values(metric: Tensor) -> Reply:
    values = [None if value != value else short(value) for value in metric.flatten().tolist()]
    known = [value for value in values if value is not None]
    return {"values": values, "min": min(known, default=0.0), "max": max(known, default=0.0)}
