"""Conversations to tokens, through the chat template that the checkpoint brings, with a role for every token.

The template never sees what was written: each content is a placeholder while it renders. So the result falls
into the template's own text, where names of control tokens become those tokens, and contents, where they stay
text. White space around a content is kept even where a template would trim it. What stands between control
tokens is encoded in one go, as in training. Source: `apply_chat_template` of Hugging Face transformers.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, NotRequired, TypedDict

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpt.tokenizer import Tokenizer
from gpt.vocabulary import read_json, token_name

ROLES = ("system", "user", "assistant")
_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")  # private-use characters around the number of the message
_RENDER_ERRORS = (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)


class ChatError(ValueError):
    """A conversation that the template refuses, or a template that cannot be read."""


class Message(TypedDict):
    """One turn. `tokens` are a reply's ids as they were generated; they are used instead of `content`."""

    role: str
    content: str
    tokens: NotRequired[list[int]]


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `end` are of one role: one of ROLES, "template", or "text" if there is no template.

    `message` is the index of the message, and `text` its content exactly as it was given.
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
    spans = [Span("template", 0, 1)] * len(bos) + [Span("text", len(bos), len(tokens), text=text)]
    return Prompt(tokens, tuple(spans))


class ChatTemplate:
    """A checkpoint's chat template; `source` is its Jinja. Raises ChatError when that has a syntax error."""

    def __init__(self, source: str, tokenizer: Tokenizer, names: dict[str, str]):
        self.source, self._tokenizer, self._names = source, tokenizer, names
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ChatError(f"the checkpoint's chat template is damaged ({error}); use plain text") from error

    @classmethod
    def from_gguf(cls, fields: dict[str, Any], tokenizer: Tokenizer) -> "ChatTemplate | None":
        """The template in a GGUF file's metadata, or None when it has none."""
        source = fields.get("tokenizer.chat_template")
        keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
        ids = {name: fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
        names = {name: tokenizer.decode([token]) for name, token in ids.items() if token is not None}
        return cls(source, tokenizer, names) if source else None

    @classmethod
    def from_folder(cls, path: Path, tokenizer: Tokenizer) -> "ChatTemplate | None":
        """The template of a folder in Hugging Face layout, or None when it has none."""
        config, file = read_json(Path(path) / "tokenizer_config.json"), Path(path) / "chat_template.jinja"
        source = file.read_text("utf-8") if file.exists() else config.get("chat_template")
        if isinstance(source, list):  # several, by name
            source = next((entry["template"] for entry in source if entry["name"] == "default"), None)
        keys = ("bos_token", "eos_token", "unk_token", "pad_token")
        names = {key: name for key in keys if (name := token_name(config.get(key)))}
        return cls(source, tokenizer, names) if source else None

    def encode(self, messages: Sequence[Message], *, reply: bool = True) -> Prompt:
        """Tokens and spans of a conversation; with `reply`, up to where the assistant's next words begin.

        A system prompt that the template puts in by itself gets the role "system", without a message index.
        Raises ChatError for malformed messages, and with the template's own words when it refuses them.
        """
        _check(messages)
        hidden = [_hidden(message, i) for i, message in enumerate(messages)]
        first, *rest = _PLACEHOLDER.split(self._render(hidden, reply))
        before, default, after = self._opening(first, hidden, reply)
        builder = _Builder(self._tokenizer)
        builder.add_template(before)
        builder.add_content("system", default)
        builder.add_template(after)
        for index, text in zip(map(int, rest[::2]), rest[1::2], strict=True):
            builder.add_message(messages[index], index)
            builder.add_template(text)
        return builder.finish()

    def _render(self, messages: list[Message], reply: bool) -> str:
        values = {"messages": messages, "add_generation_prompt": reply, "tools": None, "documents": None}
        try:
            return self._template.render(values | self._names)
        except _RENDER_ERRORS as error:
            raise ChatError(f"the chat template refuses this conversation: {error}") from error

    def _opening(self, first: str, messages: list[Message], reply: bool) -> tuple[str, str, str]:
        """`first`, the text before the first content, around the template's own system prompt ("" for none).

        That prompt is what stands in the place of a system prompt that is given.
        """
        given = _hidden({"role": "system", "content": "given"}, len(messages))
        try:
            parts = _PLACEHOLDER.split(self._render([given, *messages], reply))
        except ChatError:  # a template without system prompts
            return first, "", ""
        if messages[0]["role"] != "system" and parts[1:2] == [str(len(messages))]:
            before, after = parts[0], parts[2]
            default = first[len(before) : len(first) - len(after)]
            if first == before + default + after and self._tokenizer.split(default) == [default]:
                return before, default, after
        return first, "", ""


class _Builder:
    """Puts the tokens of a conversation together, and their spans."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._spans: list[Span] = []
        self._run: list[tuple[str, str, int | None]] = []  # role, text, message: since the last control token

    def add_template(self, text: str) -> None:
        for part in self._tokenizer.split(text):
            if isinstance(part, str):
                self._run.append(("template", part, None))
            else:
                self._flush()
                self._put([part], "template")

    def add_message(self, message: Message, index: int) -> None:
        if message.get("tokens") is None:
            self.add_content(message["role"], message["content"], index)
        else:
            self._flush()
            self._put(message["tokens"], message["role"], index, message["content"])

    def add_content(self, role: str, text: str, index: int | None = None) -> None:
        self._run += [(role, text, index)] if text else []

    def finish(self) -> Prompt:
        self._flush()
        return Prompt(self._tokens, tuple(self._spans))

    def _flush(self) -> None:
        """Encode the run in one go. A token that holds both template and content counts as the content's."""
        ids, starts = self._tokenizer.locate("".join(text for _, text, _ in self._run))
        at = done = 0
        for role, text, message in self._run:
            begin, at = at, at + len(text)
            if role != "template":
                first = bisect_left(starts, begin)
                reaches_in = first == len(starts) or starts[first] > begin
                first = max(done, first - reaches_in)
                self._put(ids[done:first], "template")
                done = bisect_left(starts, at, lo=first)
                self._put(ids[first:done], role, message, text)
        self._put(ids[done:], "template")
        self._run = []

    def _put(self, ids: list[int], role: str, message: int | None = None, text: str | None = None) -> None:
        start = len(self._tokens)
        self._tokens += ids
        if role != "template":
            self._spans.append(Span(role, start, len(self._tokens), message, text))
        elif ids:
            joins = self._spans and self._spans[-1].role == "template"
            self._spans.append(Span(role, self._spans.pop().start if joins else start, len(self._tokens)))


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ChatError("a conversation needs at least one message")
    for i, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise ChatError(f"message {i}: role must be one of {ROLES}, got {message.get('role')!r}")
        if not isinstance(message.get("content"), str):
            raise ChatError(f"message {i}: content must be text, got {type(message.get('content')).__name__}")


def _hidden(message: Message, index: int) -> Message:
    """The message as the template sees it. An empty content stays empty, because templates ask for that."""
    shown = message["content"] or message.get("tokens") is not None
    return {"role": message["role"], "content": f"\ue000{index}\ue001" if shown else ""}


class _Generation(Extension):
    """`{% generation %}`, with which templates mark the assistant's part for training: nothing here."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, **options: Any) -> str:
    """JSON as it is; Jinja's own filter would escape it for HTML."""
    return json.dumps(value, **{"ensure_ascii": False, **options})
