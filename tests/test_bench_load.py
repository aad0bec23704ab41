"""The measurement of loading, on a tiny checkpoint and in this process."""

import json

import pytest
import torch

from gpt import bench, bench_load
from gpt.bench_load import SHAPE, _measure, _tensors, load_cost, load_lines, write_checkpoint, write_gguf
from gpt.checkpoint import open_checkpoint
from gpt.native import kernels
from gpt.quant import is_packed

TINY = {**SHAPE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 96}


def test_the_shape_has_one_and_a_half_billion_weights():
    assert sum(torch.Size(size).numel() for _, size in _tensors(SHAPE)) == 1_543_656_960


def test_the_random_checkpoint_can_be_loaded_and_is_in_several_files(tmp_path):
    write_checkpoint(tmp_path, TINY)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    checkpoint = open_checkpoint(tmp_path)
    assert {*checkpoint.weights.kinds.values()} == {"BF16"}
    assert checkpoint.model().blocks[1].mlp.down.weight.std() > 0.01


def test_memory_is_told_as_a_multiple_of_the_weights(tmp_path):
    write_checkpoint(tmp_path, {**TINY, "vocab_size": 400_000})
    cost = bench_load._in_a_process(tmp_path, "float32")
    assert cost["final"] > 4 * 32 * 400_000
    assert 0.5 < cost["anonymous"] < 1.5
    assert cost["seconds"] > 0


@pytest.mark.skipif(kernels() is None, reason="no compiler")
def test_the_same_as_a_gguf_keeps_its_codes(tmp_path):
    write_gguf(tmp_path / "model.gguf", {**TINY, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32})
    checkpoint = open_checkpoint(tmp_path / "model.gguf")
    assert checkpoint.is_packed
    assert is_packed(checkpoint.model(stored=True))
    cost = _measure(str(tmp_path / "model.gguf"), "stored")
    assert cost["final"] == checkpoint.weights.packed_bytes


def test_the_command_measures_loading_alone_when_asked(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench_load, "_in_a_process", lambda folder, dtype: asked.append(dtype) or COST)
    report = load_cost({**TINY, "intermediate_size": 64})
    assert asked == list(report) == ["bfloat16", "float32", "stored"][: 3 if kernels() else 2]
    monkeypatch.setattr(bench, "load_cost", lambda: report)
    assert bench.main(["--load"]) == 0
    assert capsys.readouterr().out.splitlines() == load_lines(report)
    assert bench.main(["--load", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report


COST = {"seconds": 1.5, "final": 3e9, "anonymous": 1.0, "resident": 1.25}


def test_the_table_lines_up():
    lines = load_lines({"bfloat16": COST, "float32": COST})
    assert len({len(line) for line in lines}) == 1
    assert "1.5   3.00 GB" in lines[1]
    assert "1.25 x" in lines[1]
