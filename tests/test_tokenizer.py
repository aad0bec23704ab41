"""Tokenizers: the reference's ids, no panic on any text, whole characters only, every kind of checkpoint."""

import json
import random
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers, processors, trainers

from gpt.tokenizer import Tokenizer
from gpt.vocabulary import TokenizerError

SPACES = [" ", "  ", " " * 5, " " * 70, "\n", "\n\n", "\r\n", "\t", "\t\t\t", "\v", "\f", "\x1c", "\x85"]
SPACES += ["\u00a0", "\u3000", "\u2028", "\u200b", "\u1680"]
ENGLISH = ["Hello", "world", "don't", "we'll", "I'VE", "'s", "naïve", "e\u0301", "A", "ſ", "_x_", "...", "?!"]
CHINESE = ["你好", "世界", "今天天气很好", "，", "。", "《", "ありがとう", "한국어", "привет", "مرحبا", "हिन्दी", "ไทย"]
EMOJI = ["😀", "👨\u200d👩\u200d👧\u200d👦", "🏳\ufe0f\u200d🌈", "👍🏽", "🇨🇳", "❤\ufe0f"]
CODE = ["def f(x):", "    return x", "{}", "[]", "!=", "->", "//", "/*", "<html>", "#!/bin", "\\n", "$x", "`"]
NUMBERS = ["0", "42", "3.14", "1,000", "1e-5", "2026-11-22", "١٢٣", "Ⅷ", "½", "²"]
CONTROL = [chr(c) for c in (*range(32), 127, 128, 0xAD, 0xFEFF, 0xFFFD, 0xE000, 0xF0000, 0x50000, 0x90000)]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "_end|>"]
KINDS = [SPACES, ENGLISH, CHINESE, EMOJI, CODE, NUMBERS, CONTROL, SPECIAL]


def varied_strings(n: int, seed: int = 0) -> list[str]:
    """Strings of words of all kinds, and strings of random characters."""
    rng = random.Random(seed)
    words = [[rng.choice(rng.choice(KINDS)) for _ in range(rng.randrange(1, 25))] for _ in range(n * 3 // 4)]
    blocks = ((0x20, 0x7F), (0, 0x800), (0x800, 0xD800), (0xE000, 0x110000))
    noise = [[chr(rng.randrange(*rng.choice(blocks))) for _ in range(rng.randrange(40))] for _ in range(n // 4)]
    return ["".join(parts) for parts in words + noise]


@pytest.fixture(scope="module")
def reference(fields: dict) -> Reference:
    return reference_of(fields)


def reference_of(fields: dict) -> Reference:
    """The default checkpoint's tokenizer in the `tokenizers` library, from the same vocabulary and merges."""
    vocab = {name: i for i, name in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    made = Reference(models.BPE(vocab=vocab, merges=merges))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    return made


# The default checkpoint


def test_ids_equal_the_reference_on_two_thousand_varied_strings(smollm, reference):
    for text in varied_strings(2000):
        assert smollm.encode(text) == reference.encode(text).ids, repr(text)


def test_every_token_of_the_vocabulary_encodes_as_in_the_reference(smollm, reference):
    for token in range(0, smollm.n_vocab, 3):
        text = smollm.token_bytes(token).decode("utf-8", "replace")
        assert smollm.encode(text) == reference.encode(text).ids, repr(text)


def test_text_that_must_be_cut_into_blocks_encodes_as_in_the_reference(smollm, reference):
    rng = random.Random(1)
    kinds = [ENGLISH, NUMBERS, CODE, [" ", "\n"], [" the", " of"]]
    text = "".join(rng.choice(rng.choice(kinds)) for _ in range(100_000))
    assert len(text) > 200_000
    assert smollm.encode(text) == reference.encode(text).ids


def test_text_comes_back_when_every_byte_has_a_token(smollm):
    missing = [c for c in CONTROL if not smollm.encode(c)]
    assert [ord(c) for c in missing if ord(c) < 128] == [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D]
    kept = [text for text in varied_strings(1000, seed=1) if max(text, default="") < "\U00040000"]
    for text in kept:
        clean = text.translate(dict.fromkeys(map(ord, missing)))
        assert smollm.decode(smollm.encode(clean)) == clean


def test_no_string_of_bytes_makes_it_panic(smollm):
    rng = random.Random(2)
    for n in range(500):
        data = rng.randbytes(n % 50)
        readings = (("latin-1", "strict"), ("utf-8", "surrogateescape"), ("utf-16", "replace"))
        for text in (data.decode(*reading) for reading in readings):
            assert all(0 <= token < smollm.n_vocab for token in smollm.encode(text))
    for byte in range(256):
        smollm.encode(chr(byte)), smollm.encode(f" {chr(byte)}"), smollm.encode(chr(byte) * 3)


def test_lone_surrogates_are_read_as_replacement_characters(smollm):
    assert smollm.encode("a\ud83d b\udc00") == smollm.encode("a\ufffd b\ufffd")


@pytest.mark.parametrize("unit", ["a", "你", " ", "\n", "\t", "\0", "=", "1", "\u0301", "a ", "'s"], ids=ascii)
def test_a_long_run_encodes_in_less_than_two_seconds(smollm, unit):
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    tokens = smollm.encode(text)
    assert time.process_time() - start < 2
    assert smollm.decode(tokens) == text


@pytest.mark.parametrize("text", [" " * 1_000_000, "\x04" * 300_000, " " * 300_000 + "\x13"], ids=len)
def test_a_million_spaces_and_bytes_without_tokens_do_not_panic(smollm, text):
    assert smollm.decode(smollm.encode(text)) == text.strip("\x04\x13")


def test_building_the_default_tokenizer_takes_less_than_400_milliseconds(fields):
    def seconds() -> float:
        start = time.process_time()
        Tokenizer.from_gguf(fields)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.4


def test_control_strings_are_text_unless_asked_for(smollm):
    text = "a<|im_end|>b"
    assert smollm.encode(text, specials=True) == [*smollm.encode("a"), 2, *smollm.encode("b")]
    typed = smollm.encode(text)
    assert not any(map(smollm.is_special, typed))
    assert smollm.decode(typed) == text
    assert smollm.split(text) == ["a", 2, "b"]
    assert smollm.split("") == []


def test_decode_leaves_control_tokens_out_on_request(smollm):
    assert smollm.decode([1, *smollm.encode("hi"), 2]) == "<|im_start|>hi<|im_end|>"
    assert smollm.decode([1, *smollm.encode("hi"), 2], specials=False) == "hi"


def test_locate_gives_the_character_in_which_each_token_begins(smollm):
    text = "Hello 🧿 world 42"
    ids, starts = smollm.locate(text)
    assert smollm.pieces(ids) == ["Hello", " ", "", "🧿", " world", " ", "4", "2"]
    assert starts == [0, 5, 6, 6, 7, 13, 14, 15]


def test_end_tokens_are_the_end_of_a_turn_and_of_a_document(smollm):
    assert smollm.end_tokens == {smollm.specials["<|im_end|>"], smollm.specials["<|endoftext|>"]}
    assert smollm.bos is None
    assert smollm.n_vocab == 49_152


# Decoding


def test_a_stream_gives_the_same_text_as_decoding_at_once(smollm):
    rng = random.Random(3)
    for _ in range(300):
        n_bytes = 252  # ids below are control tokens and single bytes
        tokens = [rng.randrange(rng.choice([n_bytes, smollm.n_vocab])) for _ in range(rng.randrange(30))]
        decoder = smollm.decoder()
        assert "".join(map(decoder.push, tokens)) + decoder.flush() == smollm.decode(tokens)


def test_a_stream_never_shows_half_a_character(smollm):
    for text in ("你好，世界 👨\u200d👩\u200d👧 naïve", "".join(EMOJI), "ไทยहिन्दी"):
        decoder, shown = smollm.decoder(), ""
        for token in smollm.encode(text):
            shown += decoder.push(token)
            assert text.startswith(shown)
        assert shown == text
        assert decoder.flush() == ""


def test_a_character_that_is_never_finished_becomes_a_replacement_character(smollm):
    half = smollm.encode("你")[:-1]
    decoder = smollm.decoder()
    assert [decoder.push(token) for token in half] == [""] * len(half)
    assert decoder.push(smollm.encode("a")[0]) == "\ufffda"
    assert [decoder.push(half[0]), decoder.flush(), decoder.push(2)] == ["", "\ufffd", "<|im_end|>"]


def test_pieces_of_a_prefix_are_a_prefix_of_the_pieces(smollm):
    tokens = [1, *smollm.encode("好 👍🏽 ok"), 2]
    pieces = smollm.pieces(tokens)
    assert "".join(pieces) == smollm.decode(tokens)
    assert pieces[0] == "<|im_start|>"
    assert "" in pieces
    assert all(smollm.pieces(tokens[:n]) == pieces[:n] for n in range(len(tokens)))


def test_a_piece_alone_is_never_empty(smollm):
    assert all(smollm.piece(token) for token in range(smollm.n_vocab))
    assert smollm.piece(2) == "<|im_end|>"
    assert smollm.piece(smollm.encode(" the")[0]) == " the"
    assert {smollm.piece(token) for token in smollm.encode("\U0001f9ff")} <= {f"⟨{h}⟩" for h in HALVES}


HALVES = ["f0", "f0 9f", "f0 9f a7", "9f", "9f a7", "a7", "a7 bf", "bf"]


def test_an_unknown_id_has_no_bytes_and_shows_as_its_number(smollm):
    assert smollm.token_bytes(60_000) == b""
    assert smollm.piece(60_000) == "⟨60000⟩"
    assert smollm.decode([60_000]) == smollm.decode([-1]) == ""


# Folders in Hugging Face layout, and other GGUF files

TEXTS = [*varied_strings(150, seed=4), "the cat sat on the mat 12345", "HELLO World's IT'S 1234 x\n\n y", ""]


def trained(pre: pre_tokenizers.PreTokenizer) -> Reference:
    """A small reference tokenizer with two control tokens and one other added token."""
    made = Reference(models.BPE())
    made.pre_tokenizer = pre
    options = {"vocab_size": 600, "special_tokens": ["<s>", "</s>"], "show_progress": False}
    trainer = trainers.BpeTrainer(**options, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator([Path(__file__).read_text("utf-8")], trainer)
    made.add_tokens(["<tool>"])
    return made


def byte_level() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def test_merges_count_in_their_own_order_not_in_that_of_the_ids(tmp_path):
    spec = json.loads(trained(byte_level()).to_str())
    names = sorted(spec["model"]["vocab"])
    spec["model"]["vocab"] = {name: i for i, name in enumerate(names)}
    spec["added_tokens"] = [{**t, "id": names.index(t["content"])} for t in spec["added_tokens"][:2]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    made, ours = Reference.from_str(json.dumps(spec)), Tokenizer.from_folder(tmp_path)
    assert all(ours.encode(text) == made.encode(text).ids for text in TEXTS if "<" not in text)


def test_vocab_json_with_merges_txt_is_gpt2(tmp_path):
    transformers = pytest.importorskip("transformers")
    made = trained(byte_level())
    made.add_special_tokens(["<|endoftext|>"])
    made.model.save(str(tmp_path))
    vocab = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}), "utf-8")
    ours, theirs = Tokenizer.from_folder(tmp_path), transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        if "<|endoftext|>" not in text:
            assert ours.encode(text) == theirs(text)["input_ids"], repr(text)
    assert ours.specials == {"<|endoftext|>": len(vocab)}
    assert ours.end_tokens == {len(vocab)}


def test_ends_and_beginning_come_from_the_files_of_the_folder(tmp_path):
    made = trained(byte_level())
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    ours = Tokenizer.from_folder(tmp_path)
    assert ours.end_tokens == {1, 5, 6}
    assert ours.bos == 0


@pytest.mark.parametrize(("cut", "bos"), [("llama-bpe", 0), ("gpt-2", None), ("qwen2", None)])
def test_a_gguf_that_does_not_say_whether_it_wants_bos_gets_it_as_in_llama_cpp(fields, cut, bos):
    silent = {key: value for key, value in fields.items() if key != "tokenizer.ggml.add_bos_token"}
    ours = Tokenizer.from_gguf({**silent, "tokenizer.ggml.pre": cut, "tokenizer.ggml.bos_token_id": 0})
    assert ours.bos == bos
    assert ours.decode(ours.encode("I'LL pay 12345 €\n\n ok")) == "I'LL pay 12345 €\n\n ok"


def test_a_gguf_with_sentencepiece_merges_the_best_score_first():
    tokens = ["<unk>", "<s>", "<0xE4>", "<0xBD>", "<0xA0>", "▁", "a", "b", "c", "ab", "bc", "▁ab"]
    scores = [0, 0, 0, 0, 0, -9, -9, -9, -9, -2, -1, -3]
    kinds = [2, 3, 6, 6, 6, *[1] * 7]
    made = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": kinds, "bos_token_id": 1}
    ours = Tokenizer.from_gguf({f"tokenizer.ggml.{key}": value for key, value in made.items()})
    assert ours.encode("abc") == [5, 6, 10]
    assert ours.encode("ab ab") == [11, 11]
    assert ours.encode("你") == [5, 2, 3, 4]
    assert ours.decode([5, 2, 3, 4]) == "你"
    assert ours.decode([5, 2, 3, 4], opening=False) == " 你"
    assert ours.encode("<s>", specials=True) == [1]
    assert ours.bos == 1


BPE_GGUF = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.merges": []}
BAD_GGUF = {
    "gpt2 or llama": {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["a"]},
    "must be one of": {**BPE_GGUF, "tokenizer.ggml.pre": "mystery"},
    "incomplete": {**BPE_GGUF, "tokenizer.ggml.merges": ["a b"]},
    "byte characters": {**BPE_GGUF, "tokenizer.ggml.tokens": ["a", "你"]},
    "damaged": {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["a"]},
    "0 tokens": {},
}


@pytest.mark.parametrize("words", BAD_GGUF)
def test_a_gguf_tokenizer_that_cannot_be_read_is_refused_by_name(words):
    with pytest.raises(TokenizerError, match=words):
        Tokenizer.from_gguf(BAD_GGUF[words])


def test_a_folder_without_a_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.json, tokenizer\.model, or vocab\.json with merges\.txt"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"added_tokens": [1]}', '{"model": {}}', '{"model": {"vocab": {}, "merges": []}}']
)
def test_a_damaged_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError):
        Tokenizer.from_folder(tmp_path)
