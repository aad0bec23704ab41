"""SentencePiece vocabularies as a tokenizer.json: from a file `tokenizer.model`, or from the pieces in a GGUF file.

The file is a protocol buffer of few fields, which is read here by its wire format. Merges are put in order as in the
converters of Hugging Face transformers: what makes the best-scored piece goes first. Refused are kinds of vocabulary
other than BPE and Unigram, and tables that rewrite text (Llama's, Mistral's and Gemma's files have none), which the
`tokenizers` library applies in another way. Source: `sentencepiece_model.proto` of the SentencePiece library.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt.added import entry
from gpt.spelling import TokenizerError

__all__ = ["NORMAL", "Pieces", "pieces_of_file"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces, in GGUF files too
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.model_type


@dataclass(frozen=True)
class Pieces:
    """A vocabulary: names, scores (higher goes first) and kinds by id, and what is done to text before.

    `prefix`: a space goes before a text. `every`: before each stretch that follows a control token as well, not only
    at the beginning. `tidy`: runs of spaces become one, and none are at the ends.
    """

    names: Sequence[str]
    scores: Sequence[float]
    kinds: Sequence[int]
    prefix: bool = True
    every: bool = True
    unigram: bool = False
    tidy: bool = False

    def spec(self) -> dict[str, Any]:
        """The object of a tokenizer.json, with control tokens and the user's own as added tokens."""
        special = {UNKNOWN: True, CONTROL: True, USER_DEFINED: False}
        added = [entry(self.names[i], i, special[kind]) for i, kind in enumerate(self.kinds) if kind in special]
        spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
        return {
            "added_tokens": added,
            "model": self._unigram() if self.unigram else self._bpe(),
            "normalizer": {"type": "Sequence", "normalizers": self._normalizers()},
            "pre_tokenizer": None if self.every or not self.prefix else spaces,
            "decoder": {"type": "Sequence", "decoders": self._decoders()},
        }

    def _normalizers(self) -> list[dict[str, Any]]:
        found = []
        if self.tidy:
            found.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
            found.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        if self.prefix and self.every:
            found.append({"type": "Prepend", "prepend": "▁"})
        if self.every or not self.prefix:
            found.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
        return found

    def _decoders(self) -> list[dict[str, Any]]:
        found = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}]
        found += [{"type": "ByteFallback"}] * (BYTE in self.kinds)
        found += [{"type": "Fuse"}]
        return found + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] * self.prefix

    def _bpe(self) -> dict[str, Any]:
        unknown = self._unknown()
        return {
            "type": "BPE",
            "vocab": {name: i for i, name in enumerate(self.names)},
            "merges": self._merges(),
            "unk_token": None if unknown is None else self.names[unknown],
            "fuse_unk": True,
            "byte_fallback": BYTE in self.kinds,
        }

    def _unigram(self) -> dict[str, Any]:
        vocab = [[name, float(score)] for name, score in zip(self.names, self.scores, strict=True)]
        return {"type": "Unigram", "unk_id": self._unknown(), "vocab": vocab, "byte_fallback": BYTE in self.kinds}

    def _unknown(self) -> int | None:
        return next((i for i, kind in enumerate(self.kinds) if kind == UNKNOWN), None)

    def _merges(self) -> list[list[str]]:
        """Pairs that make a piece, the best score first, then the longest beginning, then the longest end."""
        scores = {name: self.scores[i] for i, name in enumerate(self.names) if self.kinds[i] in (NORMAL, USER_DEFINED)}
        pairs = [
            (-score, -cut, cut - len(name), name)
            for name, score in scores.items()
            for cut in range(1, len(name))
            if name[:cut] in scores and name[cut:] in scores
        ]
        pairs.sort(key=lambda pair: pair[:3])
        return [[name[:-minus], name[-minus:]] for _, minus, _, name in pairs]


def pieces_of_file(path: Path, every: bool) -> Pieces:
    """The vocabulary in a SentencePiece file. Raises TokenizerError when it is damaged or of another kind."""
    try:
        return _pieces(path.read_bytes(), every)
    except (IndexError, struct.error, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise TokenizerError(
            f"{path} is not a SentencePiece file ({error}); add the checkpoint's tokenizer.json"
        ) from error


def _pieces(data: bytes, every: bool) -> Pieces:
    names, scores, kinds, trainer, normal = [], [], [], {}, {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(value))
            names.append(piece[1].decode("utf-8") if 1 in piece else "")
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
            kinds.append(piece.get(3, NORMAL))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normal = dict(_fields(value))
    if not names or trainer.get(3, _UNIGRAM) not in (_UNIGRAM, _BPE) or trainer.get(24):
        raise TokenizerError("tokenizer.model must hold a usual BPE or Unigram vocabulary; add a tokenizer.json")
    if normal.get(2):
        raise TokenizerError("tokenizer.model rewrites text by a table, which is not known here; add a tokenizer.json")
    unigram = trainer.get(3, _UNIGRAM) == _UNIGRAM
    return Pieces(names, scores, kinds, bool(normal.get(3, True)), every, unigram, tidy=bool(normal.get(4, True)))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: int for a varint, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
            case 1 | 5 as wire:
                size = 8 if wire == 1 else 4
                value, at = data[at : at + size], at + size
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case wire:
                raise IndexError(f"wire type {wire}")
        if at > len(data):
            raise IndexError("it is cut short")
        yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
