"""What is saved is what transformers computes with, from whatever it was read."""

import json

import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from safetensors.torch import load_file

from gpt import save as saving
from gpt.__main__ import main
from gpt.checkpoint import open_checkpoint
from gpt.engine import Engine
from gpt.native import kernels
from gpt.save import save
from gpt.tokenizer import Tokenizer
from tests import gguf_files
from tests.conftest import byte_fields, random_model
from tests.families import VARIANTS, answers, made
from tests.test_checkpoint import make_llama, write_gguf


def by_transformers(folder):
    """The logits of TOKENS that transformers computes from a folder."""
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation="eager", output_loading_info=True
    )
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return answers(model.eval())[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_saved_gives_transformers_the_same_logits(tmp_path, variant):
    reference = made(variant)
    reference.save_pretrained(tmp_path / "theirs")
    checkpoint = open_checkpoint(tmp_path / "theirs")
    save(checkpoint.model(), tmp_path / "ours")
    again = open_checkpoint(tmp_path / "ours")
    assert again.config == checkpoint.config
    torch.testing.assert_close(by_transformers(tmp_path / "ours"), answers(reference)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", ["llama, llama3", "gpt_neox", "gemma2", "phi3, longrope"])
def test_a_gguf_file_can_be_saved_too(tmp_path, variant):
    """The divisors of frequencies that such a file has in the place of a scaling become LongRoPE's."""
    reference = made(variant, **({"query_pre_attn_scalar": 12} if variant == "gemma2" else {}))
    path = gguf_files.write(tmp_path / "tiny.gguf", reference)
    save(open_checkpoint(path).model(), tmp_path / "ours")
    torch.testing.assert_close(by_transformers(tmp_path / "ours"), answers(reference)[0], atol=1e-4, rtol=0)


@pytest.mark.skipif(kernels() is None, reason="needs a C compiler")
def test_a_model_in_codes_is_saved_dequantised_with_its_tokenizer(tmp_path):
    reference, fields = make_llama(tied=True, vocab_size=258), byte_fields() | {"tokenizer.ggml.add_bos_token": True}
    reference.set_attn_implementation("eager")
    path = write_gguf(tmp_path / "tiny.gguf", reference, Quant.Q8_0, tokenizer=fields)
    checkpoint = open_checkpoint(path)
    engine = Engine(checkpoint.model(stored=True), Tokenizer.from_gguf(checkpoint.fields), None, "tiny")
    engine.source = path
    save(engine, tmp_path / "ours")
    torch.testing.assert_close(by_transformers(tmp_path / "ours"), answers(reference)[0], atol=1e-4, rtol=0)
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "ours"), Tokenizer.from_folder(tmp_path / "ours")
    assert theirs("héllo 1234")["input_ids"] == [ours.bos, *engine.tokenizer.encode("héllo 1234")]
    assert ours.encode("héllo 1234") == engine.tokenizer.encode("héllo 1234")
    assert (ours.bos, ours.end_tokens) == (engine.tokenizer.bos, engine.tokenizer.end_tokens)
    said = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert said == "<|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.skipif(kernels() is None, reason="needs a C compiler")
def test_a_model_of_16_bits_is_saved_in_16_bits_to_the_bit(tmp_path):
    make_llama(vocab_size=96).bfloat16().save_pretrained(tmp_path / "theirs")
    save(open_checkpoint(tmp_path / "theirs").model(stored=True), tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_large_model_is_saved_in_shards(tmp_path, monkeypatch):
    model = random_model()
    save(model, tmp_path / "whole")
    monkeypatch.setattr(saving, "SHARD_BYTES", 20_000)
    save(model, tmp_path / "shards")
    shards = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 2
    assert set(
        json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())["weight_map"].values()
    ) == set(shards)
    torch.testing.assert_close(
        by_transformers(tmp_path / "shards"), by_transformers(tmp_path / "whole"), atol=0, rtol=0
    )


def test_the_type_of_the_weights_can_be_chosen(tmp_path):
    save(random_model(), tmp_path / "half", torch.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    model = open_checkpoint(tmp_path / "half").model()
    torch.testing.assert_close(model.wte.weight, random_model().wte.weight.bfloat16().float(), atol=0, rtol=0)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="transformers has no words for it"):
        save(random_model(parallel=True), tmp_path / "ours")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="full holds something already; give the name of a new folder"):
        save(random_model(), tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_command_saves_a_folder_with_the_files_of_its_tokenizer(tmp_path, capsys):
    make_llama(vocab_size=258).save_pretrained(tmp_path / "theirs")
    write_gguf(tmp_path / "tiny.gguf", make_llama(vocab_size=258), tokenizer=byte_fields())
    assert main(["--model", str(tmp_path / "tiny.gguf"), "--save-model", str(tmp_path / "first")]) == 0
    assert (
        main(["--model", str(tmp_path / "first"), "--dtype", "float16", "--save-model", str(tmp_path / "second")]) == 0
    )
    names = {path.name for path in (tmp_path / "second").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    }
    assert capsys.readouterr().out.endswith(f"first was written to {tmp_path / 'second'}\n")
