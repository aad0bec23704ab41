"""What turns text into ids: tiktoken for byte-level BPE, the `tokenizers` library for everything else.

Both take control strings as text, and both say where in the text each token begins. tiktoken runs only what it does
exactly as the library would (cuts.py, vocabulary.py); text that it cannot take goes through the library too.
"""

import json
import re
import threading
from collections.abc import Callable
from functools import cache, cached_property
from itertools import accumulate, chain
from typing import Any, Literal, Protocol

import tiktoken

from gpt.added import AddedTokens
from gpt.cuts import steps
from gpt.spelling import TokenizerError
from gpt.vocabulary import Vocabulary

__all__ = ["After", "Encoder", "encoder_of"]

After = Literal["nothing", "control", "text"]
"""What stands before a text: some tokenizers put a space at the very beginning, or after a control token as well."""

_TAIL = bytes(range(0x80, 0xC0))  # the UTF-8 bytes that continue a character

# tiktoken panics when its regex meets about a million spaces in a row. Longer text is cut before a word that
# follows a word, where every pattern cuts as well; only a stretch this long without such a place is broken.
_BLOCK = 100_000
_BLOCKS = re.compile(rf"(?s).{{1,{_BLOCK}}}(?<=\w)(?= \w)|.{{1,{_BLOCK}}}")


class Encoder(Protocol):
    """Text to ids."""

    def locate(self, text: str, after: After) -> tuple[list[int], list[int]]:
        """Ids of `text` (control strings are text), and the character where each begins."""

    def first(self, token: int) -> str:
        """What a token says at the beginning of a text; only asked of tokenizers where that makes a difference."""


def encoder_of(vocab: Vocabulary) -> Encoder:
    """The encoder of a vocabulary. Raises TokenizerError for one that the library cannot read."""
    return _Library(vocab.spec) if vocab.pattern is None else _ByteBPE(vocab)


class _Library:
    """Any tokenizer that a tokenizer.json can describe, through the `tokenizers` library."""

    def __init__(self, spec: dict[str, Any]):
        self._spec = {**spec, "version": "1.0", "truncation": None, "padding": None, "post_processor": None}
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._after("nothing")

    def locate(self, text: str, after: After) -> tuple[list[int], list[int]]:
        encoding = self._after(after).encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def first(self, token: int) -> str:
        return self._after("nothing").decode([token], skip_special_tokens=False)

    def _after(self, after: After) -> Any:
        """The library's tokenizer for a text after something; the same one where that makes no difference."""
        changed = {key: _continuing(self._spec.get(key), after) for key in ("normalizer", "pre_tokenizer")}
        key = json.dumps(changed)
        with self._lock:
            if key not in self._made:
                self._made[key] = _read(self._spec | changed)
            return self._made[key]


def _read(spec: dict[str, Any]) -> Any:
    import tokenizers  # here, because most checkpoints do without it

    try:
        made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"the tokenizers library cannot read this tokenizer: {error}") from error
    for entry in spec.get("added_tokens") or []:
        if made.token_to_id(entry["content"]) != entry["id"]:  # the library counts on from the vocabulary's last
            raise TokenizerError(f"the added token {entry['content']!r} must have the id after the others' last")
    made.encode_special_tokens = True  # that is, as text
    return made


def _continuing(step: dict[str, Any] | None, after: After) -> dict[str, Any] | None:
    """A step of a tokenizer.json for text that follows something: without the space that only goes at a beginning."""
    inner = next((key for key in ("normalizers", "pretokenizers") if step and key in step), None)
    if inner:
        return {**step, inner: [kept for each in step[inner] if (kept := _continuing(each, after))]}
    match step, after:
        case {"type": "Prepend"}, "text":
            return None
        case {"type": "Metaspace"}, "text":
            return {**step, "prepend_scheme": "never", "add_prefix_space": False}
        case {"type": "Metaspace", "prepend_scheme": "first"}, "control":
            return {**step, "prepend_scheme": "never", "add_prefix_space": False}
        case {"type": "ByteLevel"}, "text":
            return {**step, "add_prefix_space": False}
    return step


class _ByteBPE:
    """Byte-level BPE through tiktoken, whose ranks (single bytes, then merges in order) are mapped to ids.

    tiktoken panics on a byte without a rank. Text with a byte that has no token goes through the `tokenizers`
    library, which drops such bytes before it merges.
    """

    def __init__(self, vocab: Vocabulary):
        named = {entry["id"] for entry in vocab.entries}
        single = [i for i, data in enumerate(vocab.table) if len(data) == 1 and i not in named]
        self._ids = list(dict.fromkeys(chain(single, vocab.merged)))
        ranks = {vocab.table[token]: rank for rank, token in enumerate(self._ids)}
        self._bytes, self._spec = list(ranks), vocab.spec
        self._missing = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        self._encoding = tiktoken.Encoding(
            "checkpoint", pat_str=vocab.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._composed = _composed if steps(vocab.spec, "normalizer", "normalizers") else _as_it_is
        added = {entry["id"] for entry in vocab.entries if not entry["special"]}
        self._in_raw = AddedTokens([e for e in vocab.entries if not e.get("normalized")], added)
        self._in_composed = AddedTokens([self._normal(e) for e in vocab.entries if e.get("normalized")], added)

    def locate(self, text: str, after: After) -> tuple[list[int], list[int]]:
        ids, starts = [], []
        for begin, end, token in self._in_raw.cut(text):
            part, origins = ("", None) if token is not None else self._composed(text[begin:end])
            found, at = ([token], [0]) if token is not None else self._locate_composed(part)
            ids += found
            starts += [begin + (i if origins is None else origins[i]) for i in at] if begin or origins else at
        return ids, starts

    def first(self, token: int) -> str:
        raise AssertionError("a token of byte-level BPE is the same everywhere")

    def _normal(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "content": self._composed(entry["content"])[0]}

    def _locate_composed(self, text: str) -> tuple[list[int], list[int]]:
        ids, starts = [], []
        for begin, end, token in self._in_composed.cut(text):
            part, at = text[begin:end], begin
            for block in [part] if len(part) <= _BLOCK else _BLOCKS.findall(part):
                found = self._locate_block(block) if token is None else ([token], [0])
                ids += found[0]
                starts += [at + start for start in found[1]] if at else found[1]
                at += len(block)
        return ids, starts

    def _locate_block(self, text: str) -> tuple[list[int], list[int]]:
        encoded = text.encode("utf-8")
        if len(encoded.translate(None, self._missing)) < len(encoded):
            return self._library.locate(text, "text")
        ranks = self._encoding.encode_ordinary(text)
        data = [self._bytes[rank] for rank in ranks]
        ends = accumulate((len(d.translate(None, _TAIL)) for d in data), initial=0)
        starts = [end - (d[0] in _TAIL) for d, end in zip(data, ends, strict=False)]
        return [self._ids[rank] for rank in ranks], starts

    @cached_property
    def _library(self) -> _Library:
        return _Library({**self._spec, "added_tokens": []})  # they were cut out before


_Composed = Callable[[str], tuple[str, list[int] | None]]


def _as_it_is(text: str) -> tuple[str, list[int] | None]:
    return text, None


def _composed(text: str) -> tuple[str, list[int] | None]:
    """`text` in Unicode's normal form C, and the character of `text` that each of its own comes from; None for itself.

    By the library, which knows another version of Unicode than Python does.
    """
    if text.isascii():
        return text, None
    from tokenizers.normalizers import NFC

    if NFC().normalize_str(text) == text:
        return text, None
    encoding = _characters().encode(text, add_special_tokens=False)
    return NFC().normalize_str(text), [start for start, _ in encoding.offsets]


@cache
def _characters() -> Any:
    """A tokenizer whose every token is one character in form C."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.normalizer, made.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return made
