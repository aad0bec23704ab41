"""What a checkpoint's files say about its tokenizer, as one plain object.

Reads the metadata of a GGUF file, or a folder in Hugging Face layout: tokenizer.json, or tokenizer.model, or vocab.json
with merges.txt. A tokenizer that is not plain byte-level BPE keeps its description for the `tokenizers` library; a kind
that neither can read is refused by name. Sources: GGUF keys `tokenizer.ggml.*` and llama.cpp's defaults for them; the
tokenizer.json of Hugging Face.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from gpt.added import entry
from gpt.cuts import BYTE_LEVEL_CUTS, GPT2, Cut, byte_level, pattern_of, steps
from gpt.sentencepiece import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Pieces, pieces_of_file
from gpt.spelling import TokenizerError, names_of, opens, table_of

__all__ = ["TokenizerError", "Vocabulary", "from_folder", "from_gguf", "read_config", "read_json", "token_name"]

# Ends of a turn or a document whatever eos says: a checkpoint has nothing to say after one of its own.
_END_NAMES = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|user|>")
_END_NAMES += ("<end_of_turn>", "<eos>", "</s>")
_NO_PATTERN = ("gpt2", "gptneox", None)  # architectures of files that are older than tokenizer.ggml.pre


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as data. `pattern` is None when only the `tokenizers` library can run it, from `spec`."""

    table: list[bytes]  # the bytes of each id inside a text; a control token's are its name
    merged: list[int]  # the ids that merges make, in the order of the merges
    entries: list[dict[str, Any]]  # tokens that are matched in text before anything else, as in a tokenizer.json
    pattern: str | None  # how text is cut before merging, as tiktoken writes it
    spec: dict[str, Any]  # the same as the object of a tokenizer.json
    end_tokens: frozenset[int]  # ids that end a reply
    bos: int | None  # the id that goes before plain text, if the checkpoint wants one
    opens: bool  # whether the first token of a text reads differently than inside it

    @property
    def specials(self) -> dict[str, int]:
        """Control tokens by name."""
        return {e["content"]: e["id"] for e in self.entries if e["special"]}


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise TokenizerError(f"the tokenizer's data is incomplete or damaged: {error!r}") from error


# ---- GGUF files --------------------------------------------------------------------------------------------------


@_refusing_damage()
def from_gguf(fields: dict[str, Any]) -> Vocabulary:
    """The tokenizer in a GGUF file's metadata. Raises TokenizerError for a kind that cannot be read."""
    get = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}.get
    kind, tokens = get("model"), get("tokens")
    if kind not in ("gpt2", "llama") or not tokens:
        found = f"tokenizer.ggml.model {kind!r} and {len(tokens or [])} tokens"
        raise TokenizerError(f"expected a GGUF file with a gpt2 or llama tokenizer, got {found}")
    kinds = get("token_type") or [NORMAL] * len(tokens)
    if kind == "gpt2":
        cut = _cut(get("pre"), get("general.architecture"))
        spec = byte_level({name: i for i, name in enumerate(tokens)}, get("merges") or [], cut)
        wants_bos, bos, eos = cut.bos, None, None
    else:
        spec = Pieces(tokens, get("scores") or [], kinds, get("add_space_prefix", True), _spaced(tokens, kinds)).spec()
        wants_bos, bos, eos = True, 1, 2
    spec["added_tokens"] = _gguf_entries(tokens, kinds, get("general.architecture") == "phi3" and kind == "llama")
    bos = get("bos_token_id", bos) if get("add_bos_token", wants_bos) else None
    return _vocabulary(spec, (get("eos_token_id", eos), get("eot_token_id"), get("eom_token_id")), bos)


def _cut(name: str | None, architecture: str | None) -> Cut:
    """How a byte-level tokenizer cuts text. Files that do not say are GPT-2's if they are that old."""
    if name in (None, "default") and architecture in _NO_PATTERN:
        return Cut(GPT2)
    if name not in BYTE_LEVEL_CUTS:
        known = ", ".join(BYTE_LEVEL_CUTS)
        raise TokenizerError(f"tokenizer.ggml.pre must be one of {known}, got {name!r}; use a newer or another file")
    return BYTE_LEVEL_CUTS[name]


def _spaced(tokens: list[str], kinds: list[int]) -> bool:
    """Whether a space goes before text after control tokens as well.

    The file does not say so. Of the families, only Mistral's tokenizers of version 3, in which [INST] is a control
    token, were trained without.
    """
    return ("[INST]", CONTROL) not in zip(tokens, kinds, strict=False)


def _gguf_entries(tokens: list[str], kinds: list[int], phi3: bool) -> list[dict[str, Any]]:
    """Tokens that are matched by name. The file has no place for what Phi-3's do: they take white space along."""
    special = {UNKNOWN: True, CONTROL: True, USER_DEFINED: False}
    alone = ("<unk>", "<s>", "<|endoftext|>")
    return [
        entry(tokens[i], i, special[kind], rstrip=phi3 and tokens[i] not in alone)
        for i, kind in enumerate(kinds)
        if kind in special
    ]


# ---- folders -----------------------------------------------------------------------------------------------------


@_refusing_damage()
def from_folder(path: Path) -> Vocabulary:
    """The tokenizer of a folder in Hugging Face layout. Raises TokenizerError when there is none to read."""
    config = read_config(path)
    spec = read_json(path / "tokenizer.json") or _spec_of_files(path, config)
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {}
    ids |= {e["content"]: e["id"] for e in spec.get("added_tokens") or []}
    eos, bos = (ids.get(token_name(config.get(key))) for key in ("eos_token", "bos_token"))
    files = ("config.json", "generation_config.json")
    values = (read_json(path / name).get("eos_token_id") for name in files)
    ends = chain([eos], *(value if isinstance(value, list) else [value] for value in values))
    wanted = {True: bos, False: None}.get(config.get("add_bos_token"), _prefix(spec))
    return _vocabulary(spec, ends, wanted)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file. Raises TokenizerError when it is damaged."""
    try:
        value = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise TokenizerError(f"{path} is not valid JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object, not a {type(value).__name__}; fetch it again")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """A folder's tokenizer_config.json, with the names of control tokens that only special_tokens_map.json gives."""
    config = read_json(path / "tokenizer_config.json")
    return read_json(path / "special_tokens_map.json") | {k: v for k, v in config.items() if v is not None}


def token_name(value: Any) -> str | None:
    """The name in a `bos_token` or `eos_token` entry, which is text or an object with its text."""
    return value.get("content") if isinstance(value, dict) else value


def _prefix(spec: dict) -> int | None:
    """The id that the post-processor puts before a text, if it does."""
    for step in steps(spec, "post_processor", "processors"):
        match step:
            case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": name}}, *_]}:
                return step["special_tokens"][name]["ids"][0]
    return None


def _spec_of_files(path: Path, config: dict) -> dict[str, Any]:
    """A tokenizer.json made of the older files of a folder."""
    if (path / "tokenizer.model").exists():
        return _spec_of_sentencepiece(path, config)
    vocab, merges = path / "vocab.json", path / "merges.txt"
    if not (vocab.exists() and merges.exists()):
        wanted = "tokenizer.json, tokenizer.model, or vocab.json with merges.txt"
        raise TokenizerError(f"{path} must hold {wanted}; transformers' save_pretrained writes the first")
    kind = config.get("tokenizer_class") or "GPT2Tokenizer"
    if not kind.startswith(("GPT2", "Qwen2")):
        raise TokenizerError(f"{path} must hold tokenizer.json: vocab.json does not say how {kind} cuts text")
    lines, ids = merges.read_text("utf-8").split("\n"), read_json(vocab)
    pairs = [line.strip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    cut = BYTE_LEVEL_CUTS["qwen2" if kind.startswith("Qwen2") else "gpt-2"]
    spec = byte_level(ids, pairs, cut, bool(config.get("add_prefix_space")))
    return spec | {"added_tokens": _added(path, config, ids)}


def _spec_of_sentencepiece(path: Path, config: dict) -> dict[str, Any]:
    """As transformers reads tokenizer.model for the Llama and Gemma families: what their files leave out is usual."""
    gemma = (config.get("tokenizer_class") or "").startswith("Gemma")
    pieces = pieces_of_file(path / "tokenizer.model", every=config.get("legacy") is not False)
    spec = replace(pieces, prefix=pieces.prefix and not gemma and config.get("add_prefix_space") is not False).spec()
    ids = {name: i for i, name in enumerate(pieces.names)}
    told = {e["content"]: e for e in _added(path, config, ids)}
    spec["added_tokens"] = list(({e["content"]: e for e in spec["added_tokens"]} | told).values())
    first = ids.get(token_name(config.get("bos_token")) or ("<bos>" if gemma else "<s>"))
    if first is not None:
        single = [{"SpecialToken": {"id": "bos", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        tokens = {"bos": {"id": "bos", "ids": [first], "tokens": [pieces.names[first]]}}
        spec["post_processor"] = {"type": "TemplateProcessing", "single": single, "special_tokens": tokens}
    return spec


def _added(path: Path, config: dict, vocab: dict[str, int]) -> list[dict]:
    """The added tokens of a folder without tokenizer.json, from the files that may name them."""
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    entries = {
        e["content"]: entry(e["content"], int(token), bool(e.get("special")), **{f: bool(e.get(f)) for f in flags})
        for token, e in config.get("added_tokens_decoder", {}).items()
    }
    more = read_json(path / "added_tokens.json")
    ids, named = vocab | more, read_json(path / "special_tokens_map.json").values()
    for name in [*(token_name(value) for value in named if not isinstance(value, list)), "<|endoftext|>"]:
        if name in ids:
            entries.setdefault(name, entry(name, ids[name], True))
    for name, token in more.items():
        entries.setdefault(name, entry(name, token, False))
    return list(entries.values())


# ---- what both say -----------------------------------------------------------------------------------------------


def _vocabulary(spec: dict, ends: Iterable[int | None], bos: int | None) -> Vocabulary:
    entries, pattern = spec.get("added_tokens") or [], pattern_of(spec)
    literal = {e["content"]: e["id"] for e in entries}
    specials = {e["content"]: e["id"] for e in entries if e["special"]}
    table = table_of(spec, names_of(spec, literal.values()), literal)
    merged = _ranked(spec["model"], table, literal) if pattern else None
    named = [specials.get(name) for name in _END_NAMES]
    end_tokens = frozenset(token for token in [*ends, *named] if token is not None)
    pattern = None if merged is None else pattern
    return Vocabulary(table, merged or [], entries, pattern, spec, end_tokens, bos, opens(spec))


def _merged(model: dict) -> list[int]:
    """The ids that merges make; a merge is written "left right" or [left, right]."""
    merges, vocab = model["merges"], model["vocab"]
    if merges and isinstance(merges[0], str):
        return [vocab[name] for name in "\n".join(merges).replace(" ", "").split("\n")]
    return [vocab["".join(pair)] for pair in merges]


def _ranked(model: dict, table: list[bytes], literal: dict[str, int]) -> list[int] | None:
    """The ids of tokens of several bytes, in the order in which tiktoken merges; None if it would not merge alike.

    tiktoken knows no pairs but only what they make, and never merges a word that is a token. That comes to the same for
    the merges of a training: each makes the next id. A file with `ignore_merges` may name all pairs that make a token,
    and has tokens that nothing makes: they are words.
    """
    merged, whole = _merged(model), bool(model.get("ignore_merges"))
    if not all(a < b or (whole and a == b) for a, b in pairwise(merged)):
        return None
    if not whole:
        return merged
    merged = list(dict.fromkeys(merged))
    words = [i for i in set(model["vocab"].values()).difference(merged, literal.values()) if len(table[i]) > 1]
    known = set(table) if words else set()
    made = any(table[i][:cut] in known and table[i][cut:] in known for i in words for cut in range(1, len(table[i])))
    return None if made else merged + sorted(words)
