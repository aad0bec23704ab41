"""Tokens that are matched in a text by their name, before anything else is done to it.

Their flags are those of `AddedToken` in the `tokenizers` library, whose way of matching this repeats: the leftmost
place first, the longest name there; a name that stands alone on request; white space taken along on either side.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any

__all__ = ["AddedTokens", "entry"]

_SPACE_BEFORE, _SPACE_AFTER = re.compile(r"[^\S\x1c-\x1f]*\Z"), re.compile(r"[^\S\x1c-\x1f]*")


def entry(name: str, token: int, special: bool, **flags: bool) -> dict[str, Any]:
    """One of a tokenizer.json's added tokens."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": name, "special": special, **plain, **flags}


class AddedTokens:
    """Cuts a text at the names of `wanted`, which are ids of `entries`; the other names hide what is inside them."""

    def __init__(self, entries: Collection[dict[str, Any]], wanted: Collection[int]):
        self._entries = {e["content"]: e for e in entries if e["content"]}
        self._wanted = frozenset(wanted)
        longest_first = sorted(self._entries, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) matches nothing
        self._idle = not any(e["id"] in self._wanted for e in self._entries.values())

    def cut(self, text: str) -> Iterator[tuple[int, int, int | None]]:
        """Start, end and id of every stretch of `text` that is not empty; the id is None between the names."""
        at = 0
        for found in () if self._idle else self._names.finditer(text):
            token = self._entries[found[0]]
            if token["id"] not in self._wanted or (token.get("single_word") and not _alone(found)):
                continue
            start, end = found.span()
            if token.get("lstrip"):
                start = max(at, _SPACE_BEFORE.search(text, at, start).start())
            if token.get("rstrip"):
                end = _SPACE_AFTER.match(text, end).end()
            if at < start:
                yield at, start, None
            yield max(at, start), end, token["id"]
            at = end
        if at < len(text):
            yield at, len(text), None


def _alone(found: re.Match[str]) -> bool:
    """Whether no letter, digit or underscore touches a name."""
    around = found.string[max(0, found.start() - 1) : found.start()], found.string[found.end() : found.end() + 1]
    return not any(re.match(r"\w", character) for character in around)
