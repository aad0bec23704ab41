"""What each head does, in numbers and small pictures, for all heads of a model at once.

Metrics are means over the rows of exact patterns (interp.py), each row computed once; a conversation that grows is
read on from where it was, one that was cut is read again from the last block before the cut. Nothing here runs the
model.

first      weight on position 0, where idle heads park their attention (Xiao et al. 2023, attention sinks)
previous   weight on the position just before the query (Elhage et al. 2021, previous-token heads)
self       weight on the query's own position
duplicate  weight on earlier positions with the query's own token (Wang et al. 2022, duplicate-token heads)
induction  weight on positions right after an earlier occurrence of the query's token (Olsson et al. 2022, prefix
           matching); the query itself does not count
user       weight on the last user message, over the rows after it
entropy    entropy of the row as a fraction of the largest possible, log(number of keys) (Clark et al. 2019)
distance   mean distance in tokens between query and key, weighted by attention (Vig & Belinkov 2019)

Row 0, which can read nothing but itself, never counts. duplicate and induction are means over the rows whose token
occurred before; induction moreover over those where something stands between. A mean over no row is NaN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.branch import common_prefix
from gpt.cache import Reading
from gpt.interp import block_scores, blocks_of_rows
from gpt.session import Session

__all__ = ["METRICS", "SIDE", "HeadMetrics", "Thumbnails", "similarity"]

METRICS = ("first", "previous", "self", "duplicate", "induction", "user", "entropy", "distance")
"""Names of the head metrics; the module's docstring defines them."""

SIDE = 32
"""Cells along the side of a thumbnail, at most."""

Message = tuple[int, int] | None
"""Where the last user message before a row stands: first token, token after the last."""


@dataclass
class _Block:
    """Sums over the rows start..end-1, which all come after the same user message."""

    start: int
    end: int
    message: Message
    sums: Tensor  # (M, L, H) float32
    counts: Tensor  # (M,) rows that count


class HeadMetrics:
    """The metrics of one session, kept up to date."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._blocks: list[_Block] = []

    @torch.inference_mode()
    def update(self, session: Session) -> dict[str, Tensor]:
        """Read the rows that are new since the last call; each metric as (L, H) float32, NaN where no row counts."""
        reading, tokens, messages = _moment(session)
        self._forget(common_prefix(self._tokens, tokens), messages)
        done = max(self._blocks[-1].end if self._blocks else 1, reading.first)
        for start, end, message in _pieces(done, reading.length, messages):
            self._add(_read(reading, tokens, start, end, message))
        self._tokens = _still(tokens, session)
        return self._means(messages, reading.length, reading.queries.shape[:2])

    def _forget(self, known: int, messages: Sequence[tuple[int, int]]) -> None:
        around = ((b, _before(messages, b.start), _before(messages, b.end - 1)) for b in self._blocks)
        good = (b.end <= known and b.message == first == last for b, first, last in around)
        del self._blocks[next((i for i, ok in enumerate(good) if not ok), len(self._blocks)) :]

    def _add(self, new: _Block) -> None:
        last = self._blocks[-1] if self._blocks else None
        fits = last and (last.end, last.message) == (new.start, new.message) and new.start % _BLOCK
        if not fits:
            return self._blocks.append(new)
        last.end, last.sums, last.counts = new.end, last.sums + new.sums, last.counts + new.counts

    def _means(self, messages: Sequence[tuple[int, int]], length: int, shape: Sequence[int]) -> dict[str, Tensor]:
        sums, counts = torch.zeros(len(METRICS), *shape), torch.zeros(len(METRICS))
        message, user = _before(messages, length), METRICS.index("user")
        for block in self._blocks:
            counted = torch.ones(len(METRICS))
            counted[user] = block.message == message
            sums += block.sums * counted[:, None, None]
            counts += block.counts * counted
        return dict(zip(METRICS, sums / counts[:, None, None], strict=True))


_BLOCK = 64  # rows of a block at most: so many are read again after a cut


def _moment(session: Session) -> tuple[Reading, list[int], list[tuple[int, int]]]:
    """What was read, its tokens, and where the user's messages stand, all of one moment."""
    with session.lock:
        reading = session.cache.reading()
        messages = [(span.start, span.end) for span in session.spans if span.role == "user"]
        return reading, session.tokens[: reading.length], messages


def _still(tokens: list[int], session: Session) -> list[int]:
    """Those that no cut took away while they were worked on: rows after it may hold another text's numbers."""
    return tokens[: common_prefix(tokens, session.tokens)]


def _before(messages: Sequence[tuple[int, int]], row: int) -> Message:
    """The last message that ends at or before a row."""
    return next((message for message in reversed(messages) if message[1] <= row), None)


def _pieces(start: int, stop: int, messages: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, Message]]:
    """Rows start..stop-1 in pieces that cross neither a multiple of _BLOCK nor the end of a message."""
    cuts = {*range(_BLOCK * (start // _BLOCK + 1), stop, _BLOCK), *(end for _, end in messages if start < end < stop)}
    edges = [start, *sorted(cuts), stop] if start < stop else []
    return ((a, b, _before(messages, a)) for a, b in pairwise(edges))


def _read(reading: Reading, tokens: Sequence[int], start: int, end: int, message: Message) -> _Block:
    """The metrics of rows start..end-1, summed, of every layer and head."""
    device = reading.queries.device
    same, after = _occurrences(torch.tensor(tokens[:end], device=device), start)  # (R, end) each
    rows = torch.arange(start, end, device=device)
    keys = torch.arange(end, device=device).float()
    masks = torch.stack((same, after), dim=-1).float()  # (R, end, 2)
    layers = []
    for layer in range(reading.queries.shape[0]):
        scores = block_scores(reading, layer, start, end)  # (H, R, end)
        scores -= scores.amax(-1, keepdim=True)  # else entropy is a small difference of large numbers
        logsum = scores.logsumexp(-1)
        a = (scores - logsum[..., None]).exp_()
        entropy = (logsum - (a * scores.clamp_min_(-1e30)).sum(-1)) / _largest_entropy(reading, layer, rows)
        repeated = (a.transpose(0, 1) @ masks).permute(2, 1, 0)  # (2, H, R)
        diagonal = a[..., start:end].diagonal(dim1=-2, dim2=-1)
        previous = a[..., start - 1 : end - 1].diagonal(dim1=-2, dim2=-1)
        user = a[..., slice(*message)].sum(-1) if message else torch.zeros_like(logsum)
        distance = rows - a @ keys
        values = (a[..., 0], previous, diagonal, *repeated, user, entropy, distance)
        layers.append(torch.stack([value.sum(-1) for value in values]))  # (M, H)
    ones = torch.full((len(METRICS),), float(end - start))
    ones[METRICS.index("duplicate")] = float(same.any(-1).sum())
    ones[METRICS.index("induction")] = float(after.any(-1).sum())
    ones[METRICS.index("user")] = float(end - start) if message else 0.0
    return _Block(start, end, message, torch.stack(layers, dim=1).cpu(), ones)


def _largest_entropy(reading: Reading, layer: int, rows: Tensor) -> Tensor:
    """The logarithm of the number of keys that each of these rows, from 1 on, looks at; no row is divided by 0."""
    keys = (rows + 1).clamp_max(reading.config.window(layer) or reading.length)
    return keys.float().log().clamp_min(torch.finfo(torch.float32).tiny)


def _occurrences(tokens: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """For rows start.. of a text: which earlier keys hold the same token, and which stand right after such a key."""
    end = len(tokens)
    earlier = torch.arange(end, device=tokens.device) < torch.arange(start, end, device=tokens.device)[:, None]
    same = (tokens[start:, None] == tokens) & earlier
    return same, F.pad(same, (1, 0))[:, :-1] & earlier


class Thumbnails:
    """A small picture of every head's pattern: each cell the largest weight among its rows and keys, without the first.

    Cells are squares of 2^k tokens, so that a picture that grows is shrunk by half at times and never computed anew.
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._cells = torch.zeros(0)
        self._size, self._done = 1, 0

    @torch.inference_mode()
    def update(self, session: Session) -> tuple[Tensor, int]:
        """Pictures (L, H, n, n) of weights, n at most SIDE, and how many tokens a cell's side stands for."""
        reading, tokens, _ = _moment(session)
        self._begin(common_prefix(self._tokens, tokens), reading)
        while self._size * SIDE < reading.length:
            self._shrink()
        for start, end in blocks_of_rows(max(self._done, reading.first), reading.length):
            for layer in range(reading.queries.shape[0]):
                weights = block_scores(reading, layer, start, end).softmax(-1)
                weights[..., 0] = 0
                self._paint(self._cells[layer], weights.cpu(), start)
        self._tokens, self._done = _still(tokens, session), reading.length
        n = -(-reading.length // self._size)
        return self._cells[..., :n, :n], self._size

    def _begin(self, known: int, reading: Reading) -> None:
        """Keep the rows of cells that hold nothing but the first `known` tokens, where the text was cut."""
        shape = (*reading.queries.shape[:2], SIDE, SIDE)
        if self._cells.shape != shape or self._size * SIDE > 2 * max(reading.length, SIDE):
            self._cells, self._size, known = torch.zeros(shape), 1, 0
        if known < self._done:
            whole = known // self._size
            self._cells[..., whole:, :] = 0
            self._done = whole * self._size

    def _shrink(self) -> None:
        halved = F.max_pool2d(self._cells, 2)
        self._cells = F.pad(halved, (0, SIDE // 2, 0, SIDE // 2))
        self._size *= 2

    def _paint(self, cells: Tensor, weights: Tensor, start: int) -> None:
        """Take rows `start`.. of one layer's heads, (H, R, S), into their cells (H, SIDE, SIDE)."""
        lead = start % self._size
        R, S = weights.shape[1:]
        padded = F.pad(weights, (0, -S % self._size, lead, -(lead + R) % self._size))
        pooled = F.max_pool2d(padded, self._size)  # (H, r, s)
        row = start // self._size
        place = cells[:, row : row + pooled.shape[1], : pooled.shape[2]]
        torch.maximum(place, pooled, out=place)


@torch.inference_mode()
def similarity(session: Session, layer: int, head: int) -> Tensor:
    """How alike every head's pattern is to that of one head, (L, H) float32 from 0 to 1; NaN where there is no row.

    The weight that two patterns put on the same places over the weight that either puts anywhere, the first key left
    out (Ruzicka's index): sum of min(a, b) / sum of max(a, b), over all rows. Raises IndexError for a head that does
    not exist.
    """
    reading = session.cache.reading()
    n_layer, n_head = reading.queries.shape[:2]
    if not (0 <= layer < n_layer and 0 <= head < n_head):
        raise IndexError(f"there is no layer {layer}, head {head}; there are {n_layer} layers of {n_head} heads")
    shared, total = torch.zeros(n_layer, n_head), torch.zeros(n_layer, n_head)
    for start, end in blocks_of_rows(reading.first, reading.length):
        wanted = block_scores(reading, layer, start, end).softmax(-1)[head, :, 1:]  # (R, S - 1)
        for other in range(n_layer):
            weights = block_scores(reading, other, start, end).softmax(-1)[..., 1:]  # (H, R, S - 1)
            shared[other] += torch.minimum(weights, wanted).sum((-2, -1)).cpu()
            total[other] += weights.sum((-2, -1)).cpu() + wanted.sum().cpu()
    return shared / (total - shared)
