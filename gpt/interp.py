"""What can be read off a session afterwards: exact attention patterns, and metrics that summarise each head.

Patterns are derived from the queries and keys that the cache kept of the very pass that made the text, in float32.
Nothing here runs the model.
"""

import math

import torch
from torch import Tensor

from gpt.branch import common_prefix
from gpt.session import Session

__all__ = ["METRICS", "HeadMetrics", "attention_pattern"]

METRICS = ("first", "previous", "entropy", "distance")
"""Names of the head metrics; `HeadMetrics` defines them."""

_ROWS = 64  # rows of all heads that are held at once while metrics are computed


@torch.inference_mode()
def attention_pattern(
    session: Session, layer: int, heads: list[int] | int | None = None, rows: list[int] | range | None = None
) -> Tensor:
    """Attention weights (H', R, S) in float32 on the CPU: row = query position (who reads), column = key position
    (what is read).

    `heads` and `rows` default to all. S is the number of positions the model has read, `session.cache.length`; the
    token that was chosen last has no row yet. Raises IndexError for a layer, head or row that does not exist.
    """
    with session.lock:
        q, k = session.cache.queries(), session.cache.keys()
        n_layer, n_head, S, _ = q.shape
        _check("layer", [layer], n_layer)
        heads = list(range(n_head)) if heads is None else [heads] if isinstance(heads, int) else list(heads)
        rows = range(S) if rows is None else rows
        _check("head", heads, n_head)
        _check("row", rows, S)
        group = n_head // k.shape[1]
        index = torch.tensor(list(rows), dtype=torch.int64, device=q.device)
        chosen_q = q[layer, heads][:, index].float()  # (H', R, D)
        chosen_k = k[layer, [h // group for h in heads]].float()  # (H', S, D)
    return _softmax_pattern(chosen_q, chosen_k, index).cpu()


def _softmax_pattern(q: Tensor, k: Tensor, rows: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) with the causal mask: q (..., R, D), k (..., S, D), rows (R,) -> (..., R, S)."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.arange(k.shape[-2], device=q.device) > rows[:, None]  # (R, S)
    return scores.masked_fill_(future, -math.inf).softmax(-1)


def _check(name: str, wanted: list[int] | range, size: int) -> None:
    for index in wanted:
        if not 0 <= index < size:
            raise IndexError(f"there is no {name} {index}; {name}s go from 0 to {size - 1}")


class HeadMetrics:
    """Running means, over all rows but the first, of four numbers for every head. Each row is computed once.

    first     weight on position 0, where idle heads park their attention (Xiao et al. 2023, attention sinks)
    previous  weight on the position just before the query
    entropy   entropy of the row as a fraction of the largest possible, log(number of keys)
    distance  mean distance in tokens between query and key, weighted by attention
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._rows: list[Tensor] = []  # one (4, L, H) a row, from row 1 on

    def update(self, session: Session) -> dict[str, Tensor]:
        """Read the rows that are new since the last call; each metric as (L, H) float32, zeros before the first row."""
        with session.lock:
            length = session.cache.length
            tokens = session.tokens[:length]
            q, k = session.cache.queries(), session.cache.keys()
        known = common_prefix(self._tokens, tokens)
        del self._rows[max(known - 1, 0) :]
        for start in range(1 + len(self._rows), length, _ROWS):
            self._rows += _row_metrics(q, k, start, min(start + _ROWS, length)).unbind(0)
        self._tokens = tokens
        means = torch.stack(self._rows).mean(0) if self._rows else torch.zeros(len(METRICS), *q.shape[:2])
        return dict(zip(METRICS, means, strict=True))


@torch.inference_mode()
def _row_metrics(q: Tensor, k: Tensor, start: int, end: int) -> Tensor:
    """The four metrics (R, 4, L, H) of rows start..end-1, layer by layer."""
    rows = torch.arange(start, end, device=q.device)
    group = q.shape[1] // k.shape[1]
    distance = (rows[:, None] - torch.arange(end, device=q.device)).float()  # (R, S)
    layers = []
    for layer in range(q.shape[0]):
        keys = k[layer, :, :end].float().repeat_interleave(group, dim=0)
        a = _softmax_pattern(q[layer, :, start:end].float(), keys, rows)  # (H, R, S)
        entropy = torch.special.entr(a).sum(-1) / (rows + 1).float().log()
        previous = a.gather(-1, (rows - 1).expand(a.shape[0], -1)[..., None])[..., 0]
        layers.append(torch.stack((a[..., 0], previous, entropy, (a * distance).sum(-1))))  # (4, H, R)
    return torch.stack(layers).permute(3, 1, 0, 2).cpu()
