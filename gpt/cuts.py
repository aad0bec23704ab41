"""How the tokenizers of each family cut text before they merge, as patterns that tiktoken runs.

Only patterns that are known here go to tiktoken: tests compare its ids with those of the `tokenizers` library for each
of them. Any other runs in that library, whose syntax of patterns is its own. Sources: the tokenizer.json files of the
families; llama.cpp's `llama-vocab.cpp` for the names in `tokenizer.ggml.pre`.
"""

from typing import Any, NamedTuple

__all__ = ["BYTE_LEVEL_CUTS", "Cut", "byte_level", "pattern_of", "steps"]

GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# GPT-2's pattern once every digit has been cut out: a digit ends a run of spaces and never takes one along.
DIGITS = r"'(?:s|t|re|ve|m|ll|d)|\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3, QWEN2 = _GPT4 % "{1,3}", _GPT4 % ""
_CASES = (  # words in camel case are cut where a capital follows a small letter
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTED = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TEKKEN, GPT4O = _CASES % ("", "", ""), _CASES % (_CONTRACTED, _CONTRACTED, "{1,3}")
# The same cuts in other words, as some files have them.
_GPT2_PLAIN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_KNOWN = (GPT2, _GPT2_PLAIN, DIGITS, LLAMA3, QWEN2, TEKKEN, GPT4O)


class Cut(NamedTuple):
    """What a name in `tokenizer.ggml.pre` stands for.

    `whole`: a word that is a token is not merged from its parts. `bos`: plain text begins with bos unless the file
    says otherwise. `nfc`: text is composed first.
    """

    pattern: str
    whole: bool = False
    bos: bool = False
    nfc: bool = False


BYTE_LEVEL_CUTS = {
    "gpt-2": Cut(GPT2),
    **dict.fromkeys(("olmo", "mpt"), Cut(GPT2, nfc=True)),  # GPT-NeoX's vocabulary
    **dict.fromkeys(("smollm", "starcoder", "refact"), Cut(DIGITS)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Cut(LLAMA3, whole=True, bos=True)),
    **dict.fromkeys(("smaug-bpe", "dbrx"), Cut(LLAMA3)),  # SmolLM3, OLMo 2
    "qwen2": Cut(QWEN2, nfc=True),
    "deepseek-r1-qwen": Cut(QWEN2),
    "tekken": Cut(TEKKEN, whole=True, bos=True),
    "gpt-4o": Cut(GPT4O),
}


def steps(spec: dict[str, Any], part: str, inner: str) -> list[dict[str, Any]]:
    """The steps of one part of a tokenizer.json, such as its "pre_tokenizer"; sequences in sequences laid flat."""
    step = spec.get(part) or {}
    if step.get("type") != "Sequence":
        return [step] if step else []
    return [flat for each in step[inner] for flat in steps({part: each}, part, inner)]


def pattern_of(spec: dict[str, Any]) -> str | None:
    """The pre-tokenizer of byte-level BPE as a pattern for tiktoken; None where tiktoken would not do the same."""
    model, normal = spec.get("model") or {}, steps(spec, "normalizer", "normalizers")
    extras = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout")
    plain = model.get("type", "BPE") == "BPE" and not any(model.get(key) for key in extras)
    if not plain or any(step != {"type": "NFC"} for step in normal):
        return None
    match steps(spec, "pre_tokenizer", "pretokenizers"):
        case [*before, {"type": "ByteLevel", "add_prefix_space": False} as last]:
            return _pattern_of_steps(before, last.get("use_regex", True))
    return None


def _pattern_of_steps(before: list[dict[str, Any]], then_gpt2: bool) -> str | None:
    match before, then_gpt2:
        case [], True:
            return GPT2
        case [{"type": "Digits", "individual_digits": True}], True:
            return DIGITS
        case [{"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior} as split], False:
            # Every known pattern covers all text, so that keeping the matches and cutting at them is the same.
            same = behavior == "Isolated" or (behavior == "Removed" and split.get("invert"))
            return regex if same and regex in _KNOWN else None
    return None


def byte_level(vocab: dict[str, int], merges: list, cut: Cut, prefix_space: bool = False) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE that cuts text so, without its added tokens."""
    split = {"type": "Split", "pattern": {"Regex": cut.pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": False, "use_regex": False}
    return {
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": cut.whole},
        "normalizer": {"type": "NFC"} if cut.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": level,
    }
