"""How tokens are spelled: from the names in a vocabulary to the bytes that each token stands for in a text.

Three spellings are known: GPT-2's characters for bytes, SentencePiece's "▁" for a space with names like <0xE4> for
single bytes, and WordPiece's "##" for what continues a word. A tokenizer that decodes otherwise is refused by name.
Sources: GPT-2's byte-to-character map; the decoders of the `tokenizers` library.
"""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from gpt.cuts import steps

__all__ = ["TokenizerError", "names_of", "opens", "table_of"]

# GPT-2 writes the 68 bytes that do not print as the characters from U+0100 on, in order.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_HIDDEN = [b for b in range(256) if b not in _PRINTABLE]
_BYTE_OF = {b: b for b in _PRINTABLE} | {256 + i: b for i, b in enumerate(_HIDDEN)}
_GAP = "\ue000"  # between names while they are mapped together: no byte, and not in the map
# What WordPiece's clean-up puts together again, in its order.
_CLEAN = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
_CLEAN += ((" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))


class TokenizerError(ValueError):
    """A tokenizer that is missing, damaged or of a kind that cannot be read here."""


def table_of(spec: dict[str, Any], names: list[str], literal: dict[str, int]) -> list[bytes]:
    """The bytes of every id inside a text. `names` are the vocabulary's by id, `literal` the added tokens'."""
    decoders = _decoders(spec)
    if _is_byte_level(spec):
        table, spell = _from_byte_level([("" if name in literal else name) for name in names]), str
    else:
        spell = _wordpiece(decoders[0]) if decoders and decoders[0]["type"] == "WordPiece" else _pieces(decoders)
        fallback = any(step["type"] == "ByteFallback" for step in decoders)
        table = [_byte(name) if fallback and _is_byte(name) else spell(name).encode("utf-8") for name in names]
    for name, token in literal.items():
        table[token] = spell(name).encode("utf-8")
    return table


def opens(spec: dict[str, Any]) -> bool:
    """Whether the first token of a text reads differently, as without the space that the tokenizer put before it."""
    return not _is_byte_level(spec) and any(s["type"] in ("Strip", "Metaspace", "WordPiece") for s in _decoders(spec))


def _decoders(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return steps(spec, "decoder", "decoders")


def _is_byte_level(spec: dict[str, Any]) -> bool:
    """Files that do not say how to decode are taken to undo what they do to text."""
    known = _decoders(spec) or steps(spec, "pre_tokenizer", "pretokenizers")
    return any(step["type"] == "ByteLevel" for step in known)


def _from_byte_level(names: list[str]) -> list[bytes]:
    """Undoes GPT-2's map from bytes to characters, for all names at once: one at a time takes much longer."""
    try:
        return [name.encode("latin-1") for name in _GAP.join(names).translate(_BYTE_OF).split(_GAP)]
    except UnicodeEncodeError as error:
        raise TokenizerError(f"the token {error.object!r} is not in GPT-2's byte characters") from error


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and re.fullmatch("<0x[0-9A-F]{2}>", name) is not None


def _byte(name: str) -> bytes:
    return bytes.fromhex(name[3:5])


def _pieces(decoders: list[dict[str, Any]]) -> Callable[[str], str]:
    """Spells with the replacements of SentencePiece's decoders. Strip concerns the beginning of a text only."""
    replaced: list[tuple[str, str]] = []
    for i, step in enumerate(decoders):
        match step:
            case {"type": "Replace", "pattern": {"String": old}, "content": new}:
                replaced.append((old, new))
            case {"type": "Metaspace"}:
                replaced.append((step.get("replacement", "▁"), " "))
            case {"type": "Strip", "content": " ", "stop": 0} if {"type": "Fuse"} in decoders[:i]:
                pass
            case {"type": "ByteFallback" | "Fuse"}:
                pass
            case _:
                raise TokenizerError(f"the tokenizer decodes with {step.get('type')!r}, which is not known here")
    if not replaced:
        raise TokenizerError("the tokenizer does not say how it decodes: tokenizer.json must have a known decoder")
    return lambda name: _replace(name, replaced)


def _wordpiece(step: dict[str, Any]) -> Callable[[str], str]:
    prefix, clean = step.get("prefix", "##"), _CLEAN if step.get("cleanup", True) else ()

    def spell(name: str) -> str:
        return _replace(name[len(prefix) :] if name.startswith(prefix) else f" {name}", clean)

    return spell


def _replace(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        text = text.replace(old, new)
    return text


def names_of(spec: dict[str, Any], literal: Collection[int]) -> list[str]:
    """The names of a tokenizer.json's vocabulary by id, with room for added tokens whose ids are `literal`."""
    vocab = spec["model"]["vocab"]
    if not vocab:
        raise TokenizerError("the tokenizer has no tokens; fetch its file again")
    if isinstance(vocab, list):  # Unigram: [name, score] in the order of the ids
        return [name for name, _ in vocab] + [""] * max(max(literal, default=0) + 1 - len(vocab), 0)
    names = [""] * (1 + max([*vocab.values(), *literal]))
    for name, token in vocab.items():
        names[token] = name
    return names
