"""Reading which attention is meant: heads, how they are mixed, what a cell shows, of which branch, less what."""

import numpy as np

from demo.args import Args, Invalid, whole
from demo.matrix import ROWS_AT_ONCE, Matrix
from demo.rpc import Server
from demo.store import Entry
from gpt.config import GPTConfig
from gpt.interp import Sight, blocks_of_rows, rollout

__all__ = ["head_of", "matrix_of", "sight_of", "window_of"]

MAX_HEADS = 4096


def matrix_of(server: Server, entry: Entry, args: Args) -> Matrix:
    """The matrix of a sight {heads, mix, what, branch}, less the same in `minus` if it is there. Raises ValueError."""
    config = entry.engine.config
    session, sight = server.branch_session(entry, args.get("branch")), sight_of(config, args)
    minus = args.get("minus")
    if minus is not None:
        if not isinstance(minus, dict):
            raise Invalid("minus must be a sight, like the whole request", "minus")
        other = sight_of(config, {**minus, "what": sight.what})
        if "rollout" in (sight.mix, other.mix):
            raise Invalid("a rollout cannot be part of a difference", "mix")
        minus = (server.branch_session(entry, minus.get("branch")), other)
    rolled = None
    if sight.mix == "rollout" and session.cache.length:
        rolled = entry.rolled(session, sight.heads[0][0], rollout)
    ours = entry.session in (session, minus and minus[0])
    return Matrix(session, sight, entry.source.gram, minus, rolled, entry.shown if ours else None)


def sight_of(config: GPTConfig, args: Args) -> Sight:
    """The sight {heads: [[layer, head], ...], mix, what}. Raises ValueError."""
    heads = args.get("heads")
    if not isinstance(heads, list) or not 0 < len(heads) <= MAX_HEADS:
        raise Invalid("heads must be a list of [layer, head]", "heads")
    unique = dict.fromkeys(head_of(config, place) for place in heads)
    return Sight(tuple(unique), args.get("mix", "mean"), args.get("what", "weight"))


def head_of(config: GPTConfig, place: object) -> tuple[int, int]:
    """The layer and head of a list of both. Raises Invalid for one that does not exist."""
    if not isinstance(place, list) or len(place) != 2:
        raise Invalid("heads must be a list of [layer, head]", "heads")
    named = dict(zip(("layer", "head"), place, strict=True))
    return whole(named, "layer", 0, config.n_layer - 1), whole(named, "head", 0, config.n_head - 1)


def window_of(matrix: Matrix, rows: range, columns: range) -> np.ndarray:
    """Exact cells of rows x columns, (R, C) float32; 0 where a key comes after its query, -inf in scores."""
    cells = np.full((len(rows), len(columns)), -np.inf if matrix.kind == "score" else 0.0, np.float32)
    for start, stop in blocks_of_rows(rows.start, rows.stop, ROWS_AT_ONCE):
        part = matrix.exact(range(start, stop))[:, columns.start : columns.stop]
        cells[start - rows.start : stop - rows.start, : part.shape[1]] = part
    return cells
