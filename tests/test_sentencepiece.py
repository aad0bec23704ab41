"""SentencePiece vocabularies, from tokenizer.model and from GGUF files: ids, places and text of the library's own."""

import json
import struct
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference

from gpt.chat import ChatTemplate
from gpt.tokenizer import Tokenizer
from gpt.vocabulary import TokenizerError
from tests.test_encoders import TEXTS, pieces

UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1


def made_by(reference: Reference) -> tuple[list[str], list[float], list[int]]:
    """Names, scores and kinds as SentencePiece holds them: a piece made by an earlier merge has the better score."""
    spec = json.loads(reference.to_str())
    vocab = spec["model"]["vocab"]
    rank = {"".join(pair): -float(i) for i, pair in enumerate(spec["model"]["merges"])}
    names = sorted(vocab, key=vocab.get)
    kinds = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL} | {f"<0x{b:02X}>": BYTE for b in range(256)}
    return names, [rank.get(name, -1e6) for name in names], [kinds.get(name, NORMAL) for name in names]


def varint(value: int) -> bytes:
    head = bytes([value & 127 | 128 * (value > 127)])
    return head + (varint(value >> 7) if value > 127 else b"")


def field(number: int, value: int | float | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def model_file(reference: Reference, model: int = 2, **normal: int | bytes) -> bytes:
    parts = [
        field(1, field(1, name.encode()) + field(2, score) + field(3, kind))
        for name, score, kind in zip(*made_by(reference), strict=True)
    ]
    numbers = {"charsmap": 2, "prefix": 3, "tidy": 4}
    cleaning = b"".join(field(numbers[name], value) for name, value in ({"tidy": 0} | normal).items())
    return b"".join([*parts, field(2, field(3, model) + field(4, 900)), field(3, field(1, b"identity") + cleaning)])


def folder_of(tmp_path: Path, data: bytes, **config: object) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def assert_same(ours: Tokenizer, theirs: Reference) -> None:
    theirs.encode_special_tokens = True
    for text in TEXTS:
        ids, starts = ours.locate(text)
        encoding = theirs.encode(text, add_special_tokens=False)
        assert (ids, starts) == (encoding.ids, [start for start, _ in encoding.offsets]), repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@pytest.fixture(scope="module")
def llama() -> Reference:
    return pieces()


@pytest.fixture(scope="module")
def gemma() -> Reference:
    return pieces(first=False)


def test_a_folder_with_nothing_but_a_sentencepiece_file_is_read(tmp_path, llama):
    ours = Tokenizer.from_folder(folder_of(tmp_path, model_file(llama), eos_token="</s>"))
    assert_same(ours, llama)
    assert ours.specials == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert (ours.bos, ours.end_tokens) == (1, {2})


def test_the_files_beside_it_say_what_they_say_beside_any_other(tmp_path, llama):
    added = {"900": {"content": "<|user|>", "special": True, "rstrip": True}, "901": {"content": "<tool>"}}
    given = {"added_tokens_decoder": added, "add_bos_token": False, "legacy": False}
    ours = Tokenizer.from_folder(folder_of(tmp_path, model_file(llama), **given))
    assert ours.bos is None
    assert ours.encode("<|user|> \n a<tool>", specials=True) == [900, *ours.locate("a", "text")[0], 901]
    assert ours.encode("a") == ours.locate(" a", "text")[0]
    assert ours.token_bytes(901) == b"<tool>"


def test_added_tokens_that_leave_ids_out_are_refused(tmp_path, llama):
    folder = folder_of(tmp_path, model_file(llama), added_tokens_decoder={"1000": {"content": "<tool>"}})
    with pytest.raises(TokenizerError, match="'<tool>' must have the id after the others' last"):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize("says", ["file", "class", "config"])
def test_whether_a_space_goes_before_a_text_is_said_in_one_of_three_places(tmp_path, gemma, says):
    config = {"class": {"tokenizer_class": "GemmaTokenizer"}, "config": {"add_prefix_space": False}}.get(says, {})
    ours = Tokenizer.from_folder(folder_of(tmp_path, model_file(gemma, prefix=int(says != "file")), **config))
    assert_same(ours, gemma)


def test_spaces_are_tidied_where_the_file_wants_it(tmp_path, llama):
    ours = Tokenizer.from_folder(folder_of(tmp_path, model_file(llama, tidy=1)))
    assert ours.encode("  a   b\n ") == ours.encode("a b\n")


def test_a_unigram_file_takes_the_likeliest_pieces(tmp_path):
    names = [("<unk>", 0.0, UNKNOWN), ("▁", -3.0, 1), ("a", -3.0, 1), ("b", -3.0, 1), ("ab", -4.0, 1), ("▁ab", -9.0, 1)]
    parts = [field(1, field(1, name.encode()) + field(2, score) + field(3, kind)) for name, score, kind in names]
    data = b"".join([*parts, field(2, field(3, 1)), field(3, field(4, 0))])
    ours = Tokenizer.from_folder(folder_of(tmp_path, data))
    assert ours.encode("ab") == [1, 4]
    assert ours.decode([1, 4, 5]) == "ab ab"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:1000], "not a SentencePiece file"),
        (lambda data: b"PK\x03\x04" + data, "not a SentencePiece file"),
        (lambda data: b"", "usual BPE or Unigram"),
        (lambda data: data + field(2, field(3, 3)), "usual BPE or Unigram"),
        (lambda data: data + field(3, field(2, b"table")), "rewrites text"),
    ],
)
def test_another_file_is_refused_in_one_sentence(tmp_path, llama, change, words):
    with pytest.raises(TokenizerError, match=words) as caught:
        Tokenizer.from_folder(folder_of(tmp_path, change(model_file(llama))))
    assert "tokenizer.model" in str(caught.value)


def fields_of(reference: Reference, **more: object) -> dict:
    names, scores, kinds = made_by(reference)
    values = {"model": "llama", "tokens": names, "scores": scores, "token_type": kinds, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def test_a_gguf_with_llamas_pieces_gives_the_ids_of_the_library(llama):
    ours = Tokenizer.from_gguf(fields_of(llama))
    assert_same(ours, llama)
    assert (ours.bos, ours.end_tokens) == (1, {2})  # where the file says nothing


def test_a_gguf_with_gemmas_pieces_puts_no_space_before_a_text(gemma):
    ours = Tokenizer.from_gguf(fields_of(gemma, add_space_prefix=False, add_bos_token=False))
    assert_same(ours, gemma)
    assert ours.bos is None


def test_a_template_in_a_gguf_that_names_no_tokens_prints_the_usual_ones(llama):
    fields = fields_of(llama) | {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}
    ours = Tokenizer.from_gguf(fields)
    prompt = ChatTemplate.from_gguf(fields, ours).encode([{"role": "user", "content": "the"}])
    assert prompt.tokens == [1, *ours.locate("the", "control")[0], 2]


def test_control_tokens_of_phi_3_take_white_space_along(llama):
    fields = fields_of(llama)
    for name, kind in (("<|user|>", CONTROL), ("<|end|>", CONTROL), ("<|endoftext|>", CONTROL)):
        fields["tokenizer.ggml.tokens"].append(name)
        fields["tokenizer.ggml.scores"].append(0.0)
        fields["tokenizer.ggml.token_type"].append(kind)
    user = len(fields["tokenizer.ggml.tokens"]) - 3
    phi = Tokenizer.from_gguf({**fields, "general.architecture": "phi3"})
    assert phi.split("<|user|>\n x<|end|> <|endoftext|> ") == [user, "x", user + 1, user + 2, " "]
    assert phi.end_tokens == {2, user, user + 1, user + 2}
    assert Tokenizer.from_gguf({**fields, "general.architecture": "llama"}).split("<|user|> x") == [user, " x"]


def test_after_control_tokens_of_mistrals_third_version_text_gets_no_space():
    made = pieces(every=False)
    fields = fields_of(made)
    made.add_special_tokens(["[INST]"])
    fields["tokenizer.ggml.tokens"].append("[INST]")
    fields["tokenizer.ggml.scores"].append(0.0)
    fields["tokenizer.ggml.token_type"].append(CONTROL)
    ours = Tokenizer.from_gguf(fields)
    assert ours.encode("[INST] the cat", specials=True) == made.encode("[INST] the cat", add_special_tokens=False).ids
    assert_same(ours, made)
