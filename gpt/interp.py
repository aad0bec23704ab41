"""What a session's attention was, derived afterwards: exact patterns, what they look like as scores or contributions,
several heads taken together, rollout.

Everything comes from the queries, keys and values that the cache kept of the very pass that made the text, in float32.
Nothing here runs the model. No lock is taken, so that nobody waits for a step: whoever reads while history may be cut
must drop what was read before the cut (the page does so by its epoch). Head metrics are in heads.py.

Sources: Vaswani et al. 2017 (attention), Kobayashi et al. 2020 (norms of the weighted, transformed values), Abnar &
Zuidema 2020 (rollout).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt.cache import Reading
from gpt.model import GPT
from gpt.session import Session
from gpt.threads import use_all_threads

__all__ = ["MIXES", "QUANTITIES", "Sight", "attention_pattern", "block_scores", "blocks_of_rows", "output_gram",
           "rollout", "sight_rows"]  # fmt: skip

QUANTITIES = ("weight", "rest", "score", "value")
"""What a cell can show. score: q k^T / sqrt(D), or what the model has for it (another scale, a soft-cap), before the
softmax; -inf where a query does not look. weight: the softmax of that. rest: the weight without the first position,
each row scaled to sum to 1. value: weight times the norm of the head's output for that key, ||v W_o||: what the key
adds to the residual stream."""

MIXES = ("mean", "max", "rollout")
"""How several heads become one picture."""

Gram = Callable[[int], Tensor]
"""layer -> (H, D, D) float32: W_o W_o^T of each head, so that ||v W_o||^2 = v Gram v^T."""

_ROWS = 64  # rows of all heads of a layer that are held at once


@dataclass(frozen=True)
class Sight:
    """Which attention is looked at: heads as (layer, head), how several are mixed, and the quantity in a cell.

    "rollout" takes every head up to the layer of the only head that is given, and shows weights alone. Raises
    ValueError for anything else.
    """

    heads: tuple[tuple[int, int], ...]
    mix: str = "mean"
    what: str = "weight"

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError("heads must name at least one head")
        if self.mix not in MIXES:
            raise ValueError(f"mix must be one of {', '.join(MIXES)}, got {self.mix!r}")
        if self.what not in QUANTITIES:
            raise ValueError(f"what must be one of {', '.join(QUANTITIES)}, got {self.what!r}")
        if self.mix == "rollout" and (len(self.heads) > 1 or self.what != "weight"):
            raise ValueError("rollout takes one head, whose layer it goes up to, and shows weights only")

    @property
    def layers(self) -> dict[int, list[int]]:
        """layer -> its heads."""
        found: dict[int, list[int]] = {}
        for layer, head in self.heads:
            found.setdefault(layer, []).append(head)
        return found


@torch.inference_mode()
def attention_pattern(
    session: Session, layer: int, heads: list[int] | int | None = None, rows: list[int] | range | None = None
) -> Tensor:
    """Attention weights (H', R, S) in float32 on the CPU: row = query position (who reads), column = key position
    (what is read).

    `heads` and `rows` default to all. S is the number of positions the model has read, `session.cache.length`; the
    token that was chosen last has no row yet. Raises IndexError for a layer, head or row that does not exist, or whose
    query the cache has not kept.
    """
    reading = session.cache.reading()
    n_layer, n_head = reading.queries.shape[:2]
    _check("layer", [layer], n_layer)
    heads = list(range(n_head)) if heads is None else [heads] if isinstance(heads, int) else list(heads)
    _check("head", heads, n_head)
    rows = range(reading.first, reading.length) if rows is None else rows
    scores = _scores(reading, layer, heads, rows, reading.length)
    return scores.softmax(-1).cpu()


@torch.inference_mode()
def sight_rows(
    session: Session, sight: Sight, rows: range, gram: Gram | None = None, rolled: Tensor | None = None
) -> Tensor:
    """Rows of what is looked at, (R, rows.stop) float32 on the CPU; keys that a query does not see: 0, -inf in scores.

    `gram` is needed for the quantity "value", `rolled` is `rollout` up to the sight's layer, made when it is not given.
    Raises as `attention_pattern`.
    """
    if sight.mix == "rollout":
        ((layer, _),) = sight.heads
        rolled = rollout(session, layer) if rolled is None else rolled
        _check("row", rows, len(rolled))
        return rolled[rows.start : rows.stop, : rows.stop].clone()  # whoever asks may write into it
    reading, mixed, count = session.cache.reading(), None, len(sight.heads)
    n_layer, n_head = reading.queries.shape[:2]
    for layer, heads in sight.layers.items():
        _check("layer", [layer], n_layer)
        _check("head", heads, n_head)
        cells = _quantity(reading, layer, heads, rows, sight.what, gram)  # (H', R, S)
        part = cells.amax(0) if sight.mix == "max" else cells.sum(0) / count
        mixed = part if mixed is None else torch.maximum(mixed, part) if sight.mix == "max" else mixed + part
    return mixed.cpu()


def _quantity(reading: Reading, layer: int, heads: list[int], rows: range, what: str, gram: Gram | None) -> Tensor:
    scores = _scores(reading, layer, heads, rows, rows.stop)
    if what == "score":
        return scores
    weights = scores.softmax(-1)
    if what == "rest":
        weights[..., 0] = 0
        return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return weights * _norms(reading, layer, heads, rows.stop, gram)[:, None] if what == "value" else weights


def _norms(reading: Reading, layer: int, heads: list[int], end: int, gram: Gram | None) -> Tensor:
    """||v W_o|| of keys 0..end-1 for each head: (H', end)."""
    if gram is None:
        raise ValueError('the quantity "value" needs the output matrices: give gram, such as Engine.gram')
    group = reading.queries.shape[1] // reading.values.shape[1]
    v = reading.values[layer, [h // group for h in heads], :end].float()  # (H', S, D)
    return ((v @ gram(layer)[heads].to(v.device)) * v).sum(-1).clamp_min(0).sqrt()


def output_gram(model: GPT, layer: int) -> Tensor:
    """W_o W_o^T of each head of a layer, (H, D, D) float32: `out.weight` is (C, H D), one slice of columns a head."""
    config = model.config
    weight = model.blocks[layer].attn.out.weight.float()
    w = weight.view(-1, config.n_head, config.head_dim).transpose(0, 1)  # (H, C, D)
    return w.transpose(-1, -2) @ w


@torch.inference_mode()
def rollout(session: Session, layer: int) -> Tensor:
    """How much of each position's residual stream after `layer` comes from each token, (S, S) float32 on the CPU.

    Abnar & Zuidema 2020: the product, from layer 0 up, of (A + I) / 2, A being the mean pattern of a layer's heads.
    Raises IndexError for a layer that does not exist, or when not every query was kept.
    """
    reading = session.cache.reading()
    _check("layer", [layer], reading.queries.shape[0])
    if reading.first:
        raise IndexError(f"rollout needs every row, and the queries of the first {reading.first} were not kept")
    S = reading.length
    flow = torch.eye(S, device=reading.queries.device)
    for below in range(layer + 1):
        mixed = torch.empty_like(flow)
        for start, end in blocks_of_rows(0, S, 2 * _ROWS):
            mean = _scores(reading, below, None, range(start, end), end).softmax(-1).mean(0)  # (R, end)
            mixed[start:end] = mean @ flow[:end]
        flow = (mixed + flow) / 2
    return flow.cpu()


def blocks_of_rows(start: int, stop: int, size: int = _ROWS) -> Iterator[tuple[int, int]]:
    """Rows start..stop-1 as pieces (first, after the last) of `size`: as many as should be held at once."""
    return ((at, min(at + size, stop)) for at in range(start, stop, size))


def block_scores(reading: Reading, layer: int, start: int, end: int) -> Tensor:
    """Scores of rows start..end-1 of all heads of a layer, (H, R, end), -inf where a query does not look."""
    return _scores(reading, layer, None, range(start, end), end)


def _scores(reading: Reading, layer: int, heads: Sequence[int] | None, rows: Sequence[int], end: int) -> Tensor:
    """What the softmax is taken of, over keys 0..end-1: (H', R, end) float32.

    q k^T / sqrt(D), or with the model's own scale and soft-cap; -inf where a key comes after its query, or too long
    before it for the layer's window.
    """
    use_all_threads()
    q, k = reading.queries[layer], reading.keys[layer, :, :end].float()
    H, group = q.shape[0], q.shape[0] // k.shape[0]
    if isinstance(rows, range) and rows.step == 1:
        _check_rows(reading, (rows[0], rows[-1]) if rows else ())
        q = q[:, rows.start - reading.first : rows.stop - reading.first].float()
        index = torch.arange(rows.start, rows.stop, device=q.device)
    else:
        _check_rows(reading, rows)
        index = torch.tensor(list(rows), dtype=torch.int64, device=q.device)
        q = q[:, index - reading.first].float()
    heads = range(H) if heads is None else heads
    q = q[list(heads)] if len(heads) != H or list(heads) != list(range(H)) else q
    k = k[[h // group for h in heads]]  # (H', end, D)
    config = reading.config
    scores = torch.baddbmm(q.new_empty(()), q, k.transpose(-1, -2), beta=0, alpha=config.score_scale)
    if config.softcap:
        scores.div_(config.softcap).tanh_().mul_(config.softcap)
    keys, window = torch.arange(end, device=q.device), config.window(layer)
    hidden = keys > index[:, None]  # (R, end)
    if window is not None:
        hidden |= keys <= (index - window)[:, None]
    return scores.masked_fill_(hidden, -math.inf)


def _check(name: str, wanted: Iterable[int], size: int) -> None:
    for index in wanted:
        if not 0 <= index < size:
            raise IndexError(f"there is no {name} {index}; {name}s go from 0 to {size - 1}")


def _check_rows(reading: Reading, rows: Iterable[int]) -> None:
    rows = list(rows)
    _check("row", rows, reading.length)
    if rows and min(rows) < reading.first:
        raise IndexError(
            f"row {min(rows)} cannot be derived: queries are kept from position {reading.first} on, "
            "because more memory was not allowed for them"
        )
