"""From logits to a token: the active filters in their declared order, what each of them did, and the draw.

Randomness is an argument: `uniform(seed, position)` gives the draw u, and `pick` inverts the cumulative distribution
of the survivors, so the same prefix, seed and parameters give the same token whatever happened before. A filter that
would leave no token is not applied, and said so: no setting can stop a reply.

Source of the draw: SplitMix64 (Steele et al. 2014). The sources of the filters are named in filters.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from gpt import filters
from gpt.lexicon import Lexicon
from gpt.params import SamplingParams
from gpt.survivors import STAYS, Survivors, expectation

__all__ = ["HEAD", "Shaped", "Stage", "Step", "next_mu", "pick", "shape_logits", "uniform"]

HEAD = 20
"""How many of the most probable tokens the draw takes in descending order."""


@dataclass(frozen=True)
class Step:
    """What filters may look at besides the logits.

    history: all tokens before the one to be chosen, prompt included; history[reply_start:] is the reply so far, and
    history[grammar_start:] must fit the grammar. coin: XTC's draw in [0, 1), uniform(seed, position, stream=1).
    mu: mirostat's state before this step, in bits; None where it begins.
    """

    history: Sequence[int] = ()
    reply_start: int = 0
    grammar_start: int = 0
    coin: float = 0.0
    mu: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What one filter left: how many tokens, and the share of the mass that entered it (1 if it only reshapes)."""

    name: str
    tokens: int
    kept: float


@dataclass(frozen=True)
class Shaped:
    """What the filters made of one step's logits: tensors on the CPU, used within the step only.

    logprobs: (V,) float32, the natural logarithm of the model's own distribution, and its entropy in nats; final: (V,)
    float32, the distribution to draw from, 0 where removed. `stages` are the active filters in order; `ignored` those
    of them that were not applied, because they would have left nothing or the text does not fit the grammar. `trail`
    holds the distribution (V,) after each stage, if asked for. gone_by: (V,) uint8, the stage that removed a token.
    left: ascending ids (n,), all survivors among them; None where nothing says that these are few.
    """

    logprobs: Tensor
    entropy: float
    final: Tensor
    stages: tuple[Stage, ...]
    ignored: tuple[str, ...]
    gone_by: np.ndarray
    trail: tuple[Tensor, ...] = ()
    left: np.ndarray | None = None

    def removed_by(self, token: int) -> str | None:
        """The filter that removed the token, or None if it survived."""
        stage = int(self.gone_by[token])
        return None if stage == STAYS else self.stages[stage].name

    def rank(self, token: int) -> int:
        """The token's place among all by the model's own probability: 1 + the number of more probable ones."""
        logprobs = self.logprobs.numpy()
        value, head = logprobs[token], logprobs[self._head]
        return 1 + int(np.count_nonzero((head if value >= head.min() else logprobs) > value))

    @cached_property
    def _head(self) -> np.ndarray:
        return filters.largest(self.logprobs.numpy(), HEAD)

    @cached_property
    def probs(self) -> Tensor:
        """The model's own distribution, (V,) float32."""
        return self.logprobs.exp() if self.stages else self.final

    def probs_of(self, tokens: Sequence[int]) -> list[float]:
        """What the model's own distribution gives to some tokens."""
        return torch.from_numpy(self.logprobs.numpy()[tokens]).exp_().tolist()

    def top(self, n: int) -> list[int]:
        """The n most probable tokens for the model itself, in descending order, of equals the lower id first."""
        logprobs = self.logprobs.numpy()
        at = self._head if n <= HEAD else filters.largest(logprobs, n)
        return at[np.argsort(-logprobs[at], kind="stable")][:n].tolist()


def shape_logits(logits: Tensor, params: SamplingParams, step: Step, lexicon: Lexicon, trail: bool = False) -> Shaped:
    """Run the active filters over logits (V,) float32 on the CPU. Raises nothing.

    trail: keep the distribution after each stage as well.
    """
    logprobs = logits.log_softmax(0)
    probs = logprobs.exp()
    entropy = -expectation(probs.numpy(), logprobs.numpy())
    active = params.active()
    if not active:
        return Shaped(logprobs, entropy, probs, (), (), np.full(logits.numel(), STAYS, dtype=np.uint8))
    alive = Survivors(logits.numpy(), logprobs.numpy(), probs.numpy())
    here = _Here(alive, params, step, lexicon)
    stages, ignored, passed = [], [], []
    for alive.stage, name in enumerate(active):
        kept = _APPLY[name](here)
        if kept is None:
            ignored.append(name)
        stages.append(Stage(name, alive.count, 1.0 if kept is None else kept))
        if trail:
            passed.append(torch.from_numpy(alive.distribution()))
    final, gone = torch.from_numpy(alive.distribution()), alive.gone_by
    return Shaped(logprobs, entropy, final, tuple(stages), tuple(ignored), gone, tuple(passed), alive.few)


def next_mu(mu: float | None, params: SamplingParams, final_logprob: float) -> float | None:
    """Mirostat's state, in bits, after a token of that probability (nats) was chosen; None when mirostat is off.

    `mu` before the first one is None, which stands for 2 tau. A token that was removed, chosen by hand, leaves it.
    Source: Basu et al. 2021, version 2.
    """
    if not params.mirostat_tau:
        return None
    mu = 2 * params.mirostat_tau if mu is None else mu
    if not math.isfinite(final_logprob):
        return mu
    return mu - params.mirostat_eta * (-final_logprob / math.log(2) - params.mirostat_tau)


# ---- filters by name -----------------------------------------------------------------------------
# Each acts on the survivors and returns the share of mass that it kept, None if it cannot be applied.


@dataclass(frozen=True)
class _Here:
    """All that filters look at in one step."""

    alive: Survivors
    params: SamplingParams
    step: Step
    lexicon: Lexicon

    @cached_property
    def past(self) -> np.ndarray:
        """The whole history, (t,) int64, without what has no logit."""
        past = np.array(self.step.history, dtype=np.int64)
        return past[(past >= 0) & (past < self.alive.gone_by.size)]

    @cached_property
    def window(self) -> np.ndarray:
        """The tokens that the penalties look at, (t,) int64."""
        return self.past[-self.params.penalty_window :]  # -0: all

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Every token of the window once, and how often it occurs there."""
        return filters.tally(self.window)


def _bias(here: _Here) -> float:
    size = here.alive.gone_by.size
    added = filters.bias_sequences(here.params.logit_bias, here.step.history)
    added = {token: bias for token, bias in added.items() if token < size}
    return _subtract(here, np.array(list(added), dtype=np.int64), -np.array(list(added.values())))


def _repetition(here: _Here) -> float:
    tokens = here.counts[0]
    tokens = tokens[here.alive.has(tokens)]
    here.alive.change(tokens, filters.penalise_repetition(here.alive.read(tokens), here.params.repetition_penalty))
    return 1.0


def _presence(here: _Here) -> float:
    tokens, times = here.counts
    return _subtract(here, tokens, np.full(times.size, here.params.presence_penalty))


def _frequency(here: _Here) -> float:
    tokens, times = here.counts
    return _subtract(here, tokens, times * here.params.frequency_penalty)


def _dry(here: _Here) -> float:
    params, allowed = here.params, here.params.dry_allowed_length
    tokens, lengths = filters.repeats(here.window, allowed + filters.dry_limit(params.dry_base))
    most = int(lengths.max(initial=0))
    if most < allowed:
        return 1.0
    lengths = np.minimum(lengths, here.lexicon.unbroken(params.dry_breakers, here.step.history, most))
    tokens, lengths = filters.longest(tokens[lengths >= allowed], lengths[lengths >= allowed])
    breakers = here.lexicon.breakers(params.dry_breakers)
    unbroken = np.array([t not in breakers for t in tokens.tolist()], dtype=bool)
    amounts = filters.penalise_dry(lengths, allowed, params.dry_multiplier, params.dry_base)
    return _subtract(here, tokens[unbroken], amounts[unbroken])


def _subtract(here: _Here, tokens: np.ndarray, amounts: np.ndarray) -> float:
    there = here.alive.has(tokens)
    tokens = tokens[there]
    here.alive.change(tokens, here.alive.read(tokens) - amounts[there].astype(np.float32))
    return 1.0


def _ngrams(here: _Here) -> float | None:
    return _drop(here, filters.tally(filters.next_of_ngrams(here.past, here.params.no_repeat_ngram))[0])


def _banned(here: _Here) -> float | None:
    step = here.step
    return _drop(here, here.lexicon.banned(here.params.banned, step.history[step.reply_start :]).numpy())


def _min_new(here: _Here) -> float | None:
    if len(here.step.history) - here.step.reply_start >= here.params.min_new_tokens:
        return 1.0
    return _drop(here, np.array(sorted(here.lexicon.end_tokens), dtype=np.int64))


def _drop(here: _Here, tokens: np.ndarray) -> float | None:
    return here.alive.drop(tokens[here.alive.has(tokens)])


def _grammar(here: _Here) -> float | None:
    allowed = here.lexicon.allowed(here.params.grammar, here.step.history[here.step.grammar_start :])
    return None if allowed is None else here.alive.keep(allowed.numpy()[here.alive.ids])


def _temperature(here: _Here) -> float | None:
    alive, value, spread = here.alive, here.params.temperature, here.params.dynatemp_range
    if spread:
        value = filters.dynamic_temperature(alive.entropy, alive.count, value, spread, here.params.dynatemp_exponent)
    if value == 0:
        return alive.keep(filters.keep_largest(alive.logits))
    alive.scale(value)
    return 1.0


def _typical(here: _Here) -> float | None:
    alive = here.alive
    return alive.keep(filters.keep_typical(alive.surprise, alive.probs, alive.entropy, here.params.typical_p))


def _eta(here: _Here) -> float | None:
    return here.alive.keep(filters.keep_eta(here.alive.probs, here.alive.entropy, here.params.eta_cutoff))


def _xtc(here: _Here) -> float | None:
    if here.step.coin >= here.params.xtc_probability:
        return 1.0
    return here.alive.keep(filters.keep_xtc(here.alive.probs, here.params.xtc_threshold))


def _mirostat(here: _Here) -> float | None:
    mu = 2 * here.params.mirostat_tau if here.step.mu is None else here.step.mu
    return here.alive.keep(filters.keep_mirostat(here.alive.probs, mu))


def _by_logits(here: _Here, keep: Callable[[np.ndarray, float], np.ndarray], value: str) -> float | None:
    return here.alive.keep(keep(here.alive.logits, getattr(here.params, value)))


def _by_probs(here: _Here, keep: Callable[[np.ndarray, float], np.ndarray], value: str) -> float | None:
    return here.alive.keep(keep(here.alive.probs, getattr(here.params, value)))


_APPLY: dict[str, Callable[[_Here], float | None]] = {
    "logit_bias": _bias,
    "repetition_penalty": _repetition,
    "presence_penalty": _presence,
    "frequency_penalty": _frequency,
    "dry": _dry,
    "no_repeat_ngram": _ngrams,
    "banned": _banned,
    "min_new_tokens": _min_new,
    "grammar": _grammar,
    "temperature": _temperature,
    "top_k": partial(_by_logits, keep=filters.keep_top_k, value="top_k"),
    "top_p": partial(_by_probs, keep=filters.keep_top_p, value="top_p"),
    "min_p": partial(_by_probs, keep=filters.keep_min_p, value="min_p"),
    "typical_p": _typical,
    "top_a": partial(_by_probs, keep=filters.keep_top_a, value="top_a"),
    "tfs": partial(_by_probs, keep=filters.keep_tail_free, value="tfs_z"),
    "top_n_sigma": partial(_by_logits, keep=filters.keep_top_n_sigma, value="top_n_sigma"),
    "epsilon_cutoff": partial(_by_probs, keep=filters.keep_epsilon, value="epsilon_cutoff"),
    "eta_cutoff": _eta,
    "xtc": _xtc,
    "mirostat": _mirostat,
}


# ---- the draw ------------------------------------------------------------------------------------


def pick(probs: Tensor, u: float, left: np.ndarray | None = None) -> int:
    """The token at which the cumulative distribution (V,) first exceeds u in [0, 1).

    The HEAD most probable tokens come first, in descending order (equal ones by id), as the screen draws them; the
    others follow by id. In the long tail neighbours in probability differ by less than the rounding errors of two
    ways to compute the same logits, so an order by probability there would let one seed give two texts.

    left: ascending ids, all those with a probability above 0 among them, if they are known.
    """
    full = probs.numpy()
    at = np.flatnonzero(full > 0) if left is None else left[full[left] > 0]
    if 8 * at.size >= full.size:
        return _pick(probs, u)
    return int(at[_pick(torch.from_numpy(full[at]), u)])


def _pick(probs: Tensor, u: float) -> int:
    values = probs.numpy()
    head = filters.largest(values, HEAD)
    head = head[np.argsort(-values[head], kind="stable")]
    first = values[head].cumsum(dtype=np.float64)
    target = u * float(probs.sum(dtype=torch.float64))
    if target < first[-1]:
        return int(head[np.searchsorted(first, target, side="right")])
    rest = probs.double().index_fill_(0, torch.from_numpy(head), 0).cumsum(0).numpy()
    if rest[-1] == 0:
        return int(head[-1])
    last = np.nextafter(rest[-1], 0)  # the two sums may differ in their last bit
    return int(np.searchsorted(rest, min(target - first[-1], last), side="right"))


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """The draw for one position: a number in [0, 1) that depends on seed, position and stream alone.

    SplitMix64, 53 bits. Stream 0 draws tokens, 1 XTC's coin.
    """
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03 + stream * 0x8CB92BA72F3D8DD7) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)
