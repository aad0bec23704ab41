"""Sampling parameters as options of a command: every one that there is, with what it does."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt.params import FILTERS, LIMITS, NEUTRAL, PRESETS, WHOLE, SamplingParams

__all__ = ["add_options", "params_of"]

HELP = {
    "temperature": "0 = always the most probable token, 1 = as the model says",
    "dynatemp_range": "let the temperature vary by this much with the entropy, 0 = off",
    "dynatemp_exponent": "how the entropy sets a dynamic temperature",
    "top_k": "keep the k most probable tokens, 0 = off",
    "top_p": "keep the smallest set with this much probability, 1 = off",
    "min_p": "keep tokens this probable relative to the best, 0 = off",
    "typical_p": "keep the most typical tokens with this much probability, 1 = off",
    "top_a": "keep tokens above this times the best probability squared, 0 = off",
    "tfs_z": "tail-free sampling: cut where the curve flattens, 1 = off",
    "top_n_sigma": "keep logits within n standard deviations of the best, 0 = off",
    "epsilon_cutoff": "remove tokens below this probability, 0 = off",
    "eta_cutoff": "as epsilon, lower where the entropy is high, 0 = off",
    "xtc_probability": "how often to exclude the top choices, 0 = off",
    "xtc_threshold": "top choices are those above this probability",
    "mirostat_tau": "mirostat v2: aim at this surprise in bits, 0 = off",
    "mirostat_eta": "mirostat v2: how fast to correct",
    "repetition_penalty": "above 1 makes tokens that were seen less likely",
    "presence_penalty": "subtracted from the logit of every token that was seen",
    "frequency_penalty": "subtracted for every time a token was seen",
    "penalty_window": "how many tokens back penalties look, 0 = all",
    "dry_multiplier": "penalty on tokens that would prolong a repetition, 0 = off",
    "dry_base": "how it grows with the repetition's length",
    "dry_allowed_length": "repetitions up to this long are free",
    "no_repeat_ngram": "no n tokens in a row occur twice, 0 = off",
    "min_new_tokens": "the reply does not end before this many tokens",
    "max_new_tokens": "the reply ends after this many tokens",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that `params_of` reads. None is set unless it is given."""
    group = parser.add_argument_group("sampling")
    group.add_argument("--preset", choices=list(PRESETS), help="start from these settings instead of the defaults")
    for name in LIMITS:
        kind = int if name in WHOLE else float
        group.add_argument(_flag(name), type=kind, help=f"{HELP[name]}; default {getattr(SamplingParams(), name):g}")
    group.add_argument("--stop", action="append", metavar="TEXT", help="end the reply at this text; may be repeated")
    group.add_argument("--ban", action="append", metavar="TEXT", help="never write this text; may be repeated")
    group.add_argument("--dry-breaker", action="append", metavar="TEXT", help="ends a repetition for DRY")
    group.add_argument("--bias", action="append", metavar="TEXT=NUMBER", help="added to the logit of these tokens")
    forms = group.add_mutually_exclusive_group()
    forms.add_argument("--json-schema", metavar="FILE", help="the reply is JSON that meets this schema")
    forms.add_argument("--regex", help="the reply matches this regular expression")
    forms.add_argument("--choice", action="append", metavar="TEXT", help="the reply is one of these; repeat it")
    group.add_argument(
        "--order", metavar="A,B,...", help=f"filters in the order in which they act: {','.join(FILTERS)}"
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def params_of(args: argparse.Namespace, encode: Callable[[str], list[int]]) -> SamplingParams:
    """The parameters that were asked for. `encode` splits the text of a bias into tokens. Raises ValueError."""
    preset = {} if args.preset is None else {**NEUTRAL, **PRESETS[args.preset]}
    numbers = {name: getattr(args, name) for name in LIMITS if getattr(args, name) is not None}
    lists = {"stop": args.stop, "banned": args.ban, "dry_breakers": args.dry_breaker}
    given = {name: tuple(texts) for name, texts in lists.items() if texts}
    if args.bias:
        given["logit_bias"] = [_bias(text, encode) for text in args.bias]
    if args.order:
        given["order"] = tuple(args.order.split(","))
    return SamplingParams().replace(**{**preset, **numbers, **given, "grammar": _grammar(args)})


def _bias(text: str, encode: Callable[[str], list[int]]) -> tuple[Sequence[int], Any]:
    word, equals, number = text.rpartition("=")
    try:
        return encode(word) if equals and word else [], float(number)
    except ValueError as error:
        raise ValueError(f'bias must look like " word=5", got {text!r}') from error


def _grammar(args: argparse.Namespace) -> tuple[str, str] | None:
    if args.json_schema:
        return "json_schema", Path(args.json_schema).read_text("utf-8")
    if args.regex:
        return "regex", args.regex
    return ("choice", "\n".join(args.choice)) if args.choice else None
