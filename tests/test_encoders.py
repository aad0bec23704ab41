"""Every kind of tokenizer that the supported families bring: ids, places and text are the `tokenizers` library's."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Reference

from gpt import cuts
from gpt.encoders import _ByteBPE, _Library
from gpt.tokenizer import Tokenizer
from tests.test_tokenizer import EMOJI, varied_strings

CORPUS = [Path(__file__).with_name(f"test_{name}.py").read_text("utf-8") for name in ("encoders", "tokenizer")]
CORPUS = [text.replace("<", "(") for text in CORPUS]  # no name of a control token is learned as a word
CORPUS += [
    "the cat sat on the mat, and the Dog's HouseKeeper'S 2026 你好世界 naïve café ไทย हिन्दी مرحبا 한국어 \n\n\n    x"
] * 20
WORDS = [
    "", " ", "I'LL we've THEY'RE don'T it's 'S", "x = {'a': [1, 22, 333, 4444]}\n\tif x:\n\t\treturn  x\r\n\r\n",
    "cafe\u0301 e\u0301\u0323 \u1100\u1161\u11a8 \u212b a\u030a\u0301 \u0958 ﬁ Å",
    "\u0301 x\u0344 \u1112\u1161 \ud558", "１２３ ⅷ ½ ٣٤ ३४",
    "  lead", "trail  ", "a  b   c    d", "\n\n\n\nx\n\n", "▁▁ ▁x", "<0x41> <unk>",
    "camelCaseWords HTTPServer ÉCOLE école",
    "a\u200db 👩\u200d👩\u200d👧 👍🏽", "สวัสดีครับ नमस्ते السلام عليكم", "\x00\x01\x1f\x7f\x85\u2028",
    "<s> <tool></s>x</s>", "zqxj zqxjs",
    "a" * 3000, " " * 3000, "\n" * 500, "=" * 777, "-_" * 300, "你" * 700, "1" * 1000, "ab" * 999,
]  # fmt: skip
TEXTS = [*WORDS, *EMOJI, *varied_strings(250, seed=7)]
SPECIALS = ["<unk>", "<s>", "</s>"]
LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
Maker = Callable[[], Reference]


def byte_bpe(pre: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Reference:
    made = Reference(models.BPE())
    made.pre_tokenizer, made.decoder = pre, decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIALS, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), LEVEL])


def neox() -> Reference:
    made = byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    made.add_tokens([AddedToken(" " * n, normalized=True) for n in range(12, 1, -1)])
    return made


def qwen() -> Reference:
    made = byte_bpe(split(cuts.QWEN2), normalizers.NFC())
    made.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("\ud558", normalized=True)])
    return made


def all_pairs() -> Reference:
    """As the converters write what was tiktoken's: every pair that makes a token, and words that nothing makes."""
    spec = json.loads(byte_bpe(split(cuts.LLAMA3)).to_str())
    vocab, model = spec["model"]["vocab"], spec["model"]
    made = {"".join(pair) for pair in model["merges"]}
    names = [name for name, _ in sorted(vocab.items(), key=lambda item: item[1]) if name in made]
    pairs = [[[n[:i], n[i:]] for i in range(1, len(n)) if n[:i] in vocab and n[i:] in vocab] for n in names]
    assert max(map(len, pairs)) > 1
    model["merges"] = [pair for group in pairs for pair in group]
    model["ignore_merges"], vocab["zqxj"] = True, len(vocab)
    return Reference.from_str(json.dumps(spec))


def deepseek() -> Reference:
    parts = [pre_tokenizers.Split(Regex(p), "isolated") for p in (r"\p{N}{1,3}", r"[一-龥]+", r"\s?\p{L}+|\s+$")]
    return byte_bpe(pre_tokenizers.Sequence([*parts, LEVEL]))


def pieces(first: bool = True, every: bool = True) -> Reference:
    """As Llama's: spaces are "▁", one goes before the text; what has no token is spelled in bytes."""
    made = Reference(models.BPE())
    prepend = [normalizers.Prepend("▁")] if first else []
    made.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for the training alone
    names = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=names, limit_alphabet=120, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    spec = json.loads(made.to_str())
    spec["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    spec["added_tokens"] = spec["added_tokens"][:3]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if first else []
    spell = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    spec["pre_tokenizer"], spec["decoder"] = None, {"type": "Sequence", "decoders": [*spell, *strip]}
    if not every:
        spec["normalizer"] = None
        spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return Reference.from_str(json.dumps(spec))


def gemma() -> Reference:
    made = pieces(first=False)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    return made


def phi() -> Reference:
    made = pieces()
    made.add_special_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<|end|>", rstrip=True, lstrip=True)])
    made.add_special_tokens([AddedToken("word", single_word=True)])
    return made


def unigram() -> Reference:
    made = Reference(models.Unigram())
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def wordpiece() -> Reference:
    made = Reference(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=SPECIALS, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


THROUGH_TIKTOKEN: dict[str, Maker] = {
    "gpt-2": lambda: byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt-neox": neox,
    "smollm": lambda: byte_bpe(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level_with_regex()])
    ),
    "llama-3": all_pairs,
    "olmo-2": lambda: byte_bpe(split(cuts.LLAMA3, "removed", invert=True)),
    "qwen": qwen,
    "tekken": lambda: byte_bpe(split(cuts.TEKKEN)),
    "gpt-4o": lambda: byte_bpe(split(cuts.GPT4O)),
}
THROUGH_THE_LIBRARY: dict[str, Maker] = {
    "several splits": deepseek,
    "a pattern with gaps": lambda: byte_bpe(split(r"\p{L}+|\d")),
    "a pattern in another syntax": lambda: byte_bpe(split(r"(?<a>\p{L})\g<a>*|\d")),
    "only what matches is left out": lambda: byte_bpe(split(cuts.QWEN2, "removed")),
    "grouped digits": lambda: byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(), byte_level_with_regex()])),
    "prefix space": lambda: byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "lower case": lambda: byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Lowercase()),
    "llama": pieces,
    "mistral": lambda: pieces(every=False),
    "gemma": gemma,
    "phi-3": phi,
    "unigram": unigram,
    "wordpiece": wordpiece,
}
KINDS = THROUGH_TIKTOKEN | THROUGH_THE_LIBRARY


def byte_level_with_regex() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def both(kind, tmp_path_factory) -> tuple[Reference, Tokenizer]:
    """The library's tokenizer, to which control strings are text, and ours of the same file."""
    made, folder = KINDS[kind](), tmp_path_factory.mktemp("kind")
    made.save(str(folder / "tokenizer.json"))
    made.encode_special_tokens = True
    if kind != "phi-3":  # offsets without what the post-processor makes of them
        made.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return made, Tokenizer.from_folder(folder)


def well_formed(ids: list[int], ours: Tokenizer) -> bool:
    """Whether every run of single bytes is UTF-8: the library spoils good characters beside a bad byte."""
    return "\ufffd" not in b"".join(map(ours.token_bytes, ids)).decode("utf-8", "replace")


def test_ids_and_places_are_those_of_the_library(both):
    made, ours = both
    for text in TEXTS:
        theirs = made.encode(text, add_special_tokens=False)
        ids, starts = ours.locate(text)
        assert ids == ours.encode(text) == theirs.ids, repr(text)
        assert starts == [start for start, _ in theirs.offsets], repr(text)


def test_families_with_byte_level_merges_run_through_tiktoken_and_others_do_not(both, kind):
    assert type(both[1]._encoder) is (_ByteBPE if kind in THROUGH_TIKTOKEN else _Library)


def test_decoding_gives_the_text_of_the_library(both, kind):
    made, ours = both
    rng = random.Random(0)
    drawn = [[rng.randrange(ours.n_vocab) for _ in range(rng.randrange(1, 9))] for _ in range(1500)]
    written = [ours.encode(text) for text in TEXTS]
    checked = 0
    for ids in [ids for ids in written + drawn if well_formed(ids, ours)]:
        checked += 1
        assert ours.decode(ids) == made.decode(ids, skip_special_tokens=False), ids
        assert ours.decode(ids, specials=False) == made.decode(ids, skip_special_tokens=True), ids
    assert checked > 400


def test_a_stream_gives_what_decoding_gives_at_once(both):
    _, ours = both
    rng = random.Random(1)
    drawn = [[rng.randrange(ours.n_vocab) for _ in range(rng.randrange(12))] for _ in range(300)]
    for ids in drawn + [ours.encode(text) for text in TEXTS]:
        for opening in (True, False):
            decoder = ours.decoder(opening=opening)
            shown = "".join(map(decoder.push, ids)) + decoder.flush()
            assert shown == ours.decode(ids, opening=opening)


def test_control_strings_become_tokens_only_when_asked_for(both):
    made, ours = both
    texts = ["<s>", "a</s>b", "</s> x", "<s><s> hello  </s>\n\nworld", "<tool></s>", "ok<unk>", "\n</s>\n"]
    texts += ["<|user|>\n hi <|end|>\n<|user|>x", "a word, words, word", "<|end|> <|end|>"]
    for text in texts:
        assert ours.encode(text) == made.encode(text, add_special_tokens=False).ids
        made.encode_special_tokens = False
        assert ours.encode(text, specials=True) == made.encode(text, add_special_tokens=False).ids, text
        made.encode_special_tokens = True


def test_text_after_a_control_token_is_encoded_as_the_library_does_there(both):
    made, ours = both
    made.encode_special_tokens, first = False, made.token_to_id("<s>")
    texts = [text for text in TEXTS if text and not any(name in text for name in (*SPECIALS, "<|", "word"))]
    for text in texts[:100]:
        assert [first, *ours.locate(text, "control")[0]] == made.encode("<s>" + text, add_special_tokens=False).ids, (
            text
        )
    made.encode_special_tokens = True


def test_text_after_text_gets_no_space_of_its_own(both, kind):
    _, ours = both
    if kind not in ("unigram", "wordpiece", "lower case", "only what matches is left out"):  # these change the text
        for text in ("house", " house", "你好", "\n"):
            assert ours.decode(ours.locate(text, "text")[0], opening=False) == text
