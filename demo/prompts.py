"""What the callers of the API sent, put into an empty session: a text, a conversation, or tokens; and refusals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gradio as gr

from demo.args import text as written
from demo.args import whole
from gpt.chat import Span, plain
from gpt.engine import Engine
from gpt.session import Session

__all__ = ["fill", "prompt", "refusing"]


@contextmanager
def refusing() -> Iterator[None]:
    """What a caller did wrong, or what the machine could not do, reaches the caller as one sentence."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise gr.Error(str(error), print_exception=False) from error


def fill(engine: Engine, session: Session, messages: list[dict]) -> None:
    """Put a conversation that fits the context into a session. Raises ValueError for a longer one."""
    cut = engine.extend(session, messages)
    if cut:
        raise _too_long(engine)


def prompt(
    engine: Engine, session: Session, text: str, messages: list[dict] | None, tokens: Sequence[int] | None = None
) -> None:
    """Put tokens, or else a conversation, or else a text, into an empty session. Raises ValueError."""
    if tokens is not None:
        ids = _ids(engine, tokens)
        session.rewrite(ids, (Span("text", 0, len(ids)),))
    elif messages:
        fill(engine, session, _conversation(messages))
    else:
        made = plain(written({"text": text}, "text"), engine.tokenizer)
        if len(made.tokens) > engine.config.block_size:
            raise _too_long(engine)
        session.rewrite(made.tokens, made.spans)


def _too_long(engine: Engine) -> ValueError:
    return ValueError(f"this is longer than the model's context of {engine.config.block_size} tokens; shorten it")


def _ids(engine: Engine, tokens: object) -> list[int]:
    most, last = engine.config.block_size, engine.config.vocab_size - 1
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"tokens must be a list of token ids from 0 to {last}, such as /tokens gives")
    if len(tokens) > most:
        raise _too_long(engine)
    return [whole({"tokens": token}, "tokens", 0, last) for token in tokens]


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
