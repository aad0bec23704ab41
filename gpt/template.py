"""Chat templates as Jinja runs them: in a sandbox, with what Hugging Face transformers gives to templates.

Nothing of the checkpoint's is run but this. Source: `render_jinja_template` of transformers.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn, NotRequired, TypedDict

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["ChatError", "Message", "Template"]

_RENDER_ERRORS = (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
_SEARCHES = (
    "split",
    "rsplit",
    "partition",
    "rpartition",
    "startswith",
    "endswith",
    "replace",
    "find",
    "count",
    "index",
)


class ChatError(ValueError):
    """A conversation that the template refuses, or a template that cannot be read."""


class Message(TypedDict):
    """One turn. `tokens` are a reply's ids as they were generated; they are used instead of `content`."""

    role: str
    content: str
    tokens: NotRequired[list[int]]


class Template:
    """A compiled template. `names` are the control tokens it may print; `marks` the strings it looks for in contents.

    Raises ChatError for a template with a syntax error.
    """

    def __init__(self, source: str, names: dict[str, str]):
        self._names, environment = names, _environment()
        try:
            self._template, tree = environment.from_string(source), environment.parse(source)
        except jinja2.TemplateError as error:
            raise ChatError(f"the checkpoint's chat template is damaged ({error}); use plain text") from error
        self.marks = frozenset(text for text in map(str.strip, _searched(tree)) if len(text) > 1)

    def render(self, messages: Sequence[Message], reply: bool) -> str:
        """The conversation as one text. Raises ChatError, with the template's own words when it refuses."""
        values = {"messages": messages, "add_generation_prompt": reply, "tools": None, "documents": None}
        try:
            return self._template.render(values | self._names)
        except _RENDER_ERRORS as error:
            raise ChatError(f"the chat template refuses this conversation: {error}") from error


def _searched(tree: nodes.Template) -> Iterator[str]:
    """Strings that a template looks for in others, or keeps in a variable."""
    for node in tree.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Assign)):
        match node:
            case nodes.Compare(expr=nodes.Const(value=str(text)), ops=[nodes.Operand(op="in" | "notin"), *_]):
                yield text
            case nodes.Assign(node=nodes.Const(value=str(text))):
                yield text
            case nodes.Filter(name="replace", args=[nodes.Const(value=str(text)), *_]):
                yield text
            case nodes.Call(node=nodes.Getattr(attr=name), args=[nodes.Const(value=str(text)), *_]):
                if name in _SEARCHES:
                    yield text


class _Generation(Extension):
    """`{% generation %}`, with which templates mark the assistant's part for training: nothing here."""

    tags = frozenset({"generation"})

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
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
