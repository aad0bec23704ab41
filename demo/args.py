"""Reading what comes in. Everything is untrusted: anybody can call the server functions by HTTP."""

import json
import sys
from typing import Any

from demo.live import MAX_SETTINGS
from gpt.engine import Engine
from gpt.params import SamplingParams

__all__ = [
    "MAX_SEED",
    "OF_TOKENS",
    "Args",
    "Invalid",
    "Reply",
    "number",
    "patched",
    "seed_of",
    "text",
    "token_ids",
    "whole",
    "whole_characters",
]

Args = dict[str, Any]
Reply = dict[str, Any]

MAX_TEXT = 1_000_000  # characters of one message
MAX_SEED = 2**53 - 1  # what JavaScript holds exactly
MAX_TOKENS = 64  # that are put into a reply at once
OF_TOKENS = ("logit_bias", "banned", "grammar")  # parameters that only the model's tokens can check


class Invalid(ValueError):
    """An argument is missing or out of range; `field` names it."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


# ---- reading and answering ---------------------------------------------------------------------------------


def whole(args: Args, name: str, low: int, high: int, default: int | None = None) -> int:
    """The whole number `args[name]` from low to high. Raises Invalid."""
    value = args.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Invalid(f"{name} must be a whole number from {low} to {high}, got {value!r}", name)
    return value


def number(args: Args, name: str, default: float) -> float:
    """The finite number `args[name]`. Raises Invalid."""
    value = args.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise Invalid(f"{name} must be a number, got {value!r}", name)
    return float(value)


def text(args: Args, name: str) -> str:
    """The text `args[name]`, neither empty nor endless, half characters replaced. Raises Invalid."""
    value = args.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid("The message is empty; write something first.", name)
    if len(value) > MAX_TEXT:
        raise Invalid(f"The message has {len(value):,} characters; at most {MAX_TEXT:,} can be taken.", name)
    return whole_characters(value)


def whole_characters(value: str) -> str:
    """A text that can be encoded: JSON may hold one half of a pair of surrogates, and no answer can."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def seed_of(args: Args, default: int) -> int:
    """The seed that was sent, or the default. Raises Invalid."""
    return default if args.get("seed") is None else whole(args, "seed", 0, MAX_SEED)


def token_ids(args: Args, engine: Engine) -> list[int]:
    """The tokens that `token`, `tokens` or `text` means, the first of these that is there; none of them: no token.

    Raises Invalid.
    """
    if args.get("token") is not None:
        args = {"tokens": [args["token"]]}
    name = "text" if args.get("tokens") is None else "tokens"
    values = args.get(name)
    if values is None:
        return []
    ids = (
        engine.tokenizer.encode(whole_characters(values[:MAX_TEXT]))
        if name == "text" and isinstance(values, str)
        else values
    )
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_TOKENS:
        raise Invalid(f"Give a text, or a list of token ids, that makes from 1 to {MAX_TOKENS} tokens.", name)
    return [whole({name: token}, name, 0, engine.config.vocab_size - 1) for token in ids]


def patched(engine: Engine, params: SamplingParams, patch: object) -> SamplingParams:
    """`params` with all changes of `patch`. Raises Invalid with the name of a value that is wrong."""
    if not isinstance(patch, dict):
        raise Invalid(f"params must be an object of parameters by name, got {patch!r}", "params")
    known = params.as_dict()
    for name in patch:
        if name not in known:
            raise Invalid(f"there is no sampling parameter {name}; there are {', '.join(known)}", name)
    try:
        changed = params.replace(**patch)
        size = len(json.dumps(changed.as_dict(), ensure_ascii=False).encode())
        if any(name in patch for name in OF_TOKENS):
            engine.check(changed)
    except (TypeError, ValueError, OverflowError) as error:
        raise _about(str(error), patch) from error
    if size > MAX_SETTINGS:
        longest = max(patch, key=lambda name: len(json.dumps(patch[name])))
        raise Invalid(f"{longest} is too long: all settings together may take {MAX_SETTINGS:,} bytes", longest)
    return changed


def _about(message: str, patch: Args) -> Invalid:
    """A refusal at the parameter whose name the message begins with."""
    first = message.split(maxsplit=1)[0]
    if first in patch or len(patch) != 1:
        return Invalid(message, first)
    (name,) = patch
    return Invalid(f"{name}: {message}", name)
