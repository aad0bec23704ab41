"""Text to token ids and back, with the tokenizer that the checkpoint itself brings.

Byte-level BPE (GPT-2, SmolLM2, Llama 3) runs as a `tiktoken.Encoding` built from the checkpoint's merges
and its own way of cutting text; nothing is downloaded. Every other kind that can be read at all runs through
the `tokenizers` library behind the same interface. Control tokens (`<|im_end|>`) are matched only on request:
typed by a user they are text.
"""

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Protocol

import tiktoken

from gpt import vocabulary
from gpt.vocabulary import TokenizerError, Vocabulary

_TAIL = bytes(range(0x80, 0xC0))  # the UTF-8 bytes that continue a character

# tiktoken panics when its regex meets about a million spaces in a row. Longer text is cut before a word that
# follows a word, where every pattern cuts as well; only a stretch this long without such a place is broken.
_BLOCK = 100_000
_BLOCKS = re.compile(rf"(?s).{{1,{_BLOCK}}}(?<=\w)(?= \w)|.{{1,{_BLOCK}}}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = re.compile("[\udc80-\udcff]+")  # what errors="surrogateescape" makes of bytes that are no UTF-8


class _Backend(Protocol):
    def locate(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of `text` (control strings are text), and the character where each begins."""


class _Library:
    """Any tokenizer that a tokenizer.json can describe, through the `tokenizers` library."""

    def __init__(self, spec: dict[str, Any]):
        import tokenizers  # here, because most checkpoints do without it

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(f"the tokenizers library cannot read this tokenizer: {error}") from error
        self._tokenizer.encode_special_tokens = True  # that is, as text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def locate(self, text: str) -> tuple[list[int], list[int]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]


class _ByteBPE:
    """Byte-level BPE through tiktoken, whose ranks (single bytes, then merges in order) are mapped to ids.

    tiktoken panics on a byte without a rank. Text with a byte that has no token goes through the `tokenizers`
    library, which drops such bytes before it merges.
    """

    def __init__(self, vocab: Vocabulary):
        named = {*vocab.added.values(), *vocab.specials.values()}
        single = [i for i, data in enumerate(vocab.table) if len(data) == 1 and i not in named]
        self._ids = list(dict.fromkeys(chain(single, vocab.merged)))
        ranks = {vocab.table[token]: rank for rank, token in enumerate(self._ids)}
        self._bytes, self._spec = list(ranks), vocab.spec
        self._missing = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        self._encoding = tiktoken.Encoding(
            "checkpoint", pat_str=vocab.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._added, self._splitter = vocab.added, _any_of(vocab.added)

    @cached_property
    def _library(self) -> _Library:
        return _Library(self._spec)

    def locate(self, text: str) -> tuple[list[int], list[int]]:
        ids, starts, at = [], [], 0
        for part in self._splitter.split(text):
            for block in [part] if len(part) <= _BLOCK else _BLOCKS.findall(part):
                found = ([self._added[block]], [0]) if block in self._added else self._locate_block(block)
                ids += found[0]
                starts += [at + start for start in found[1]]
                at += len(block)
        return ids, starts

    def _locate_block(self, text: str) -> tuple[list[int], list[int]]:
        encoded = text.encode("utf-8")
        if len(encoded.translate(None, self._missing)) < len(encoded):
            return self._library.locate(text)
        ranks = self._encoding.encode_ordinary(text)
        data = [self._bytes[rank] for rank in ranks]
        ends = accumulate((len(d.translate(None, _TAIL)) for d in data), initial=0)
        starts = [end - (d[0] in _TAIL) for d, end in zip(data, ends, strict=False)]
        return [self._ids[rank] for rank in ranks], starts


class Tokenizer:
    """Encodes and decodes the tokens of one checkpoint.

    `n_vocab` is the highest id + 1; `specials` maps the name of each control token to its id; `end_tokens`
    are the ids that end a reply: the checkpoint's eos, and control tokens that end a turn or a document by
    their usual name; `bos` is the id that the checkpoint wants before plain text, or None. An id that the
    tokenizer does not know (padding of the embedding) has no bytes and shows as its number.
    """

    def __init__(self, vocab: Vocabulary):
        self._backend = _backend(vocab)
        self._table, self._splitter = vocab.table, _any_of(vocab.specials)
        self._special_ids = frozenset(vocab.specials.values())
        self.n_vocab, self.specials = len(vocab.table), vocab.specials
        self.end_tokens, self.bos = vocab.end_tokens, vocab.bos
        self._shown: dict[int, str] = {}  # pieces that were asked for

    @classmethod
    def from_gguf(cls, fields: dict[str, Any]) -> "Tokenizer":
        """The tokenizer in a GGUF file's metadata. Raises TokenizerError for a kind that cannot be read."""
        return cls(vocabulary.from_gguf(fields))

    @classmethod
    def from_folder(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a folder in Hugging Face layout. Raises TokenizerError when it holds none."""
        return cls(vocabulary.from_folder(Path(path)))

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Token ids of `text`. With `specials`, names of control tokens in it become those tokens.

        A lone surrogate is read as U+FFFD; a byte for which the vocabulary has no token is dropped.
        """
        parts = self.split(text) if specials else [text]
        return [i for part in parts for i in ([part] if isinstance(part, int) else self.locate(part)[0])]

    def locate(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of `text` (control strings are text), and the index of the character in which each begins."""
        return self._backend.locate(_SURROGATE.sub("\ufffd", text))

    def split(self, text: str) -> list[str | int]:
        """`text` cut at the names of control tokens, which are given as ids; empty stretches are left out."""
        parts = enumerate(self._splitter.split(text))
        return [self.specials[part] if i % 2 else part for i, part in parts if part]

    def decode(self, tokens: Sequence[int], *, specials: bool = True) -> str:
        """Text of `tokens`, with control tokens only if `specials`; bytes that are no UTF-8 become U+FFFD."""
        kept = (token for token in tokens if specials or token not in self._special_ids)
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; those of its name for a control token, none for an unknown id."""
        return self._table[token] if 0 <= token < self.n_vocab else b""

    def piece(self, token: int) -> str:
        """One token alone, for display: never empty; half a character is in hexadecimal, as in `⟨e4 bd⟩`."""
        if token not in self._shown:
            text = self.token_bytes(token).decode("utf-8", "surrogateescape")
            self._shown[token] = _NO_TEXT.sub(_hexadecimal, text) or f"⟨{token}⟩"
        return self._shown[token]

    def is_special(self, token: int) -> bool:
        """Whether `token` is a control token."""
        return token in self._special_ids

    def decoder(self) -> "StreamDecoder":
        """A decoder that takes the tokens one at a time."""
        return StreamDecoder(self)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """The text that each token completes, "" while a character is unfinished; control tokens by name.

        Later tokens change nothing: the pieces of a prefix are a prefix of the pieces. So an unfinished
        character at the very end is left out, where `decode` shows U+FFFD.
        """
        decoder = self.decoder()
        return [decoder.push(token) for token in tokens]


class StreamDecoder:
    """Text of tokens that arrive one at a time, never half a character.

    All that `push` returned, and then `flush`, is the text that `Tokenizer.decode` gives for all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._token_bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Text completed by `token`; bytes that can no longer become a character come out as U+FFFD."""
        return self._utf8.decode(self._token_bytes(token))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else "". The decoder starts anew."""
        return self._utf8.decode(b"", final=True)


def _backend(vocab: Vocabulary) -> _Backend:
    if vocab.pattern is None:
        return _Library(vocab.spec)
    try:
        return _ByteBPE(vocab)
    except ValueError:  # a checkpoint's own pattern, in a syntax that tiktoken does not know
        return _Library(vocab.spec)


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """A pattern that splits at any of `names`, the longest first, and keeps them."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")  # (?!) matches nothing


def _hexadecimal(found: re.Match[str]) -> str:
    return f"⟨{found[0].encode('utf-8', 'surrogateescape').hex(' ')}⟩"
