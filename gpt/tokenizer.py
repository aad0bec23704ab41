"""Text to token ids and back, with the tokenizer that the checkpoint itself brings.

Byte-level BPE (GPT-2, SmolLM2, Llama 3, Qwen) runs through tiktoken, built from the checkpoint's merges and its own way
of cutting text; nothing is downloaded. Every other kind that can be read at all runs through the `tokenizers` library
behind the same interface. Control tokens (`<|im_end|>`) are matched only on request: typed by a user they are text.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpt import vocabulary
from gpt.added import AddedTokens
from gpt.encoders import After, encoder_of
from gpt.vocabulary import Vocabulary

__all__ = ["StreamDecoder", "Tokenizer"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = re.compile("[\udc80-\udcff]+")  # what errors="surrogateescape" makes of bytes that are no UTF-8


class Tokenizer:
    """Encodes and decodes the tokens of one checkpoint.

    `n_vocab` is the highest id + 1; `specials` maps the name of each control token to its id; `end_tokens`
    are the ids that end a reply: the checkpoint's eos, and control tokens that end a turn or a document by
    their usual name; `bos` is the id that the checkpoint wants before plain text, or None. An id that the
    tokenizer does not know (padding of the embedding) has no bytes and shows as its number.
    """

    def __init__(self, vocab: Vocabulary):
        self._encoder, self._table, self._opens = encoder_of(vocab), vocab.table, vocab.opens
        self._special_ids = frozenset(vocab.specials.values())
        self._control = AddedTokens(vocab.entries, self._special_ids)
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
        ids: list[int] = []
        for part in self.split(text) if specials else [text]:
            ids += [part] if isinstance(part, int) else self.locate(part, "control" if ids else "nothing")[0]
        return ids

    def locate(self, text: str, after: After = "nothing") -> tuple[list[int], list[int]]:
        """Ids of `text` (control strings are text), and the index of the character in which each begins.

        `after` is what stands before it: "nothing", a "control" token, or other "text".
        """
        return self._encoder.locate(_SURROGATE.sub("\ufffd", text), after) if text else ([], [])

    def split(self, text: str) -> list[str | int]:
        """`text` cut at the names of control tokens, which are given as ids; empty stretches are left out.

        White space beside a name is left out where the control token takes it along.
        """
        return [text[start:end] if token is None else token for start, end, token in self._control.cut(text)]

    def decode(self, tokens: Sequence[int], *, specials: bool = True, opening: bool = True) -> str:
        """Text of `tokens`, with control tokens only if `specials`; bytes that are no UTF-8 become U+FFFD.

        At the beginning of a text, which they are if `opening`, some tokenizers' first token begins with a space that
        was not in the text and is left out.
        """
        kept = [t for t in tokens if specials or t not in self._special_ids]
        parts = [self.token_bytes(token) for token in kept]
        first = next((i for i, part in enumerate(parts) if part), None) if opening else None
        if first is not None:
            parts[first] = self.first_bytes(kept[first])
        return b"".join(parts).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; those of its name for a control token, none for an unknown id."""
        return self._table[token] if 0 <= token < self.n_vocab else b""

    def first_bytes(self, token: int) -> bytes:
        """The bytes of one token at the beginning of a text."""
        data = self.token_bytes(token)
        if not self._opens or not data or not _is_text(data):
            return data
        return self._encoder.first(token).encode("utf-8")

    def piece(self, token: int) -> str:
        """One token alone, for display: never empty; half a character is in hexadecimal, as in `⟨e4 bd⟩`."""
        if token not in self._shown:
            text = self.token_bytes(token).decode("utf-8", "surrogateescape")
            self._shown[token] = _NO_TEXT.sub(_hexadecimal, text) or f"⟨{token}⟩"
        return self._shown[token]

    def is_special(self, token: int) -> bool:
        """Whether `token` is a control token."""
        return token in self._special_ids

    def decoder(self, *, opening: bool = True) -> "StreamDecoder":
        """A decoder that takes the tokens one at a time; `opening` as in `decode`."""
        return StreamDecoder(self, opening)

    def pieces(self, tokens: Iterable[int], *, opening: bool = False) -> list[str]:
        """The text that each token completes, "" while a character is unfinished; control tokens by name.

        Later tokens change nothing: the pieces of a prefix are a prefix of the pieces. So an unfinished character at
        the very end is left out, where `decode` shows U+FFFD. `opening` as in `decode`, but not unless asked for.
        """
        decoder = self.decoder(opening=opening)
        return [decoder.push(token) for token in tokens]


class StreamDecoder:
    """Text of tokens that arrive one at a time, never half a character.

    All that `push` returned, and then `flush`, is the text that `Tokenizer.decode` gives for all the tokens.
    """

    def __init__(self, tokenizer: Tokenizer, opening: bool):
        self._tokenizer, self._opening = tokenizer, opening
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Text completed by `token`; bytes that can no longer become a character come out as U+FFFD."""
        data = self._tokenizer.token_bytes(token)
        if self._opening and data:
            data, self._opening = self._tokenizer.first_bytes(token), False
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else ""."""
        return self._utf8.decode(b"", final=True)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _hexadecimal(found: re.Match[str]) -> str:
    return f"⟨{found[0].encode('utf-8', 'surrogateescape').hex(' ')}⟩"
