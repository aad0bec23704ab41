"""What a checkpoint's files say about its tokenizer, as one plain object.

Reads the metadata of a GGUF file, or a folder in Hugging Face layout (tokenizer.json, or vocab.json with
merges.txt), and says how text is cut before merging. A tokenizer that is not plain byte-level BPE keeps its
description for the `tokenizers` library; a kind that neither can read is refused by name.
Sources: GGUF keys `tokenizer.ggml.*`; the tokenizer.json of Hugging Face; GPT-2's byte-to-character map.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

_GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# GPT-2's pattern once every digit has been cut out: a digit ends a run of spaces and never takes one along.
_DIGITS = r"'(?:s|t|re|ve|m|ll|d)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3, _QWEN2 = _GPT4 % "{1,3}", _GPT4 % ""
# tokenizer.ggml.pre -> pattern. Files older than that key are GPT-2's.
_PATTERNS = {
    **dict.fromkeys(("default", "gpt-2"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), _LLAMA3),
    "qwen2": _QWEN2,
}

# Ends of a turn or a document whatever eos says: a checkpoint has nothing to say after one of its own.
_END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # values of tokenizer.ggml.token_type

# GPT-2 writes the 68 bytes that do not print as the characters from U+0100 on, in order.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_HIDDEN = [b for b in range(256) if b not in _PRINTABLE]
_BYTE_OF = {b: b for b in _PRINTABLE} | {256 + i: b for i, b in enumerate(_HIDDEN)}
_GAP = "\ue000"  # between names while they are mapped together: no byte, and not in the map


class TokenizerError(ValueError):
    """A tokenizer that is missing, damaged or of a kind that cannot be read here."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as data. `pattern` is None when only the `tokenizers` library can run it, from `spec`."""

    table: list[bytes]  # the bytes of each id; a control token's are its name
    merged: list[int]  # the ids that merges make, in the order of the merges
    specials: dict[str, int]  # control tokens by name
    added: dict[str, int]  # other tokens that are matched in text before anything else
    pattern: str | None  # how text is cut before merging, as tiktoken writes it
    spec: dict[str, Any]  # the same as the object of a tokenizer.json
    end_tokens: frozenset[int]  # ids that end a reply
    bos: int | None  # the id that goes before plain text, if the checkpoint wants one


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise TokenizerError(f"the tokenizer's data is incomplete or damaged: {error!r}") from error


@_refusing_damage()
def from_gguf(fields: dict[str, Any]) -> Vocabulary:
    """The tokenizer in a GGUF file's metadata. Raises TokenizerError for a kind that cannot be read."""
    get = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}.get
    kind, tokens, cut = get("model"), get("tokens"), get("pre", "default")
    if kind not in ("gpt2", "llama") or not tokens:
        found = f"tokenizer.ggml.model {kind!r} and {len(tokens or [])} tokens"
        raise TokenizerError(f"expected a GGUF file with a gpt2 or llama tokenizer, got {found}")
    if kind == "gpt2" and cut not in _PATTERNS:
        raise TokenizerError(f"tokenizer.ggml.pre must be one of {', '.join(_PATTERNS)}, got {cut!r}")
    kinds = get("token_type") or [_NORMAL] * len(tokens)
    special = {_UNKNOWN: True, _CONTROL: True, _USER_DEFINED: False}
    spec = {"added_tokens": [_entry(tokens[i], i, special[k]) for i, k in enumerate(kinds) if k in special]}
    vocab = {name: i for i, name in enumerate(tokens)}
    if kind == "gpt2":
        spec |= _byte_level(vocab, get("merges") or [], _PATTERNS[cut])
    else:
        spec |= _sentencepiece(vocab, kinds, get("scores") or [], get("add_space_prefix", True))
    wants_bos = get("add_bos_token", kind == "llama" or _PATTERNS[cut] == _LLAMA3)  # llama.cpp's defaults
    bos = get("bos_token_id") if wants_bos else None
    return _vocabulary(spec, (get("eos_token_id"), get("eot_token_id")), bos)


@_refusing_damage()
def from_folder(path: Path) -> Vocabulary:
    """The tokenizer of a folder in Hugging Face layout. Raises TokenizerError when there is none to read."""
    config = read_json(path / "tokenizer_config.json")
    spec = read_json(path / "tokenizer.json") or _spec_of_files(path, config)
    ids = {entry["content"]: entry["id"] for entry in spec.get("added_tokens") or []}
    eos, bos = (ids.get(token_name(config.get(key))) for key in ("eos_token", "bos_token"))
    files = ("config.json", "generation_config.json")
    values = (read_json(path / name).get("eos_token_id") for name in files)
    ends = chain([eos], *(value if isinstance(value, list) else [value] for value in values))
    return _vocabulary(spec, ends, bos if config.get("add_bos_token") else _prefix(spec))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file. Raises TokenizerError when it is damaged."""
    try:
        value = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object, not a {type(value).__name__}; fetch it again")
    return value


def token_name(value: Any) -> str | None:
    """The name in a `bos_token` or `eos_token` entry, which is text or an object with its text."""
    return value.get("content") if isinstance(value, dict) else value


def _vocabulary(spec: dict, ends: Iterable[int | None], bos: int | None) -> Vocabulary:
    pattern, entries = _pattern(spec), spec.get("added_tokens") or []
    specials = {entry["content"]: entry["id"] for entry in entries if entry["special"]}
    added = {entry["content"]: entry["id"] for entry in entries if not entry["special"]}
    table = _table(spec, specials | added)
    merged = _merged(spec["model"]) if pattern else []
    named = [specials.get(name) for name in _END_NAMES]
    end_tokens = frozenset(token for token in [*ends, *named] if token is not None)
    return Vocabulary(table, merged, specials, added, pattern, spec, end_tokens, bos)


def _table(spec: dict, literal: dict[str, int]) -> list[bytes]:
    """The bytes of every id. Names in `literal` are plain text; others are written as the kind does it."""
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, list):  # Unigram: [name, score] in the order of the ids
        vocab = {name: i for i, (name, _) in enumerate(vocab)}
    if not vocab:
        raise TokenizerError("the tokenizer has no tokens; fetch its file again")
    names = [""] * (1 + max(chain(vocab.values(), literal.values())))
    for name, token in vocab.items():
        names[token] = "" if name in literal else name
    byte_level = any(step.get("type") == "ByteLevel" for step in _cuts(spec))
    table = _from_byte_level(names) if byte_level else [_from_sentencepiece(name) for name in names]
    for name, token in literal.items():
        table[token] = name.encode("utf-8")
    return table


def _from_byte_level(names: list[str]) -> list[bytes]:
    """Undoes GPT-2's map from bytes to characters, for all names at once: one at a time takes much longer."""
    try:
        return [name.encode("latin-1") for name in _GAP.join(names).translate(_BYTE_OF).split(_GAP)]
    except UnicodeEncodeError as error:
        raise TokenizerError(f"the token {error.object!r} is not in GPT-2's byte characters") from error


def _from_sentencepiece(name: str) -> bytes:
    if re.fullmatch("<0x[0-9A-F]{2}>", name):
        return bytes.fromhex(name[3:5])
    return name.replace("▁", " ").encode("utf-8")


def _merged(model: dict) -> list[int]:
    """The ids that merges make; a merge is written "left right" or [left, right]."""
    merges, vocab = model["merges"], model["vocab"]
    if merges and isinstance(merges[0], str):
        return [vocab[name] for name in "\n".join(merges).replace(" ", "").split("\n")]
    return [vocab["".join(pair)] for pair in merges]


def _cuts(spec: dict) -> list[dict]:
    """The steps of the pre-tokenizer."""
    step = spec.get("pre_tokenizer") or {}
    return step["pretokenizers"] if step.get("type") == "Sequence" else [step]


def _pattern(spec: dict) -> str | None:
    """The pre-tokenizer as a pattern for tiktoken, or None when the tokenizer is more than that."""
    model, entries = spec.get("model") or {}, spec.get("added_tokens") or []
    extras = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix")
    flags = ("lstrip", "rstrip", "single_word")
    plain_tokens = not any(entry.get(flag) for entry in entries for flag in flags)
    plain_model = model.get("type", "BPE") == "BPE" and not any(model.get(key) for key in extras)
    if not (plain_tokens and plain_model) or spec.get("normalizer"):
        return None
    match _cuts(spec):
        case [*before, {"type": "ByteLevel", "add_prefix_space": False} as last]:
            return _pattern_of_steps(before, last.get("use_regex", True))
    return None


def _pattern_of_steps(before: list[dict], then_gpt2: bool) -> str | None:
    match before, then_gpt2:
        case [], True:
            return _GPT2
        case [{"type": "Digits", "individual_digits": True}], True:
            return _DIGITS
        case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}], False:
            known = regex in _PATTERNS.values()
            return regex if known else rf"{regex}|(?:(?!{regex})[\s\S])+"  # what it leaves out is a piece too
    return None


def _prefix(spec: dict) -> int | None:
    """The id that the post-processor puts before a text, if it does."""
    processor = spec.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        match step:
            case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": name}}, *_]}:
                return step["special_tokens"][name]["ids"][0]
    return None


def _entry(name: str, token: int, special: bool) -> dict[str, Any]:
    """One of a tokenizer.json's added tokens."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": name, "special": special, **flags}


def _byte_level(vocab: dict[str, int], merges: list, pattern: str, prefix_space: bool = False) -> dict:
    """A tokenizer.json of byte-level BPE that cuts text by `pattern`, without its added tokens."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": False, "use_regex": False}
    cut = {"type": "Sequence", "pretokenizers": [split, level]}
    return {"model": {"type": "BPE", "vocab": vocab, "merges": merges}, "pre_tokenizer": cut}


def _sentencepiece(vocab: dict[str, int], kinds: list[int], scores: list[float], prefix: bool) -> dict:
    """A tokenizer.json that merges as SentencePiece does: what makes the best-scored token goes first."""
    normal = {name for name, token in vocab.items() if kinds[token] == _NORMAL}
    merges = [
        [name[:i], name[i:]]
        for name in sorted(normal, key=lambda name: -scores[vocab[name]])
        for i in range(1, len(name))
        if name[:i] in normal and name[i:] in normal
    ]
    steps = [{"type": "Prepend", "prepend": "▁"}] * prefix
    steps += [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    unknown = next((name for name, token in vocab.items() if kinds[token] == _UNKNOWN), None)
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": unknown}
    model |= {"fuse_unk": True, "byte_fallback": True}
    return {"model": model, "normalizer": {"type": "Sequence", "normalizers": steps}}


def _spec_of_files(path: Path, config: dict) -> dict[str, Any]:
    """vocab.json and merges.txt as a tokenizer.json, for GPT-2: these files do not say how text is cut."""
    vocab, merges = path / "vocab.json", path / "merges.txt"
    if not (vocab.exists() and merges.exists()):
        wanted = "tokenizer.json, or vocab.json with merges.txt"
        raise TokenizerError(f"{path} must hold {wanted}; transformers' save_pretrained writes the first")
    kind = config.get("tokenizer_class") or "GPT2Tokenizer"
    if not kind.startswith("GPT2"):
        raise TokenizerError(f"{path} must hold tokenizer.json: vocab.json does not say how {kind} cuts text")
    lines, ids = merges.read_text("utf-8").split("\n"), read_json(vocab)
    pairs = [line.strip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    spec = _byte_level(ids, pairs, _GPT2, bool(config.get("add_prefix_space")))
    return spec | {"added_tokens": _added(path, config, ids)}


def _added(path: Path, config: dict, vocab: dict[str, int]) -> list[dict]:
    """The added tokens of a folder without tokenizer.json, from the files that may name them."""
    entries = {
        entry["content"]: _entry(entry["content"], int(token), bool(entry.get("special")))
        for token, entry in config.get("added_tokens_decoder", {}).items()
    }
    ids = vocab | read_json(path / "added_tokens.json")
    named = read_json(path / "special_tokens_map.json").values()
    for name in [*(token_name(value) for value in named if not isinstance(value, list)), "<|endoftext|>"]:
        if name in ids:
            entries.setdefault(name, _entry(name, ids[name], True))
    return list(entries.values())
