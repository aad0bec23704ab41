"""What GGUF files and folders say about a tokenizer: how text is cut, where it begins and ends, what is refused."""

import json

import pytest
from tokenizers import normalizers, processors

from gpt import cuts
from gpt.cuts import BYTE_LEVEL_CUTS
from gpt.encoders import _ByteBPE
from gpt.tokenizer import Tokenizer
from gpt.vocabulary import TokenizerError
from tests.test_encoders import TEXTS, all_pairs, byte_bpe, byte_level_with_regex, pieces, split


def fields_of(reference, **more) -> dict:
    """GGUF metadata of a byte-level tokenizer of the library."""
    spec = json.loads(reference.to_str())
    ids = reference.get_vocab(with_added_tokens=True)
    special = {entry["content"]: 3 if entry["special"] else 4 for entry in spec["added_tokens"]}
    names = sorted(ids, key=ids.get)
    values = {
        "model": "gpt2",
        "tokens": names,
        "token_type": [special.get(name, 1) for name in names],
        "merges": [" ".join(pair) for pair in spec["model"]["merges"]],
        **more,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


REFERENCES = {
    "gpt-2": lambda: byte_bpe(byte_level_with_regex()),
    "qwen2": lambda: byte_bpe(split(cuts.QWEN2), normalizers.NFC()),
    "llama-bpe": all_pairs,
    "dbrx": lambda: byte_bpe(split(cuts.LLAMA3)),
    "tekken": lambda: byte_bpe(split(cuts.TEKKEN)),
    "gpt-4o": lambda: byte_bpe(split(cuts.GPT4O)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_gguf_cuts_text_as_its_name_for_it_says(name):
    theirs = REFERENCES[name]()
    ours = Tokenizer.from_gguf(fields_of(theirs, pre=name))
    theirs.encode_special_tokens = True
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, repr(text)


@pytest.fixture(scope="module")
def trained():
    return byte_bpe(byte_level_with_regex())


@pytest.mark.parametrize("name", BYTE_LEVEL_CUTS)
def test_every_known_name_runs_through_tiktoken(trained, name):
    ours = Tokenizer.from_gguf(fields_of(trained, pre=name, bos_token_id=1))
    assert type(ours._encoder) is _ByteBPE
    assert ours.decode(ours.encode("I'LL pay 12345 €\n\n ok")) == "I'LL pay 12345 €\n\n ok"
    assert ours.bos == (1 if name in ("llama-bpe", "llama3", "llama-v3", "tekken") else None)


@pytest.mark.parametrize("name", ["mystery", "qwen35", "default", None])
def test_a_name_that_is_not_known_is_refused_and_the_known_ones_listed(trained, name):
    fields = fields_of(trained, **({} if name is None else {"pre": name}))
    with pytest.raises(TokenizerError, match=r"must be one of gpt-2, .*, got"):
        Tokenizer.from_gguf({**fields, "general.architecture": "llama"})


def test_files_older_than_these_names_are_gpt_2s(trained):
    silent = fields_of(trained)
    named = Tokenizer.from_gguf({**silent, "tokenizer.ggml.pre": "gpt-2"})
    for architecture in ("gpt2", "gptneox"):
        ours = Tokenizer.from_gguf({**silent, "general.architecture": architecture})
        assert ours.encode("It's 2026") == named.encode("It's 2026")


@pytest.mark.parametrize(
    ("config", "prefix", "bos"),
    [({}, True, 1), ({}, False, None), ({"add_bos_token": True}, False, 1), ({"add_bos_token": False}, True, None),
     ({"add_bos_token": None}, True, 1)],
)  # fmt: skip
def test_a_folder_says_in_two_places_whether_text_begins_with_bos(tmp_path, config, prefix, bos):
    made = pieces()
    if prefix:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", **config}))
    assert Tokenizer.from_folder(tmp_path).bos == bos


def test_every_usual_name_for_the_end_of_a_turn_ends_a_reply(tmp_path):
    made, names = pieces(), ["<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|im_end|>", "<|endoftext|>"]
    made.add_special_tokens([*names, "<|user|>", "<eos>", "[INST]"])
    made.save(str(tmp_path / "tokenizer.json"))
    ends = {made.token_to_id(name) for name in [*names, "<|user|>", "<eos>", "</s>"]}
    assert Tokenizer.from_folder(tmp_path).end_tokens == ends


def test_a_gguf_names_three_ends(trained):
    fields = fields_of(trained, pre="gpt-2", eos_token_id=5, eot_token_id=6, eom_token_id=7)
    assert Tokenizer.from_gguf(fields).end_tokens == {2, 5, 6, 7}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}, "decodes with 'BPEDecoder'"),
        ({"decoder": None}, "does not say how it decodes"),
        ({"normalizer": {"type": "Mystery"}}, "tokenizers library cannot read"),
    ],
)
def test_a_tokenizer_json_that_cannot_be_followed_exactly_is_refused(tmp_path, change, words):
    spec = json.loads(pieces().to_str()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    with pytest.raises(TokenizerError, match=words):
        Tokenizer.from_folder(tmp_path)


def test_vocab_json_of_another_tokenizer_needs_its_tokenizer_json(tmp_path):
    for name, content in (("vocab.json", "{}"), ("merges.txt", "")):
        (tmp_path / name).write_text(content)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CodeGenTokenizer"}')
    with pytest.raises(TokenizerError, match="does not say how CodeGenTokenizer cuts text"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "kind", ["Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "LlamaTokenizer", "GemmaTokenizer"]
)
def test_folders_as_transformers_saves_them_are_read(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    byte_level = not kind.startswith(("Llama", "Gemma"))
    model = json.loads((byte_bpe(split(cuts.QWEN2)) if byte_level else pieces()).to_str())["model"]
    theirs = getattr(transformers, kind)(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    theirs.save_pretrained(tmp_path)
    ours = Tokenizer.from_folder(tmp_path)
    for text in TEXTS:
        if "<" not in text:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)
    assert ours.end_tokens == {theirs.eos_token_id}
    assert (type(ours._encoder) is _ByteBPE) is byte_level


def test_names_of_control_tokens_may_stand_in_a_file_of_their_own(tmp_path):
    pieces().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true, "bos_token": null}')
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}, "eos_token": "▁the"}')
    ours = Tokenizer.from_folder(tmp_path)
    assert ours.bos == 1
    assert ours.end_tokens == {2, *ours.encode("the")}
