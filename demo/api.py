"""The named endpoints for gradio_client and REST: /chat, /tokens and /attention. Each call has a session of
its own.

Gradio reads names, types and docstrings of these functions at run time, so their annotations must be real
types: no `from __future__ import annotations` in this file.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from demo import rpc
from demo.stream import Source
from gpt.chat import plain
from gpt.engine import Engine
from gpt.interp import attention_pattern
from gpt.sampling import SamplingParams
from gpt.session import Session

__all__ = ["add_endpoints"]

PLACES = 4  # calls that may run at the same time; the next ones wait
INTERVAL = 1 / 20  # seconds between two states of a reply
MAX_POSITIONS = 512  # tokens whose weights are returned: they grow with the square


def add_endpoints(engine: Engine, source: Source) -> None:
    """Register the endpoints in the Blocks that are being built. `source` runs the model."""
    endpoints = Endpoints(engine, source)
    for endpoint in (endpoints.chat, endpoints.tokens, endpoints.attention):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_limit=PLACES, concurrency_id="api")


class Endpoints:
    """One method an endpoint; its docstring is what callers are shown."""

    def __init__(self, engine: Engine, source: Source) -> None:
        self.engine, self.source = engine, source

    def chat(
        self,
        message: str,
        system: str = "",
        temperature: float = 0.7,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        max_new_tokens: int = 256,
        seed: int = 0,
    ) -> str:
        """Answer one message; streams the reply's text so far, the last item is the whole reply.

        Args:
            message: what to answer
            system: a system prompt; the model's own by default
            temperature: 0 takes the most probable token, 1 is the model's own distribution, at most 5
            top_k: keep the k most probable tokens; 0 is off
            top_p: keep the most probable tokens that together have this probability; 1 is off
            min_p: keep tokens at least this many times as probable as the most probable one; 0 is off
            repetition_penalty: above 1 makes tokens that were seen less likely
            max_new_tokens: length of the reply at most, in tokens
            seed: the same seed and parameters give the same reply
        """
        with refusing():
            params = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens=max_new_tokens)
            session = self.source.session(params=params, seed=rpc.whole({"seed": seed}, "seed", 0, rpc.MAX_SEED))
            first = [{"role": "system", "content": system}] if system else []
            question = {"role": "user", "content": rpc.text({"message": message}, "message")}
            _fill(self.engine, session, [*first, question])
            yield from _texts_so_far(self.source, session)

    def tokens(self, text: str) -> dict:
        """Split a text into the model's tokens, control strings taken as plain text.

        Args:
            text: any text
        Returns:
            ids, and pieces: the text of each token alone
        """
        with refusing():
            ids = self.engine.tokenizer.encode(rpc.text({"text": text}, "text"))
        return {"ids": ids, "pieces": [self.engine.tokenizer.piece(i) for i in ids]}

    def attention(self, layer: int, head: int, text: str = "", messages: list[dict] | None = None) -> dict:
        """One head's attention weights over a text or a conversation, as the model reads it.

        Args:
            layer: counted from 0
            head: counted from 0
            text: a plain text, read without the chat template
            messages: instead of a text, a conversation: [{"role": "user", "content": "..."}, ...]
        Returns:
            ids and pieces of the tokens, and weights: weights[i][j] is what token i reads of token j
        """
        with refusing():
            layer = rpc.whole({"layer": layer}, "layer", 0, self.engine.config.n_layer - 1)
            head = rpc.whole({"head": head}, "head", 0, self.engine.config.n_head - 1)
            session = self.source.session()
            if messages:
                _fill(self.engine, session, _conversation(messages))
            else:
                prompt = plain(rpc.text({"text": text}, "text"), self.engine.tokenizer)
                session.rewrite(prompt.tokens, prompt.spans)
            _check_length(session)
            self.source.feed(session)
        weights = attention_pattern(session, layer, [head])[0]
        rounded = [[round(w, 6) for w in row] for row in weights.tolist()]
        pieces = [self.engine.tokenizer.piece(i) for i in session.tokens]
        return {"ids": session.tokens, "pieces": pieces, "weights": rounded}


@contextmanager
def refusing() -> Iterator[None]:
    """What a caller did wrong, or what the machine could not do, reaches the caller as one sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def _texts_so_far(source: Source, session: Session) -> Iterator[str]:
    reply, due = "", 0.0
    for event in source.stream(session):
        reply += event.text
        if event.text and event.finish is None and time.perf_counter() >= due:
            due = time.perf_counter() + INTERVAL
            yield reply
    yield reply


def _fill(engine: Engine, session: Session, messages: list[dict]) -> None:
    cut = engine.extend(session, messages)
    if cut:
        raise ValueError(f"this is longer than the model's context of {engine.config.block_size} tokens; shorten it")


def _conversation(messages: list[dict]) -> list[dict]:
    good = isinstance(messages, list) and all(
        isinstance(m, dict) and m.get("role") in ("system", "user", "assistant") and isinstance(m.get("content"), str)
        for m in messages
    )
    if not good:
        raise ValueError(
            'messages must be a list like [{"role": "user", "content": "..."}], roles system, user, assistant'
        )
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _check_length(session: Session) -> None:
    if len(session.tokens) > MAX_POSITIONS:
        raise ValueError(f"this has {len(session.tokens)} tokens; weights of at most {MAX_POSITIONS} are returned")
