"""What the server functions of all panels share: reading what comes in, answering, greeting a page, changing
history.

A server function takes one dict and answers with one; what a caller did wrong is answered as {"error",
"code", "field"?}, because an exception would reach the page as nothing at all. Everything that comes in is
untrusted: anybody can call these by HTTP. Nothing here runs the model.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.example import Example
from demo.store import Busy, Entry, Gone, SessionStore
from demo.stream import Source, snapshot
from gpt.conversation import Cut
from gpt.engine import Engine
from gpt.sampling import LIMITS, SamplingParams
from gpt.session import Branch

__all__ = ["Args", "Invalid", "Reply", "Server", "answered", "seed_of", "text", "whole"]

Args = dict[str, Any]
Reply = dict[str, Any]

MAX_TEXT = 1_000_000  # characters of one message
MAX_SEED = 2**53 - 1  # what JavaScript holds exactly
EXCERPT = 40  # characters that stand for a branch


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


def text(args: Args, name: str) -> str:
    """The text `args[name]`, neither empty nor endless. Raises Invalid."""
    value = args.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid("The message is empty; write something first.", name)
    if len(value) > MAX_TEXT:
        raise Invalid(f"The message has {len(value):,} characters; at most {MAX_TEXT:,} can be taken.", name)
    return value


def seed_of(args: Args, default: int) -> int:
    """The seed that was sent, or the default. Raises Invalid."""
    return default if args.get("seed") is None else whole(args, "seed", 0, MAX_SEED)


def answered(function: Callable[[Args], Reply]) -> Callable[[Args], Reply]:
    """`function` under its own name, with what a caller did wrong turned into an answer."""

    def call(args: dict) -> dict:
        try:
            return function(args if isinstance(args, dict) else {})
        except Gone as error:
            return {"error": str(error), "code": "gone"}
        except Busy as error:
            return {"error": str(error), "code": "busy"}
        except Invalid as error:
            return {"error": str(error), "code": "invalid", "field": error.field}
        except (ValueError, IndexError) as error:
            return {"error": str(error), "code": "invalid"}

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


# ---- the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """What server functions work on. `source` writes the replies: the engine itself, or a remote one."""

    engine: Engine
    source: Source
    store: SessionStore
    example: Example

    def functions(self) -> list[Callable]:
        """`hello` and `tokens`. Only the body of the raw request tells which tab is calling."""

        async def hello(args: dict, request: gr.Request) -> dict:
            owner = (await request.json())["session_hash"]
            return await asyncio.to_thread(answered(self.hello), {**args, "owner": owner})

        return [hello, answered(self.tokens)]

    def entry(self, args: Args) -> Entry:
        """The session that the page holds. Raises Gone."""
        return self.store.get(args.get("sid"))

    def hello(self, args: Args) -> Reply:
        """Greet a page: with its own session when it was only loaded again, else with a fresh one."""
        owner = str(args["owner"])
        entry = self.store.adopt(args.get("sid"), owner) if args.get("adopt") is True else None
        known = entry is not None
        entry = entry or self._fresh(owner)
        entry.quiet()
        entry.rest()
        return {
            "sid": entry.sid,
            "model": self._model(),
            "defaults": SamplingParams().as_dict(),
            "limits": {**{name: list(bounds) for name, bounds in LIMITS.items()}, "seed": [0, MAX_SEED]},
            "params": entry.session.params.as_dict(),
            "message": snapshot(self.source, entry),
            "example": entry.example,
            **({"selection": dict(zip(("layer", "head"), entry.selected, strict=True))} if known else {}),
            **({"selection": self.example.selection} if entry.example and not known else {}),
            **self.branches(entry),
        }

    def _fresh(self, owner: str) -> Entry:
        """A session for a page that has none: with the recorded conversation, if there is one for this model."""
        entry = self.store.create(owner)
        if self.example.known:
            entry.renew(self.example.fill(entry.session), None)
            entry.example = True
        return entry

    def tokens(self, args: Args) -> Reply:
        """Every token from `from` on, for a page that missed some."""
        entry = self.entry(args)
        return snapshot(self.source, entry, whole(args, "from", 0, len(entry.session.tokens), 0))

    def change(self, args: Args, how: Callable[[Entry], Cut | None]) -> Reply:
        """Change history by `how`, after what is streaming has ended.

        The answer holds the tokens that are new, and the run id under which the page may start the reply.
        """
        entry = self.entry(args)
        run = entry.interrupt()
        entry.quiet()
        with entry.session.lock:
            before = entry.session.current.before(len(entry.session.tokens))
            cut = how(entry)
            entry.epoch += 1
            entry.example = False
        kept = _unchanged(before, entry.session.current)
        message = snapshot(self.source, entry, kept, streaming=entry.session.finish is None)
        reply = {"run": run, "message": message, **self.branches(entry)}
        return {**reply, "notice": _notice(cut), "cut": [cut.messages, cut.tokens]} if cut else reply

    def branches(self, entry: Entry) -> Reply:
        """Every branch, which one is shown, and its seed."""
        session = entry.session
        lines = [
            {"id": number, "parent": branch.parent, "fork": branch.forked_at, "n": len(branch.tokens),
             "text": self._excerpt(branch)}
            for number, branch in enumerate(session.branches)
        ]  # fmt: skip
        return {"branches": lines, "branch": session.branch, "seed": session.seed}

    def _excerpt(self, branch: Branch) -> str:
        """How a branch begins: where it left its parent, or with the first message."""
        written = [span.start for span in branch.spans if span.role not in ("system", "template")]
        start = branch.forked_at or min(written, default=0)
        return self.engine.tokenizer.decode(branch.tokens[start:][:EXCERPT])[:EXCERPT]

    def _model(self) -> Reply:
        config = self.engine.config
        return {
            "name": self.engine.name,
            "device": str(self.engine.device),
            "dtype": str(self.engine.dtype).removeprefix("torch."),
            "memory_bytes": self.engine.model.nbytes(),
            "chat": self.engine.chat is not None,
            **{name: getattr(config, name) for name in ("n_layer", "n_head", "n_kv_head", "block_size")},
        }


def fresh_seed() -> int:
    """A seed for a conversation that did not ask for one, short enough to be written down."""
    return secrets.randbelow(1_000_000)


def _unchanged(before: Branch, after: Branch) -> int:
    """How many tokens the page keeps. Never the last one: an end token moves from the reply to the template."""
    pairs = zip(before.tokens, before.records, after.tokens, after.records, strict=False)
    same = [a == c and b is d for a, b, c, d in pairs]
    return min(same.index(False) if False in same else len(same), max(len(before.tokens) - 1, 0))


def _notice(cut: Cut) -> str:
    parts = []
    if cut.messages:
        parts.append("the oldest message was" if cut.messages == 1 else f"the {cut.messages} oldest messages were")
    if cut.tokens:
        parts.append(f"the first {cut.tokens} tokens of the newest message were")
    return f"This is longer than the model's context: {' and '.join(parts)} left out."
