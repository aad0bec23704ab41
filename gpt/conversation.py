"""Messages and the tokens of a session, in both directions, and what to leave out when the context is too small."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpt.chat import ChatTemplate, Message, Prompt, Span, joined
from gpt.session import Session
from gpt.tokenizer import Tokenizer

__all__ = ["Cut", "fit", "is_document", "message_spans", "messages_of"]


@dataclass(frozen=True)
class Cut:
    """What was left out of a conversation to fit the context: whole messages, and tokens of the newest one."""

    messages: int
    tokens: int


def message_spans(session: Session) -> list[Span]:
    """The spans of all messages in the order of the conversation, the reply that is being written included.

    A system prompt that the template itself put in counts as a message, so that it can be seen and changed. A message
    that the template shows in several places has one span around them.
    """
    said: dict[int | None, Span] = {}
    for span in session.spans:
        if span.message is not None or span.role == "system":
            start = said[span.message].start if span.message in said else span.start
            said[span.message] = replace(span, start=start)
    spans = sorted(said.values(), key=lambda s: -1 if s.message is None else s.message)
    if len(session.tokens) > session.reply_start:
        spans.append(Span("assistant", session.reply_start, len(session.tokens)))
    return spans


def messages_of(session: Session, tokenizer: Tokenizer) -> list[Message]:
    """The conversation in a session; replies carry their tokens exactly as generated, without the end token."""
    own = {s.end for s in session.spans if s.role == "template"}  # what follows is a text of its own
    return [_message(session.tokens[s.start : s.end], s, s.start in own, tokenizer) for s in message_spans(session)]


def _message(tokens: list[int], span: Span, opening: bool, tokenizer: Tokenizer) -> Message:
    if span.role != "assistant":
        return {"role": span.role, "content": tokenizer.decode(tokens) if span.text is None else span.text}
    tokens = tokens[:-1] if tokens and tokens[-1] in tokenizer.end_tokens else tokens
    return {"role": "assistant", "content": tokenizer.decode(tokens, opening=opening), "tokens": tokens}


def is_document(messages: Sequence[Message]) -> bool:
    """Whether this is a text to be continued, and no conversation: its first part has the role "text"."""
    return bool(messages) and messages[0]["role"] == "text"


def fit(
    messages: Sequence[Message], chat: ChatTemplate | None, tokenizer: Tokenizer, room: int
) -> tuple[Prompt, Cut | None]:
    """Encode a conversation in at most `room` tokens.

    What does not fit is left out: the oldest messages (never the system prompt), then the beginning of the newest one;
    of a text, its beginning. Raises ValueError when the system prompt alone is too long.
    """
    if is_document(messages):
        return _fit_document(messages, tokenizer, room)
    messages = list(messages)
    prompt, dropped, short = _encode(messages, chat, tokenizer), 0, 0
    first = 1 if messages and messages[0]["role"] == "system" else 0
    while len(prompt.tokens) > room and len(messages) - first > 1:
        pair = min(2, len(messages) - first - 1)  # a question goes with its answer
        del messages[first : first + pair]
        dropped += pair
        prompt = _encode(messages, chat, tokenizer)
    newest = messages[-1]
    while len(prompt.tokens) > room:  # a text that was cut may take a token more than what was left of its tokens
        short += len(prompt.tokens) - room
        messages[-1] = _without_beginning(newest, short, tokenizer)
        prompt = _encode(messages, chat, tokenizer)
    return prompt, Cut(dropped, short) if dropped or short else None


def _fit_document(messages: Sequence[Message], tokenizer: Tokenizer, room: int) -> tuple[Prompt, Cut | None]:
    prompt = _document(messages, tokenizer)
    short = len(prompt.tokens) - room
    if short <= 0:
        return prompt, None
    rest = tokenizer.decode([token for token in prompt.tokens if not tokenizer.is_special(token)][short:])
    return _document([{"role": "text", "content": rest}], tokenizer), Cut(0, short)


def _document(messages: Sequence[Message], tokenizer: Tokenizer) -> Prompt:
    """A text that a person and the model wrote by turns: no template, and nothing between its parts."""
    tokens = [] if tokenizer.bos is None else [tokenizer.bos]
    spans = [Span("template", 0, 1)] * len(tokens)
    for index, message in enumerate(messages):
        content = message["tokens"] if "tokens" in message else tokenizer.encode(message["content"])
        spans.append(Span(message["role"], len(tokens), len(tokens) + len(content), index, message["content"]))
        tokens += content
    return Prompt(tokens, tuple(spans))


def _without_beginning(message: Message, n: int, tokenizer: Tokenizer) -> Message:
    content = tokenizer.encode(message["content"])
    if n >= len(content):
        raise ValueError("the system prompt alone takes up the whole context; shorten it")
    return {**message, "content": tokenizer.decode(content[n:])}


def _encode(messages: Sequence[Message], chat: ChatTemplate | None, tokenizer: Tokenizer) -> Prompt:
    return joined(messages, tokenizer) if chat is None else chat.encode(messages)
