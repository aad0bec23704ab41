"""The tokens that are still there while filters act on one step's logits: the mutable middle of `shape_logits`.

Few of a large vocabulary survive the first real cut, and from then on everything is done for them alone. Before it,
passes over all are rare: tokens that go are marked, and the weights follow what changes.
"""

import math

import numpy as np
import torch

from gpt import filters

__all__ = ["STAYS", "Survivors", "expectation"]

STAYS = 255
"""In gone_by: the token is still there."""

Array = np.ndarray
_LARGE = 4096  # up to so many, it is cheaper to drop what is gone than to pass over it
_LIGHT, _HEAVY = 0.1, 10.0  # when the weights' sum leaves these bounds they are made anew, for precision


class Survivors:
    """Begins with all of `logits` (V,) float32; their softmax is `probs`, and its logarithm `logprobs`.

    `probs` is taken over, to be written to; the others stay as they are.
    `gone_by` (V,) uint8 holds the `stage` at which a token was taken out, STAYS for one that is still there; the
    owner counts `stage` up. Whatever takes tokens out leaves at least one: it does nothing and returns None instead.
    """

    def __init__(self, logits: Array, logprobs: Array, probs: Array) -> None:
        self.stage, self.count = 0, logits.size
        self.gone_by = np.full(logits.size, STAYS, dtype=np.uint8)
        self._ids: Array | None = None  # None: all
        self._logits = logits  # -inf for what is marked
        self._weights, self._stale = probs, False  # exp(logits - shift); stale: not made yet
        self._marks: list[Array] = []  # places of tokens that are gone
        self._borrowed = True  # the logits are the caller's until they are to be written to
        self._total, self._shift = 1.0, _subtracted(logits, logprobs)

    @property
    def ids(self) -> Array | slice:
        """The ids that `logits` and `probs` belong to, ascending: (n,) int64, or a slice of all."""
        return slice(None) if self._ids is None else self._ids

    @property
    def few(self) -> Array | None:
        """The same ids; None while they are all."""
        return self._ids

    @property
    def logits(self) -> Array:
        """(n,) float32, -inf for a token that is gone. Not to be written to."""
        return self._logits

    @property
    def probs(self) -> Array:
        """(n,) float32 with the sum 1, 0 for a token that is gone."""
        return self._weigh() / np.float32(self._total)

    @property
    def surprise(self) -> Array:
        """(n,) float32, -log(probs) in nats."""
        self._weigh()
        return np.float32(self._shift + math.log(self._total)) - self._logits

    @property
    def entropy(self) -> float:
        """In nats."""
        weights = self._weigh()
        for where in self._marks:  # for a moment: 0 times -inf is no number
            self._logits[where] = 0
        mean = expectation(weights, self._logits) / self._total
        for where in self._marks:
            self._logits[where] = -np.inf
        return self._shift + math.log(self._total) - mean

    def distribution(self) -> Array:
        """Over the whole vocabulary: (V,) float32, 0 for tokens that are gone."""
        probs = self.probs
        if self._ids is None:
            return probs
        full = np.zeros(self.gone_by.size, dtype=np.float32)
        full[self._ids] = probs
        return full

    def has(self, tokens: Array) -> Array:
        """Which of `tokens`, (m,) int64 in the vocabulary, are still there: (m,) bool."""
        return self.gone_by[tokens] == STAYS

    def read(self, tokens: Array) -> Array:
        """The logits (m,) of tokens that are still there."""
        return self._logits[self._where(tokens)]

    def change(self, tokens: Array, logits: Array) -> None:
        """New logits (m,) for some of the tokens that are still there, each named once."""
        if not tokens.size:
            return
        self._own()
        where = self._where(tokens)
        self._logits[where] = logits
        if not self._stale:
            before = float(self._weights[where].sum())
            self._weights[where] = np.exp(np.minimum(logits - np.float32(self._shift), 60))
            self._reweigh(self._total - before + float(self._weights[where].sum()))

    def scale(self, temperature: float) -> None:
        """Divide all logits by a temperature."""
        out = None if self._borrowed else self._logits
        self._logits = filters.scale_temperature(self._logits, temperature, out)
        self._stale, self._borrowed = True, False

    def drop(self, tokens: Array) -> float | None:
        """Take out some of the tokens that are still there, each named once; the share of mass that is left."""
        if not 0 < tokens.size < self.count:
            return None if tokens.size else 1.0
        self._weigh()
        self._own()
        where, before = self._where(tokens), self._total
        lost = float(self._weights[where].sum())
        self._logits[where], self._weights[where] = -np.inf, 0
        self._marks.append(where)
        self.gone_by[tokens] = self.stage
        self.count -= tokens.size
        self._reweigh(before - lost)
        return max(0.0, 1 - lost / before)

    def keep(self, what: Array) -> float | None:
        """Take out all but those in a mask (n,) bool or at ascending positions (m,); the share of mass that is left."""
        masked = what.dtype == bool
        if (int(np.count_nonzero(what)) if masked else what.size) == self._logits.size:
            return 1.0
        if masked and 2 * np.count_nonzero(what) > what.size > _LARGE:
            gone = np.flatnonzero(~what & (self._logits > -np.inf))
            return self.drop(gone if self._ids is None else self._ids[gone])
        where = np.flatnonzero(what) if masked else what
        if self._marks:
            where = where[self._logits[where] > -np.inf]
        if where.size in (0, self.count):
            return 1.0 if where.size else None
        self._weigh()
        before = self._total
        self._record(where)
        self._select(where)
        kept = _sum(self._weights)
        self._reweigh(kept)
        return min(1.0, kept / before)

    def _own(self) -> None:
        if self._borrowed:
            self._logits, self._borrowed = self._logits.copy(), False

    def _where(self, tokens: Array) -> Array:
        return tokens if self._ids is None else np.searchsorted(self._ids, tokens)

    def _weigh(self) -> Array:
        """The weights, of which `_total` is the sum."""
        if self._stale:
            self._shift, self._stale = float(self._logits.max()), False
            np.subtract(self._logits, np.float32(self._shift), out=self._weights)
            torch.from_numpy(self._weights).exp_()
            self._total = _sum(self._weights)
        return self._weights

    def _reweigh(self, total: float) -> None:
        self._total = total
        self._stale = not _LIGHT < total < _HEAVY

    def _record(self, where: Array) -> None:
        """Put down to this stage what is not at `where`, unless an earlier one took it."""
        if self._ids is None:
            earlier = [(gone, self.gone_by[gone]) for gone in self._marks]
            self.gone_by.fill(self.stage)
            for gone, stage in earlier:
                self.gone_by[gone] = stage
            self.gone_by[where] = STAYS
        else:
            gone = np.ones(self._ids.size, dtype=bool)
            for place in (where, *self._marks):
                gone[place] = False
            self.gone_by[self._ids[gone]] = self.stage

    def _select(self, where: Array) -> None:
        """Go on with those at `where` alone."""
        ids = where if self._ids is None else self._ids[where]
        self._ids, self._logits, self._weights = ids, self._logits[where], self._weights[where]
        self.count, self._marks, self._borrowed = where.size, [], False


def expectation(weights: Array, values: Array) -> float:
    """The sum of weights (n,) times values (n,), in which 0 times -inf is 0."""
    with np.errstate(invalid="ignore"):
        total = float(np.dot(weights, values))
    return total if math.isfinite(total) else float(np.dot(weights, np.maximum(values, np.finfo(np.float32).min)))


def _subtracted(logits: Array, logprobs: Array) -> float:
    """The logarithm of what the exponentials of the logits add up to."""
    total = float(logits[0] - logprobs[0]) if math.isfinite(logits[0]) else math.inf
    return total if math.isfinite(total) else float(logits.max() - logprobs.max())


def _sum(values: Array) -> float:
    """torch adds up a whole vocabulary faster than numpy, which is faster for few numbers."""
    return float(torch.from_numpy(values).sum() if values.size > _LARGE else values.sum())
