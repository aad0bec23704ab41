"""The attention panel's server functions: patterns and head metrics, derived from what the session's cache kept."""

from collections.abc import Callable

from demo.args import Args, Invalid, Reply, whole
from demo.rpc import Server, answered
from demo.wire import base64_text, packed_rows
from gpt.interp import METRICS, attention_pattern

__all__ = ["Attention"]

MAX_BYTES = 4 << 20  # of a matrix in one answer; the page asks for the rest
ROWS_AT_ONCE = 256  # of a matrix that are made in one go


class Attention:
    """Bytes are round(255 * sqrt(weight)); exact weights on request, one row at a time."""

    def __init__(self, server: Server) -> None:
        self.server, self.config = server, server.engine.config

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.select, self.matrix, self.row, self.grid)]

    def select(self, args: Args) -> Reply:
        """Say which head's new rows are to be pushed."""
        entry = self.server.entry(args)
        entry.selected = self._head(args)
        return {}

    def matrix(self, args: Args) -> Reply:
        """Rows `from`..n-1 of a head's pattern as packed bytes; if n falls short, ask again from there."""
        entry = self.server.read(args)
        session, epoch, (layer, head) = entry.session, entry.epoch, self._head(args)
        rows = min(session.cache.length, entry.shown)
        start = n = whole(args, "from", 0, len(session.tokens), 0)
        packed: list[bytes] = []
        while n < rows and n * len(packed) < MAX_BYTES:
            end = min(n + ROWS_AT_ONCE, rows)
            packed += packed_rows(session, layer, head, range(n, end))
            n = end
        return {"epoch": epoch, "from": start, "n": n, "data": base64_text(b"".join(packed))}

    def row(self, args: Args) -> Reply:
        """The exact weights of one row."""
        session, (layer, head) = self.server.read(args).session, self._head(args)
        i = whole(args, "i", 0, max(session.cache.length - 1, 0))
        return {"weights": attention_pattern(session, layer, [head], [i])[0, 0, : i + 1].tolist()}

    def grid(self, args: Args) -> Reply:
        """One metric of every head, layer by layer."""
        entry, metric = self.server.read(args), args.get("metric")
        if metric not in METRICS:
            raise Invalid(f"metric must be one of {', '.join(METRICS)}, got {metric!r}", "metric")
        epoch, n = entry.epoch, entry.session.cache.length
        values = entry.head_metrics()[metric].flatten().tolist()
        return {"epoch": epoch, "n": n, "metric": metric, "values": values, "min": min(values), "max": max(values)}

    def _head(self, args: Args) -> tuple[int, int]:
        return whole(args, "layer", 0, self.config.n_layer - 1), whole(args, "head", 0, self.config.n_head - 1)
