"""From one model to another: the tab gets a session of the new one, empty or with its conversation read anew.

What is carried over are the words. Tokens, records, seeds and attention were the old model's and end with it.
"""

from collections.abc import Sequence
from dataclasses import replace

from demo.args import OF_TOKENS
from demo.running import Running
from demo.store import Entry, SessionStore
from gpt.chat import Message
from gpt.conversation import Cut, is_document, message_spans
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["switch"]


def switch(store: SessionStore, entry: Entry, running: Running, carry: bool) -> tuple[Entry, Cut | None]:
    """A session of another model in place of `entry`, which is let go; with `carry`, with what was said in it.

    A system prompt goes along with a conversation that has not begun, to a model that takes one. Also returns what was
    left out, as `Engine.extend`. Raises ValueError, before anything has changed, when the new model's template refuses
    the conversation; Busy as `Entry.quiet`.
    """
    if carry:
        _fill(running.engine, running.session(), _said(entry, running.engine))
    entry.interrupt()
    entry.quiet()
    entry.keep_samples()
    session = running.session()
    session.params = _settings(entry.session.params, running.engine)
    messages = _said(entry, running.engine) if carry else []
    cut = _fill(running.engine, session, messages)
    made = store.create(entry.owner, running, session)
    made.raw = made.raw or (is_document(messages) if messages else entry.raw and entry.engine.chat is not None)
    chat = running.engine.chat
    made.system = entry.system if chat and chat.takes_system and not entry.session.tokens else None
    made.rest()
    store.close(entry)
    return made, cut


def _said(entry: Entry, engine: Engine) -> list[Message]:
    """The conversation in words, for another model: one text where either has no messages.

    The system prompt that the old model's template put in by itself stays behind.
    """
    if entry.example:
        return []
    pairs = zip(entry.engine.messages(entry.session), message_spans(entry.session), strict=True)
    written = [m for m, span in pairs if m["content"] and (span.role != "system" or span.message is not None)]
    if written and (is_document(written) or engine.chat is None):
        between = "" if is_document(written) else "\n\n"
        return [{"role": "text", "content": between.join(m["content"] for m in written)}]
    return [{"role": m["role"], "content": m["content"]} for m in written]


def _fill(engine: Engine, session: Session, messages: Sequence[Message]) -> Cut | None:
    """Put a conversation into an empty session; a reply at its end can be written anew like any other."""
    if not messages:
        return None
    if messages[-1]["role"] != "assistant":
        return engine.extend(session, messages)
    cut = engine.extend(session, messages[:-1])
    branch = session.current
    reply = engine.tokenizer.encode(messages[-1]["content"])[: engine.config.block_size - 1 - len(branch.tokens)]
    records = [*branch.records, *[None] * len(reply)]
    session.load({0: replace(branch, tokens=[*branch.tokens, *reply], records=records, finish="end")}, 0)
    return cut


def _settings(params: SamplingParams, engine: Engine) -> SamplingParams:
    """The settings in force, without what is said in the old model's tokens or cannot be met with the new one's."""
    neutral = SamplingParams()
    params = params.replace(logit_bias=neutral.logit_bias)
    try:
        engine.check(params)
    except ValueError:
        return params.replace(**{name: getattr(neutral, name) for name in OF_TOKENS})
    return params
