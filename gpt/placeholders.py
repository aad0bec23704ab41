"""Contents behind placeholders while a chat template renders, and where they ended up.

A placeholder keeps what was written from being read as the template's own text. Strings that the template looks for
stay visible between placeholders; what it leaves in place is put together again afterwards.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpt.template import ChatError, Message

__all__ = ["Chunk", "Hidden", "parsed"]

# Private-use characters around the number of the message and of the part of its content.
_PLACEHOLDER = re.compile("\ue000([0-9]+)\\.([0-9]+)\ue001")


class Chunk(NamedTuple):
    """Characters `start` to `end` of a message's content."""

    message: int
    start: int
    end: int


class Hidden:
    """A message as the template sees it, `shown`. An empty content stays empty, because templates ask for that.

    `parts` are the characters of its content behind placeholders; `gaps` the strings before, between and after them:
    `marks` (whatever it matches) and nothing else. `is_whole` when all of it is behind one placeholder.
    """

    def __init__(self, message: Message, index: int, marks: re.Pattern[str] | None):
        self.role, self.content = message["role"], message["content"]
        self.parts: list[tuple[int, int]] = []
        self.gaps, at = [""], 0
        pieces = marks.split(self.content) if marks else [self.content]
        if self.role == "user" and not any(pieces[::2]):
            pieces = [self.content]  # words that a template knows, and all that the user wrote
        for i, piece in enumerate(pieces):
            hide = piece if self.content else message.get("tokens") is not None
            if i % 2 or not hide:
                self.gaps[-1] += piece
            else:
                self.parts.append((at, at + len(piece)))
                self.gaps.append("")
            at += len(piece)
        holders = [_placeholder(index, part) for part in range(len(self.parts))]
        self.is_whole = len(holders) == 1 and not any(self.gaps)
        self.shown = self.gaps[0] + "".join(a + b for a, b in zip(holders, self.gaps[1:], strict=True))

    def text(self, chunk: Chunk) -> str:
        """What a chunk shows; its placeholder for a reply that is empty."""
        return self.content[chunk.start : chunk.end] if self.content else self.shown


def _placeholder(message: int, part: int) -> str:
    return f"\ue000{message}.{part}\ue001"


def parsed(text: str, hidden: Sequence[Hidden]) -> list[str | Chunk]:
    """A rendered conversation as text of the template, and what it shows of contents, in turn."""
    first, *rest = _PLACEHOLDER.split(text)
    events: list[Any] = [first]
    for message, part, after in zip(map(int, rest[::3]), map(int, rest[1::3]), rest[2::3], strict=True):
        h = hidden[message]
        (start, end), before, gap = h.parts[part], events[-1], h.gaps[part]
        if part and before == gap and events[-2:-1] == [Chunk(message, events[-2][1], h.parts[part - 1][1])]:
            start = events[-2].start
            del events[-2:]
        elif not part and gap and before.endswith(gap):
            start, events[-1] = 0, before[: -len(gap)]
        last = h.gaps[-1] if part == len(h.parts) - 1 else ""
        if last and after.startswith(last):
            end, after = len(h.content), after[len(last) :]
        events += [Chunk(message, start, end), after]
    if any("\ue000" in event or "\ue001" in event for event in events if isinstance(event, str)):
        raise ChatError("the chat template takes contents apart in a way that cannot be followed; use plain text")
    return events
