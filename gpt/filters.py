"""The filters between logits and the draw: each a pure function of what it needs, named after its paper or program.

They see n tokens by ascending id: `logits` (n,) float32, -inf for one that was taken out before, `probs` (n,), their
softmax, and its entropy in nats. Those that reshape return logits. Those that cut return what stays, at least one
token: a mask (n,) bool or, where it is few of many, ascending positions (m,) int64; what was out before may be among
them. Nothing here knows of parameters, text or order (that is sampling.py), and nothing is random.
"""

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "bias_sequences",
    "dry_limit",
    "dynamic_temperature",
    "keep_epsilon",
    "keep_eta",
    "keep_largest",
    "keep_min_p",
    "keep_mirostat",
    "keep_tail_free",
    "keep_top_a",
    "keep_top_k",
    "keep_top_n_sigma",
    "keep_top_p",
    "keep_typical",
    "keep_xtc",
    "largest",
    "longest",
    "next_of_ngrams",
    "penalise_dry",
    "penalise_repetition",
    "repeats",
    "scale_temperature",
    "tally",
]

Array = np.ndarray

# ---- reshaping -----------------------------------------------------------------------------------


def bias_sequences(biases: Sequence[tuple[tuple[int, ...], float]], history: Sequence[int]) -> dict[int, float]:
    """Token -> what to add to its logit: the last token of each sequence whose other tokens end the history.

    Source: transformers' SequenceBiasLogitsProcessor; the OpenAI API's logit_bias for single tokens.
    """
    added: dict[int, float] = {}
    for tokens, bias in biases:
        before = len(tokens) - 1
        if before == 0 or list(history[-before:]) == list(tokens[:-1]):
            added[tokens[-1]] = added.get(tokens[-1], 0.0) + bias
    return added


def tally(tokens: Array) -> tuple[Array, Array]:
    """Every token of (t,) int64 once, ascending, and how often it occurs. np.unique takes twice the time."""
    if not tokens.size:
        return tokens, tokens
    tokens = np.sort(tokens)
    starts = np.array([0, *(np.flatnonzero(tokens[1:] != tokens[:-1]) + 1).tolist(), tokens.size])
    return tokens[starts[:-1]], starts[1:] - starts[:-1]


def penalise_repetition(logits: Array, penalty: float) -> Array:
    """The logits of tokens seen before: positive ones are divided by `penalty`, negative ones multiplied.

    Source: Keskar et al. 2019 (CTRL), as in transformers and llama.cpp.
    """
    return np.where(logits < 0, logits * np.float32(penalty), logits / np.float32(penalty))


def repeats(past: Array, longest: int) -> tuple[Array, Array]:
    """Tokens that followed in `past` (n,) int64 what also stands at its end, and how many tokens that was.

    Returns (m,) tokens, a token once for every place, and (m,) lengths, from 1 to `longest`.
    """
    at = np.flatnonzero(past[:-1] == past[-1]) if past.size else np.empty(0, dtype=np.int64)
    lengths = np.ones(at.size, dtype=np.int64)
    longer, length = np.arange(at.size), 1
    while longer.size and length < longest:  # all places at once, some tokens further back each time
        back = np.arange(length, min(longest, past.size, length + max(1, 1024 // longer.size)))
        places = at[longer, None] - back  # (places, tokens)
        same = (past[np.maximum(places, 0)] == past[past.size - 1 - back]) & (places >= 0)
        whole = same.all(axis=1)
        lengths[longer] += np.where(whole, back.size, same.argmin(axis=1))
        longer, length = longer[whole], length + back.size
    return past[at + 1], lengths


def longest(tokens: Array, lengths: Array) -> tuple[Array, Array]:
    """Every token once, (m,), with the greatest of its lengths."""
    order = np.lexsort((lengths, tokens))
    tokens, lengths = tokens[order], lengths[order]
    last = np.append(tokens[1:] != tokens[:-1], np.ones(min(1, tokens.size), dtype=bool))
    return tokens[last], lengths[last]


def penalise_dry(lengths: Array, allowed: int, multiplier: float, base: float) -> Array:
    """What to subtract from tokens that would make a repeated sequence longer than the `lengths` it has, >= allowed.

    multiplier * base ** (length - allowed), the power kept within float32. Source: "Don't Repeat Yourself", p-e-w
    2024, as in llama.cpp, where what breaks a sequence ends a repetition and is not penalised itself.
    """
    return multiplier * base ** np.minimum(lengths - allowed, dry_limit(base))


def dry_limit(base: float) -> int:
    """The largest exponent of DRY's base that float32 holds."""
    return int(88.7228391 / math.log(base)) if base > 1.000001 else 2**31


def scale_temperature(logits: Array, temperature: float, out: Array | None = None) -> Array:
    """Divide by a temperature above 0; `out` is where the result is written."""
    return np.divide(logits, np.float32(max(temperature, 1e-30)), out=out)  # smaller ones would be 0 in float32


def dynamic_temperature(entropy: float, count: int, temperature: float, spread: float, exponent: float) -> float:
    """The temperature for this step, from `temperature - spread` to `temperature + spread`.

    It grows with the entropy (nats) of the `count` tokens, as a share of the greatest possible. Source: "entropy-based
    dynamic temperature", kalomaze 2023, llama.cpp's temp_ext.
    """
    low, high = max(0.0, temperature - spread), temperature + spread
    if count < 2:
        return temperature
    return low + (high - low) * (max(entropy, 0.0) / math.log(count)) ** exponent


# ---- cutting: what stays -------------------------------------------------------------------------


def next_of_ngrams(past: Array, n: int) -> Array:
    """The tokens, (m,) int64, that would complete a sequence of n tokens that `past` (t,) int64 holds already.

    Source: Paulus et al. 2017; transformers' NoRepeatNGramLogitsProcessor.
    """
    last = np.arange(n - 1, past.size)
    for back in range(1, n):
        if not last.size:
            break
        last = last[past[last - back] == past[past.size - back]]
    return past[last]


def keep_largest(logits: Array) -> Array:
    """The one largest logit, of equals that of the lowest id: greedy decoding, temperature 0."""
    return np.array([logits.argmax()])


def keep_top_k(logits: Array, k: int) -> Array:
    """The k largest logits, and those that equal the k-th. Source: Fan et al. 2018."""
    return largest(logits, k)


def keep_top_p(probs: Array, p: float) -> Array:
    """The fewest most probable tokens whose mass reaches p; of equals the highest ids. Source: Holtzman et al. 2020."""
    some = 256 if probs.size > 1024 else probs.size
    while True:
        at = largest(probs, some)
        at = at[_ascending(probs[at])[::-1]]
        mass = probs[at].cumsum(dtype=np.float64)
        if at.size == probs.size or mass[-1] >= p:
            return np.sort(at[: 1 + int(np.searchsorted(mass[:-1], p))])
        some *= 16


def keep_min_p(probs: Array, p: float) -> Array:
    """Tokens at least p times as probable as the most probable one. Source: Nguyen et al. 2024."""
    return probs >= np.float32(p) * probs.max()


def keep_typical(surprise: Array, probs: Array, entropy: float, mass: float) -> Array:
    """The tokens whose surprise, (n,) -log(probs), is nearest to the entropy: the fewest whose mass reaches `mass`.

    Those as near as the last of them stay, too. Source: Meister et al. 2022, as in transformers.
    """
    distance = np.abs(surprise - np.float32(entropy))
    some = 256 if probs.size > 1024 else probs.size
    while True:
        at = largest(-distance, some)
        at = at[_ascending(distance[at])]
        reached = probs[at].cumsum(dtype=np.float64)
        if at.size == probs.size or reached[-1] >= mass:
            last = min(int(np.searchsorted(reached, mass)), at.size - 1)
            return distance <= distance[at[last]]
        some *= 16


def keep_top_a(probs: Array, a: float) -> Array:
    """Tokens at least `a` times as probable as the square of the greatest probability. Source: KoboldAI (BlinkDL)."""
    return probs >= np.float32(a) * np.square(probs.max())


def keep_tail_free(probs: Array, z: float) -> Array:
    """The tokens before the tail, which begins where the sorted probabilities have bent by a share `z` in all.

    The bend is the absolute second difference; the cut is centred on it. Source: Bricken 2019, as in KoboldAI.
    """
    at = np.flatnonzero(probs > 0)
    at = at[_ascending(probs[at])[::-1]]
    bends = np.abs(np.diff(probs[at].astype(np.float64), n=2))
    total = bends.sum()
    if total == 0:
        return np.ones(probs.size, dtype=bool)
    return np.sort(at[: 1 + int(np.searchsorted(bends.cumsum() / total, z, side="right"))])


def keep_top_n_sigma(logits: Array, n: float) -> Array:
    """Logits within n standard deviations of the largest. Source: Tang et al. 2024, as in llama.cpp."""
    return logits >= logits.max() - np.float32(n) * logits[logits > -np.inf].std(dtype=np.float64)


def keep_epsilon(probs: Array, epsilon: float) -> Array:
    """Tokens with a probability of at least epsilon, and the most probable. Source: Hewitt et al. 2022."""
    return (probs >= np.float32(epsilon)) | (probs == probs.max())


def keep_eta(probs: Array, entropy: float, epsilon: float) -> Array:
    """As epsilon, with a threshold that sinks with the entropy: min(epsilon, sqrt(epsilon) * exp(-entropy)).

    Source: Hewitt et al. 2022.
    """
    return keep_epsilon(probs, min(epsilon, math.sqrt(epsilon) * math.exp(-entropy)))


def keep_xtc(probs: Array, threshold: float) -> Array:
    """All but the tokens of at least `threshold`, of which the least probable stays (of equals the highest id).

    Source: "Exclude Top Choices", p-e-w 2024, as in llama.cpp: a threshold above 0.5 does nothing.
    """
    top = np.flatnonzero(probs >= np.float32(threshold))
    mask = np.ones(probs.size, dtype=bool)
    if threshold <= 0.5 and top.size > 1:
        mask[top] = False
        mask[top[np.flatnonzero(probs[top] == probs[top].min())[-1]]] = True
    return mask


def keep_mirostat(probs: Array, mu: float) -> Array:
    """Tokens with a surprise of at most mu bits, and the most probable. Source: Basu et al. 2021, version 2."""
    mask = probs >= np.float32(2.0 ** min(-mu, 64.0))
    return mask if mask.any() else keep_largest(probs)


# ---- selecting without sorting all ---------------------------------------------------------------


def largest(values: Array, k: int) -> Array:
    """Where the k largest of (n,) values stand, and those that equal the k-th: ascending positions.

    The k-th largest of the maxima of blocks is at most the k-th largest value: few pass that, and only they are
    partitioned.
    """
    if k >= values.size:
        return np.arange(values.size)
    size = 64 if values.size >= 512 * k else 16  # of a block
    at = _most(values, k, size) if values.size >= 2 * size * k else None
    some = values if at is None else values[at]
    mask = some >= np.partition(some, some.size - k)[some.size - k]
    return np.flatnonzero(mask) if at is None else at[mask]


def _most(values: Array, k: int, size: int) -> Array:
    """Where the values stand that reach the k-th largest of the maxima of blocks of `size`: ascending positions."""
    rows = values.size // size
    blocks = values[: size * rows].reshape(size, rows)  # a block is a column
    maxima = blocks.max(axis=0)
    bound = np.partition(maxima, rows - k)[rows - k]
    if rows < 8 * k:
        return np.flatnonzero(values >= bound)
    columns = np.flatnonzero(maxima >= bound)  # few: the others need not be looked at
    row, column = np.divmod(np.flatnonzero(blocks.take(columns, axis=1) >= bound), columns.size)
    rest = size * rows + np.flatnonzero(values[size * rows :] >= bound)
    return np.concatenate((row * rows + columns[column], rest))


def _ascending(values: Array) -> Array:
    """The positions of (n,) float32 values >= 0 in ascending order, of equals the lower position first.

    Sorting the bits of value and position as one integer is several times faster than a stable sort.
    """
    keys = values.view(np.uint32).astype(np.uint64) << np.uint64(32) | np.arange(values.size, dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
