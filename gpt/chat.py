"""Conversations to tokens, through the chat template that the checkpoint brings, with a role for every token.

Each content is a placeholder while the template renders. So the result falls into the template's own text, where names
of control tokens become those tokens, and contents, where they stay text. What it makes of the contents themselves is
only compared: where that differs, strings that the template looks for, such as </think>, are left to be seen, so that
it drops what it would drop; where it still differs, the template is refused. White space around a content is kept even
where a template would trim it. What stands between control tokens is encoded in one go, as in training. Source:
`apply_chat_template` of Hugging Face transformers.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from gpt.encoders import After
from gpt.placeholders import Chunk, Hidden, parsed
from gpt.template import ChatError, Message, Template
from gpt.tokenizer import Tokenizer
from gpt.vocabulary import read_config, read_json, token_name

__all__ = ["ROLES", "ChatError", "ChatTemplate", "Message", "Prompt", "Span", "joined", "plain"]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `end` are of one role: one of ROLES, "template", or "text" if there is no template.

    `message` is the index of the message, and `text` its whole content exactly as it was given. A message has several
    spans where the template puts its own words between parts of it, and an empty one where it shows nothing of it.
    """

    role: str
    start: int
    end: int
    message: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Prompt:
    """Tokens to feed, and spans that cover them in order; the span of an empty reply is empty."""

    tokens: list[int]
    spans: tuple[Span, ...]


def plain(text: str, tokenizer: Tokenizer) -> Prompt:
    """A text to be continued, without a template. Names of control tokens in it are text."""
    bos = [] if tokenizer.bos is None else [tokenizer.bos]
    tokens = bos + tokenizer.encode(text)
    spans = [Span("template", 0, 1)] * len(bos) + [Span("text", len(bos), len(tokens), 0, text)]
    return Prompt(tokens, tuple(spans))


def joined(messages: Sequence[Message], tokenizer: Tokenizer) -> Prompt:
    """A conversation as a base model continues it: as plain text, a blank line between the messages.

    A reply that has its tokens follows at once, as it was written.
    """
    builder = _Builder(tokenizer)
    if tokenizer.bos is not None:
        builder.add_token(tokenizer.bos)
    for index, message in enumerate(messages):
        if index and message.get("tokens") is None:
            builder.add_template("\n\n")
        builder.add_message(message, index)
    return builder.finish()


class ChatTemplate:
    """A checkpoint's chat template; `source` is its Jinja. Raises ChatError when that has a syntax error."""

    def __init__(self, source: str, tokenizer: Tokenizer, names: dict[str, str]):
        self.source, self._tokenizer, self._template = source, tokenizer, Template(source, names)
        marks = sorted((m for m in self._template.marks if tokenizer.split(m) == [m]), key=len, reverse=True)
        # A content is cut at these, white space beside them included, which templates trim there.
        self._marks = re.compile(rf"(\s*(?:(?:{'|'.join(map(re.escape, marks))})\s*)+)") if marks else None

    @classmethod
    def from_gguf(cls, fields: dict[str, Any], tokenizer: Tokenizer) -> "ChatTemplate | None":
        """The template in a GGUF file's metadata, or None when it has none."""
        source = fields.get("tokenizer.chat_template")
        keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        usual = {"bos_token": 1, "eos_token": 2} if fields.get("tokenizer.ggml.model") == "llama" else {}
        ids = {name: fields.get(f"tokenizer.ggml.{key}_token_id", usual.get(name)) for name, key in keys.items()}
        names = {name: tokenizer.decode([token]) for name, token in ids.items() if token is not None}
        return cls(source, tokenizer, names) if source else None

    @classmethod
    def from_folder(cls, path: Path, tokenizer: Tokenizer) -> "ChatTemplate | None":
        """The template of a folder in Hugging Face layout, or None when it has none."""
        config, file = read_config(Path(path)), Path(path) / "chat_template.jinja"
        source = file.read_text("utf-8") if file.exists() else config.get("chat_template")
        source = _default(source or read_json(Path(path) / "chat_template.json").get("chat_template"))
        keys = ("bos_token", "eos_token", "unk_token", "pad_token")
        names = {key: name for key in keys if (name := token_name(config.get(key)))}
        return cls(source, tokenizer, names) if source else None

    @cached_property
    def takes_system(self) -> bool:
        """Whether a conversation may begin with a system prompt. Otherwise `encode` raises ChatError for one."""
        asked: list[Message] = [{"role": role, "content": "a"} for role in ("system", "user")]
        try:
            events = self._events(_hidden(asked, None), True)
        except ChatError:
            return False
        return any(isinstance(event, Chunk) and event.message == 0 for event in events)

    def encode(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Tokens and spans of a conversation; with `reply`, up to where the assistant's next words begin.

        A system prompt that the template puts in by itself gets the role "system", without a message index.
        Raises ChatError for malformed messages, with the template's own words when it refuses them, and when it does
        something with contents that cannot be followed.
        """
        _check(messages)
        try:
            marks, first, *events = self._followed(messages, reply)
        except ChatError as error:
            if messages[0]["role"] != "system" or self.takes_system:
                raise
            raise ChatError(f"{error}; it takes no system prompt, so leave that empty") from error
        before, default, after = self._opening(first, messages, reply, marks)
        builder = _Builder(self._tokenizer)
        builder.add_template(before)
        builder.add_content("system", default, default)
        builder.add_template(after)
        for event in events:
            if isinstance(event, Chunk):
                builder.add_message(messages[event.message], *event)
            else:
                builder.add_template(event)
        return _with_unseen(builder.finish(), messages)

    def _followed(self, messages: Sequence[Message], reply: bool) -> list[Any]:
        """The marks at which contents had to be cut (None: nowhere), then `_events` that were found right."""
        whole, cut = _hidden(messages, None), _hidden(messages, self._marks)
        try:
            return [None, *self._checked(whole, reply)]
        except ChatError:
            if [h.shown for h in cut] == [h.shown for h in whole]:
                raise
        return [self._marks, *self._checked(cut, reply)]

    def _events(self, hidden: Sequence[Hidden], reply: bool) -> list[str | Chunk]:
        """What the template makes of a conversation: text of its own first, then parts of contents and text in turn."""
        shown: list[Message] = [{"role": h.role, "content": h.shown} for h in hidden]
        return parsed(self._template.render(shown, reply), hidden)

    def _checked(self, hidden: Sequence[Hidden], reply: bool) -> list[str | Chunk]:
        """Events that differ in white space alone from what the template makes of the contents themselves."""
        events = self._events(hidden, reply)
        seen = {event.message for event in events if isinstance(event, Chunk)}
        for index, h in enumerate(hidden):
            moves = h.role == "system" and self.takes_system  # it is shown with the newest question, or not at all
            if h.content and h.is_whole and index not in seen and not moves:
                raise ChatError(f"the chat template has no place for message {index}, of the {h.role}")
        given: list[Message] = [{"role": h.role, "content": h.content or h.shown} for h in hidden]
        ours = (e if isinstance(e, str) else hidden[e.message].text(e) for e in events)
        if "".join("".join(ours).split()) != "".join(self._template.render(given, reply).split()):
            raise ChatError("the chat template changes contents in a way that cannot be followed; use plain text")
        return events

    def _opening(
        self, first: str, messages: Sequence[Message], reply: bool, marks: re.Pattern[str] | None
    ) -> tuple[str, str, str]:
        """`first`, the text before the first content, around the template's own system prompt ("" for none).

        That prompt is what stands in the place of a system prompt that is given.
        """
        if messages[0]["role"] == "system" or not self.takes_system:
            return first, "", ""
        given: Message = {"role": "system", "content": "given"}
        try:
            events = self._events(_hidden([given, *messages], marks), reply)
        except ChatError:  # it takes one in other conversations only
            return first, "", ""
        if len(events) > 2 and events[1].message == 0:
            before, after = events[0], events[2]
            default = first[len(before) : len(first) - len(after)]
            if first == before + default + after and self._tokenizer.split(default) == [default]:
                return before, default, after
        return first, "", ""


def _hidden(messages: Sequence[Message], marks: re.Pattern[str] | None) -> list[Hidden]:
    return [Hidden(message, index, marks) for index, message in enumerate(messages)]


def _with_unseen(prompt: Prompt, messages: Sequence[Message]) -> Prompt:
    """The prompt with an empty span for each message of which nothing is left, before the message that comes next."""
    spans = list(prompt.spans)
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message["content"] and not any(span.message == index for span in spans):
            at = next((i for i, s in enumerate(spans) if s.message is not None and s.message > index), len(spans))
            start = spans[at].start if at < len(spans) else len(prompt.tokens)
            spans.insert(at, Span(message["role"], start, start, index, message["content"]))
    return Prompt(prompt.tokens, tuple(spans))


class _Builder:
    """Puts the tokens of a conversation together, and their spans."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._spans: list[Span] = []
        self._after: After = "nothing"  # what the tokens so far end with
        self._run: list[tuple[str, str, int | None, str]] = []  # role, text, message, its content: since then

    def add_template(self, text: str) -> None:
        for part in self._tokenizer.split(text):
            if isinstance(part, str):
                self._run.append(("template", part, None, ""))
            else:
                self.add_token(part)

    def add_token(self, token: int) -> None:
        self._flush()
        self._put([token], "template")
        self._after = "control"

    def add_message(self, message: Message, index: int, start: int = 0, end: int | None = None) -> None:
        """Characters `start` to `end` of a message; its tokens, if it has any that are just these."""
        content = message["content"]
        end = len(content) if end is None else end
        ids = _part_of(message, start, end, self._tokenizer)
        if ids is None:
            self.add_content(message["role"], content[start:end], content, index)
        else:
            self._flush()
            self._put(ids, message["role"], index, content)
            self._after = "text" if ids else self._after

    def add_content(self, role: str, text: str, content: str, index: int | None = None) -> None:
        self._run += [(role, text, index, content)] if text else []

    def finish(self) -> Prompt:
        self._flush()
        return Prompt(self._tokens, tuple(self._spans))

    def _flush(self) -> None:
        """Encode the run in one go. A token that holds both template and content counts as the content's."""
        ids, starts = self._tokenizer.locate("".join(text for _, text, _, _ in self._run), self._after)
        at = done = 0
        for role, text, message, content in self._run:
            begin, at = at, at + len(text)
            if role != "template":
                first = bisect_left(starts, begin)
                reaches_in = first == len(starts) or starts[first] > begin
                first = max(done, first - reaches_in)
                self._put(ids[done:first], "template")
                done = bisect_left(starts, at, lo=first)
                self._put(ids[first:done], role, message, content)
        self._put(ids[done:], "template")
        self._after = "text" if ids else self._after
        self._run = []

    def _put(self, ids: list[int], role: str, message: int | None = None, text: str | None = None) -> None:
        start = len(self._tokens)
        self._tokens += ids
        if role != "template":
            self._spans.append(Span(role, start, len(self._tokens), message, text))
        elif ids:
            joins = self._spans and self._spans[-1].role == "template"
            self._spans.append(Span(role, self._spans.pop().start if joins else start, len(self._tokens)))


def _part_of(message: Message, start: int, end: int, tokenizer: Tokenizer) -> list[int] | None:
    """The tokens of a part of a reply; None if it has no tokens, or none that begin and end there."""
    tokens, content = message.get("tokens"), message["content"]
    if tokens is None or (start, end) == (0, len(content)):
        return tokens
    pieces = tokenizer.pieces(tokens, opening=True)
    starts = [0, *accumulate(map(len, pieces))]
    first, last = bisect_left(starts, start), bisect_left(starts, end)
    fits = "".join(pieces) == content and last < len(starts) and (starts[first], starts[last]) == (start, end)
    return tokens[first:last] if fits else None


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ChatError("a conversation needs at least one message")
    for i, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise ChatError(f"message {i}: role must be one of {ROLES}, got {message.get('role')!r}")
        if not isinstance(message.get("content"), str):
            raise ChatError(f"message {i}: content must be text, got {type(message.get('content')).__name__}")


def _default(source: Any) -> str | None:
    """The template to use, of one or of several that have names."""
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}
    if isinstance(source, dict):
        return source.get("default") or (next(iter(source.values())) if len(source) == 1 else None)
    return source
