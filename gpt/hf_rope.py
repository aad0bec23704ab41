"""Rotary positions as config.json of Hugging Face checkpoints describes them -> Rope, and back.

Two styles are read: `rope_parameters` of transformers 5, and before it `rope_theta` beside `rope_scaling`, which is the
one that is written, because both read it. Source: transformers' modeling_rope_utils.
"""

import math
from typing import Any

from gpt.config import GPTConfig, Rope, UnsupportedModel

__all__ = ["rope_from_hf", "rope_to_hf"]

Values = dict[str, Any]


def rope_from_hf(c: Values, kinds: tuple[str, ...], theta: float, share: float | None, numbers: Values) -> Values:
    """`rope`, and `block_size` where it ends before the model's does, as values of GPTConfig.

    `kinds` are those that the family may have, `theta` and `share` (None: whole heads only) what it takes where the
    file does not say, `numbers` the values of GPTConfig that are known. Raises UnsupportedModel for anything else.
    """
    p = {**_parameters(c)}
    kind = p.get("rope_type") or p.get("type") or "default"
    if kind not in kinds:
        raise UnsupportedModel(f"rope scaling {kind!r} is not supported (only {', '.join(kinds)})")
    theta = float(p.get("rope_theta") or c.get("rope_theta") or c.get("rotary_emb_base") or theta)
    given = p.get("partial_rotary_factor", c.get("partial_rotary_factor", c.get("rotary_pct")))
    part = given if given is not None else share or 1.0
    if share is None and part != 1:
        raise UnsupportedModel("rotary positions over a part of the head are not supported in this architecture")
    dim = int(numbers["head_dim"] * part)
    common = {"theta": theta, "dim": 0 if dim == numbers["head_dim"] else dim}
    if kind == "default":
        return {"rope": Rope(**common)}
    longest = numbers["block_size"]
    original = c.get("original_max_position_embeddings") or p.get("original_max_position_embeddings") or longest
    if kind == "longrope" or (kind in ("su", "yarn") and "su" in kinds):
        return _longrope(p, common, original, longest)
    if kind == "yarn":
        return {"rope": _yarn(p, common, original, longest)}
    if kind == "llama3":
        low, high = (float(_need(p, f"{name}_freq_factor")) for name in ("low", "high"))
        common |= {"original": original, "low": low, "high": high}
    return {"rope": Rope(kind=kind, factor=float(_need(p, "factor")), **common)}


def _parameters(c: Values) -> Values:
    """The description in force: of layers that see everything, where layers differ."""
    legacy, new = c.get("rope_scaling") or {}, c.get("rope_parameters") or {}
    if "full_attention" in new or "sliding_attention" in new:
        return {**(new.get("full_attention") or {}), **legacy}
    return legacy or new


def _need(p: Values, key: str) -> Any:
    if p.get(key) is None:
        raise ValueError(f"the checkpoint's rope scaling lacks {key!r}; is the file complete?")
    return p[key]


def _yarn(p: Values, common: Values, original: int, longest: int) -> Rope:
    factor = float(p.get("factor") or longest / original)
    amplitude = p.get("attention_factor")
    if amplitude is None:
        m, all_dim = p.get("mscale"), p.get("mscale_all_dim")
        amplitude = _growth(factor, m) / _growth(factor, all_dim) if m and all_dim else _growth(factor, 1)
    return Rope(
        kind="yarn",
        factor=factor,
        original=original,
        low=float(p.get("beta_slow") or 1),
        high=float(p.get("beta_fast") or 32),
        whole=bool(p.get("truncate", True)),
        amplitude=float(amplitude),
        **common,
    )


def _growth(factor: float, share: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * share * math.log(factor) + 1.0


def _longrope(p: Values, common: Values, original: int, longest: int) -> Values:
    """A divisor a dimension: other ones beyond the original context, where the model is therefore not run."""
    short, long = (tuple(map(float, _need(p, f"{name}_factor"))) for name in ("short", "long"))
    factor = float(p.get("factor") or longest / original)
    amplitude = p.get("attention_factor")
    if amplitude is None:
        amplitude = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    alike = short == long or longest <= original
    rope = Rope(
        kind="divided",
        factor=factor,
        original=original,
        divisors=short,
        beyond=() if alike else long,
        longest=0 if alike else longest,
        amplitude=float(amplitude),
        **common,
    )
    return {"rope": rope} if alike else {"rope": rope, "block_size": original}


def rope_to_hf(config: GPTConfig, partial: bool) -> Values:
    """The keys of config.json that describe a model's rotary positions, in the style that every version reads."""
    rope = config.rope
    c: Values = {"rope_theta": rope.theta}
    if partial:
        part = (rope.dim or config.head_dim) / config.head_dim
        c |= {"partial_rotary_factor": part, "rotary_pct": part, "rotary_emb_base": rope.theta}
    if rope.kind == "plain":
        return c
    scaling: Values = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "llama3":
        scaling |= {"low_freq_factor": rope.low, "high_freq_factor": rope.high}
    if rope.kind == "yarn":
        scaling |= {"beta_slow": rope.low, "beta_fast": rope.high, "truncate": rope.whole}
    if rope.kind == "divided":
        scaling |= {"rope_type": "longrope", "short_factor": list(rope.divisors)}
        scaling |= {"long_factor": list(rope.beyond or rope.divisors)}
    if rope.kind in ("yarn", "divided"):
        scaling |= {"attention_factor": rope.amplitude}
    if rope.kind in ("llama3", "yarn", "divided"):
        scaling |= {"original_max_position_embeddings": rope.original}
        c |= {"original_max_position_embeddings": rope.original}
    return c | ({"max_position_embeddings": rope.longest} if rope.longest else {}) | {"rope_scaling": scaling}
