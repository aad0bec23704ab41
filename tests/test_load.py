"""`gpt.load`: from a name to an engine that answers; what stops it, and what is said when it cannot be."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

import gpt
from gpt import load
from gpt.checkpoint import open_checkpoint
from gpt.params import SamplingParams
from tests.conftest import CHATML, SPECIALS
from tests.hub import Repo
from tests.test_hub import NAME, server  # noqa: F401 (a fixture)

SHAPE = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=258, max_position_embeddings=256,
)  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """One token for each byte and two control tokens, as tokenizer.json."""
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIALS[1], "chat_template": CHATML}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """A folder that can talk, in shards, as bytes."""
    folder = tmp_path_factory.mktemp("talker")
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder, max_shard_size="40KB")
    write_tokenizer(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    """The same as files that a test may break."""
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_name_of_the_hub_becomes_an_engine_that_answers(server, whole):  # noqa: F811
    server.repos[NAME] = Repo(whole)
    stages = []
    engine = load(NAME, "cpu", progress=lambda stage, done, total: stages.append(stage))
    assert [stage for stage in dict.fromkeys(stages) if stage != "wait"] == ["download", "read"]
    assert (engine.name, engine.precision) == (NAME, "float32")
    assert engine.chat is not None
    session = engine.session("hello", SamplingParams(max_new_tokens=3))
    assert len(list(engine.stream(session))) >= 1


def test_a_model_of_the_hub_that_is_refused_leaves_nothing_fetched(server, whole, monkeypatch):  # noqa: F811
    server.repos[NAME] = Repo(whole)
    monkeypatch.setattr("gpt.estimate.free_memory", lambda device: 1000)
    with pytest.raises(RuntimeError, match=r"needs 0 MB of memory on cpu as float32, but only 0 MB are free"):
        load(NAME, "cpu", "float32")
    assert set(server.fetched()) == {"config.json", "model.safetensors.index.json"}


def test_reading_is_told_in_bytes_to_the_end(folder):
    seen = []
    load(str(folder), "cpu", progress=lambda *told: seen.append(told))
    sizes = open_checkpoint(folder).weights
    total = sum(sizes.nbytes(name) for name in sizes.shapes)
    assert {stage for stage, _, _ in seen} == {"read"}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("read", total, total)
    assert len({done for _, done, _ in seen} - {0}) == len(sizes.shapes)


def test_what_progress_raises_stops_the_reading(folder):
    seen = []

    def cancel(*told):
        seen.append(told)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(str(folder), "cpu", progress=cancel)
    assert len(seen) == 1


@pytest.mark.parametrize("free", [100, 50_000_000_000])
def test_a_16_bit_folder_without_kernels_becomes_float32_where_that_fits(folder, monkeypatch, free):
    monkeypatch.setattr("gpt.native.kernels", lambda: None)
    for path in folder.glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    monkeypatch.setattr("gpt.precision.free_memory", lambda device: free)
    assert load(str(folder), "cpu").precision == ("float32" if free > 100 else "bfloat16")


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def misshape(folder: Path) -> None:
    tensors = load_file(shards(folder)[0])
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    save_file({**tensors, name: torch.ones(3, 3)}, shards(folder)[0])


def only_pickles(folder: Path) -> None:
    for path in shards(folder):
        path.rename(path.with_suffix(".bin"))
    (folder / "model.safetensors.index.json").unlink()


def file_of(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


BROKEN = {  # how a folder is broken (or the path of something else), and what is said
    "a missing shard": (lambda f: shards(f)[1].unlink(), "lacks model-00002-.*, which its index names; fetch it again"),
    "a shard cut short": (lambda f: cut(shards(f)[0], 20_000), "has a broken model-00001-.*; fetch it again"),
    "an empty shard": (lambda f: cut(shards(f)[0], 0), "has a broken model-00001-.*; fetch it again"),
    "a wrong shape": (misshape, r"of shape \(3, 3\), its config asks for"),
    "not a number": (
        lambda f: change_config(f, hidden_size=float("nan")),
        "hidden_size must be .*, its config says nan",
    ),
    "a word": (lambda f: change_config(f, vocab_size="many"), "vocab_size must be a positive whole number"),
    "heads that do not divide": (lambda f: change_config(f, num_key_value_heads=3), "multiple of"),
    "another quantisation": (
        lambda f: change_config(f, quantization_config={"quant_method": "awq"}),
        "with awq, which",
    ),
    "another family": (lambda f: change_config(f, model_type="novel"), "'novel' is not supported; supported are"),
    "only pickles": (only_pickles, "pickles are never loaded, save it as safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "a pickle for a file": (lambda f: file_of(f, "pytorch_model.bin", b"x"), "is not a .gguf file; give one"),
    "a GGUF of nothing": (lambda f: file_of(f, "x.gguf", b""), "too short to be a GGUF file"),
    "a GGUF of something else": (
        lambda f: file_of(f, "x.gguf", b"PK" * 99),
        "is not a GGUF file; give a .gguf file or a",
    ),
    "a part of a GGUF": (
        lambda f: file_of(
            f, "x.gguf", b"GGUF" + struct.pack("<IQQQ11sIH", 3, 0, 1, 11, b"split.count", 2, 3) + b" " * 40
        ),
        "is one of 3 parts; join them",
    ),
    "a GGUF cut short": (
        lambda f: file_of(f, "x.gguf", b"GGUF" + struct.pack("<IQQ", 3, 9, 9)),
        "cut short, fetch it again",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_one_sentence(folder, kind):
    breaks, said = BROKEN[kind]
    name = breaks(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises((ValueError, RuntimeError), match=said) as refusal:
        load(str(name or folder), "cpu")
    assert "\n" not in str(refusal.value)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(ValueError, match="must be more than 0"):
        gpt.load(query_bytes=0)
