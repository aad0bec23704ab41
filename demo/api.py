"""The named endpoints for gradio_client and REST: /chat, /tokens and /distribution, and those of api_attention.py.
Each call has a session of its own.

Gradio reads names, types and docstrings of these functions at run time, so their annotations must be real
types: no `from __future__ import annotations` in this file.
"""

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from demo.api_attention import AttentionEndpoints
from demo.args import MAX_SEED, patched, whole
from demo.args import text as written
from demo.prompts import fill, prompt, refusing
from demo.running import Source
from demo.wire import short
from gpt.engine import Engine
from gpt.options import HELP
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["add_endpoints"]

PLACES = 4  # calls that may run at the same time; the next ones wait
INTERVAL = 1 / 20  # seconds between two states of a reply
MAX_CANDIDATES = 1000
FIRST = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens")  # then seed, then the others
EXPLAINED = HELP | {
    "stop": "texts that end the reply",
    "banned": "texts that never occur in the reply",
    "dry_breakers": "texts that end a repetition for DRY",
    "logit_bias": "pairs [[token ids], bias], added to the logits of these tokens",
    "grammar": "what the reply must fit: [kind, text], kind one of json_schema, regex, choice (one a line)",
    "order": "filters in the order in which they act; those left out follow",
}


def add_endpoints(engine: Engine, source: Source) -> None:
    """Register the endpoints in the Blocks that are being built. `source` runs the model."""
    made, attention = Endpoints(engine, source), AttentionEndpoints(engine, source)
    mine = (_streaming(made.chat), made.tokens, _returning(made.distribution))
    for endpoint in (*mine, attention.attention, attention.heads):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=PLACES, concurrency_id="api")
    gr.api(attention.attention_file, api_name="attention_file", concurrency_limit=1, concurrency_id="files")


# ---- arguments: a method's own, then every sampling parameter by name -------------------------------------------


def _streaming(method: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
    """`method`, whose last argument is a dict of sampling parameters, as a generator that takes each by name."""

    def endpoint(*args: Any, **named: Any) -> Iterator[str]:
        yield from method(*_gathered(signature, own, args, named))

    signature, own = _declare(endpoint, method)
    return endpoint


def _returning(method: Callable[..., dict]) -> Callable[..., dict]:
    """As `_streaming` for a method that returns."""

    def endpoint(*args: Any, **named: Any) -> dict:
        return method(*_gathered(signature, own, args, named))

    signature, own = _declare(endpoint, method)
    return endpoint


def _gathered(signature: inspect.Signature, own: list[str], args: tuple, named: dict[str, Any]) -> list[Any]:
    bound = signature.bind(*args, **named)
    bound.apply_defaults()
    settings = {name: value for name, value in bound.arguments.items() if name not in own}
    return [*(bound.arguments[name] for name in own), settings]


def _declare(endpoint: Callable, method: Callable) -> tuple[inspect.Signature, list[str]]:
    """Give `endpoint` the name, arguments and explanations that callers see; also the names of the method's own."""
    *mine, _ = inspect.signature(method).parameters.values()
    defaults = SamplingParams().as_dict()
    names = [*FIRST, *(name for name in defaults if name not in FIRST)]
    settings = [_parameter(name, defaults[name]) for name in names]
    seed = [p for p in mine if p.name == "seed"]  # where it always stood
    rest = [p for p in mine if p.name != "seed"]
    result = method.__annotations__["return"]
    result = str if result == Iterator[str] else result  # of what is streamed
    order = [*rest, *settings[: len(FIRST)], *seed, *settings[len(FIRST) :]]
    signature = inspect.Signature(order, return_annotation=result)
    endpoint.__name__, endpoint.__signature__ = method.__name__, signature
    endpoint.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    endpoint.__annotations__["return"] = result
    explained = "\n".join(f"{name}: {EXPLAINED[name]}" for name in names)
    endpoint.__doc__ = inspect.getdoc(method).replace("SETTINGS", explained)
    return signature, [p.name for p in mine]


def _parameter(name: str, default: Any) -> inspect.Parameter:
    kind = list | None if default is None else type(default)
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


class Endpoints:
    """One method an endpoint; its docstring is what callers are shown, SETTINGS standing for every parameter."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.engine, self.source = engine, source

    def chat(self, message: str, system: str = "", seed: int = 0, settings: dict | None = None) -> Iterator[str]:
        """Answer one message; streams the reply's text so far, the last item is the whole reply.

        Args:
            message: what to answer
            system: a system prompt; the model's own by default
            seed: the same seed and parameters give the same reply
            SETTINGS
        """
        with refusing():
            params = patched(self.engine, SamplingParams(), settings or {})
            session = self.source.session(params=params, seed=whole({"seed": seed}, "seed", 0, MAX_SEED))
            first = [{"role": "system", "content": system}] if system else []
            question = {"role": "user", "content": written({"message": message}, "message")}
            fill(self.engine, session, [*first, question])
            yield from _texts_so_far(self.source, session)

    def tokens(self, text: str) -> dict:
        """Split a text into the model's tokens, control strings taken as plain text.

        Args:
            text: any text
        Returns:
            ids, and pieces: the text of each token alone
        """
        with refusing():
            ids = self.engine.tokenizer.encode(written({"text": text}, "text"))
        return {"ids": ids, "pieces": [self.engine.tokenizer.piece(i) for i in ids]}

    def distribution(
        self,
        text: str = "",
        messages: list[dict] | None = None,
        n: int = 20,
        seed: int = 0,
        settings: dict | None = None,
    ) -> dict:
        """The next token's probabilities after a text or a conversation: the model's own, and after the filters.

        Args:
            text: a plain text, read without the chat template
            messages: instead of a text, a conversation: [{"role": "user", "content": "..."}, ...]
            n: how many of the most probable tokens to return, at most 1,000
            seed: what the draw depends on
            SETTINGS
        Returns:
            candidates (token, text, raw and final probability, removed_by), stages (filter, tokens left, share of the
            mass kept), ignored (filters that could not be applied), entropy in nats, u and the token that it draws
        """
        with refusing():
            n = whole({"n": n}, "n", 1, MAX_CANDIDATES)
            params = patched(self.engine, SamplingParams(), settings or {})
            session = self.source.session(params=params, seed=whole({"seed": seed}, "seed", 0, MAX_SEED))
            prompt(self.engine, session, text, messages)
            self.source.feed(session)
            position = len(session.tokens)
            choice = self.engine.distribution(session, position, params, self.source.logits(session, position))
        shaped = choice.shaped
        listed = self.engine.chooser.candidates(shaped, shaped.top(n), [choice.drawn])
        return {
            "candidates": [
                {"token": c.token, "text": c.text, "raw": short(c.raw), "final": short(c.final),
                 "removed_by": c.removed_by}
                for c in listed
            ],
            "stages": [{"filter": s.name, "tokens": s.tokens, "kept": short(s.kept)} for s in shaped.stages],
            "ignored": list(shaped.ignored),
            "entropy": short(shaped.entropy),
            "u": choice.u,
            "drawn": choice.drawn,
        }  # fmt: skip


def _texts_so_far(source: Source, session: Session) -> Iterator[str]:
    reply, due = "", 0.0
    for event in source.stream(session):
        reply += event.text
        if event.text and event.finish is None and time.perf_counter() >= due:
            due = time.perf_counter() + INTERVAL
            yield reply
    yield reply
