"""Names: the list of models, what each entry says, and how a name of any kind finds its source."""

from pathlib import Path

import pytest

from gpt import catalog, hub
from gpt.catalog import Local, UnknownModel, find, known, resolve
from gpt.hub import Reference
from gpt.wheel import Wheel


def test_the_default_model_is_the_first_known_one_and_its_facts_are_there():
    entry = known()[0]
    assert entry.name == catalog.DEFAULT == "smollm2-135m-instruct"
    assert (entry.size, entry.licence) == (98_362_432, "Apache-2.0")
    assert isinstance(entry.source, Wheel)
    assert len(entry.source.sha256) == len(entry.source.wheel_sha256) == 64


def test_every_other_model_comes_from_the_hub_and_says_what_it_is_good_for_in_two_languages():
    assert 12 <= len(known()) <= 20
    for entry in known()[1:]:
        assert Reference.parse(entry.source.repo) == entry.source
        assert entry.name == entry.name.lower()
        assert entry.good_for.isascii()
        assert any("\u4e00" <= char <= "\u9fff" for char in entry.good_for_zh)
        assert 1 <= entry.size / entry.parameters <= 4.5, entry.name  # bytes a weight
    assert len({entry.source for entry in known()}) == len(known())
    assert any(entry.chinese for entry in known())
    assert {entry.name for entry in known() if not entry.chat} >= {"gpt2", "distilgpt2"}


def test_a_model_is_here_when_all_of_it_is_in_the_cache(tmp_path, monkeypatch):
    entry = next(entry for entry in known() if entry.name == "gpt2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not entry.is_here
    folder = tmp_path / "models--openai-community--gpt2"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "config.json").write_text("{}")
    (folder / "snapshots" / "abc" / "tokenizer.json").write_text("{}")
    assert not entry.is_here
    (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert entry.is_here


@pytest.fixture
def asked(monkeypatch) -> list[Reference]:
    """What the hub is asked for; it is not asked."""
    asked = []
    monkeypatch.setattr(hub, "find", lambda reference, progress: asked.append(reference))
    return asked


@pytest.mark.parametrize(
    ("name", "revision", "reference"),
    [
        ("gpt2", None, Reference("openai-community/gpt2")),
        ("GPT2", None, Reference("openai-community/gpt2")),
        ("pythia-160m@step3000", None, Reference("EleutherAI/pythia-160m", revision="step3000")),
        ("pythia-160m", "step3000", Reference("EleutherAI/pythia-160m", revision="step3000")),
        ("Qwen/Qwen3-0.6B", None, Reference("Qwen/Qwen3-0.6B")),
        ("some-one/anything:Q4_K_M@v2", None, Reference("some-one/anything", kind="Q4_K_M", revision="v2")),
    ],
)
def test_short_names_and_names_of_the_hub_are_asked_for_there(asked, name, revision, reference):
    find(name, revision)
    assert asked == [reference]


def test_a_folder_wins_over_a_name_of_the_hub_and_a_short_name_over_a_folder(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("some-one/model", "gpt2"):
        Path(name).mkdir(parents=True)
        Path(name, "config.json").write_text("{}")
    assert find("some-one/model") == Local(Path("some-one/model"))
    assert find("./gpt2") == Local(Path("gpt2"))
    assert asked == []
    find("gpt2")
    assert asked == [Reference("openai-community/gpt2")]


def test_what_has_no_revisions_refuses_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name in (catalog.DEFAULT, str(tmp_path)):
        with pytest.raises(ValueError, match="has no revisions; only models of the hub have"):
            find(name, "main")
    with pytest.raises(ValueError, match="has no revisions"):
        find(f"{catalog.DEFAULT}@main")


def test_a_folder_with_a_config_and_a_gguf_file_come_back_as_given(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.GGUF").write_bytes(b"")
    assert resolve(str(tmp_path)) == tmp_path
    assert resolve(str(tmp_path / "x.GGUF")) == tmp_path / "x.GGUF"


@pytest.mark.parametrize("name", ["", "gpt-9", "no/such/folder", "missing.gguf", "../x", "a b"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(UnknownModel, match="Short names: smollm2-135m-instruct, gpt2"):
        resolve(name)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("smolm2-135m", "smollm2-135m-instruct"), ("gpt-2", "gpt2"), ("qwen3-06b", "qwen3-0.6b"),
        ("TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b-chat"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_answered_with_the_nearest_one(typo, meant):
    with pytest.raises(UnknownModel, match=f"Did you mean '{meant}'"):
        resolve(typo)


def test_a_folder_without_config_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UnknownModel, match=r"has no config.json"):
        resolve(str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(UnknownModel, match=r"name one of its files instead: model.gguf"):
        resolve(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnknownModel, match=r"not a .gguf file"):
        resolve(str(tmp_path / "pytorch_model.bin"))
