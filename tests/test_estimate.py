"""What loading will take: exact for what is here, and what surely cannot be is refused in one sentence."""

import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gpt import estimate as module
from gpt.catalog import DEFAULT, estimate, known
from gpt.checkpoint import Checkpoint, open_checkpoint
from gpt.estimate import held_by, require
from gpt.groups import GROUPED, coded_bytes
from gpt.native import kernels
from gpt.precision import Precision, choose
from gpt.quant import QuantLinear
from tests.test_quant import IN, OUT, file_of, stored_matrix

CPU = torch.device("cpu")


def make_folder(path, tied: bool, dtype: torch.dtype = torch.float32) -> Checkpoint:
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=96)
    LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=tied)).to(dtype).save_pretrained(path)
    return open_checkpoint(path)


def held_bytes(model: torch.nn.Module) -> int:
    """What the weights of a loaded model really take."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(held.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_memory_of_a_folder_is_what_its_model_takes(tmp_path, tied, dtype):
    checkpoint = make_folder(tmp_path, tied, torch.bfloat16)
    told = estimate(str(tmp_path), dtype, "cpu")
    precision = Precision(getattr(torch, dtype))
    assert told.memory == held_bytes(checkpoint.model("cpu", *precision))
    assert (told.name, told.device, told.precision, told.download) == (tmp_path.name, "cpu", dtype, 0)
    assert told.obstacle is None
    assert held_by(checkpoint).stored == "BF16"


@pytest.mark.skipif(kernels() is None, reason="no compiler")
@pytest.mark.parametrize("kind", GROUPED, ids=lambda kind: kind.name)
def test_the_memory_of_codes_is_what_their_layer_takes(tmp_path, kind):
    file = file_of(tmp_path / "made.gguf", a=(stored_matrix(kind), kind))
    layer = QuantLinear(file.packed("a"))
    blocks = layer.packed.shape[0] * layer.packed.shape[2]  # outputs, rounded up to whole blocks
    assert held_bytes(layer) == coded_bytes(kind, blocks * IN)
    assert file.packed_bytes == coded_bytes(kind, OUT * IN)


@pytest.mark.slow
def test_the_memory_of_the_default_model_is_what_it_takes():
    checkpoint = open_checkpoint(known()[0].source.fetch())
    model = checkpoint.model("cpu", *choose(held_by(checkpoint), CPU))
    assert estimate(DEFAULT, device="cpu").memory == held_bytes(model)


def test_a_model_that_is_still_in_the_package_index_is_estimated_by_its_size(monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSBOX_HOME", str(tmp_path))
    monkeypatch.setattr("gpt.native.kernels", lambda: object())
    told = estimate(DEFAULT, device="cpu")
    assert told.download == 92_871_040
    assert 98_000_000 <= told.memory <= 150_000_000
    assert told.conversation is None
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_with_what_it_needs_and_what_there_is(tmp_path, monkeypatch):
    checkpoint = make_folder(tmp_path, tied=True)
    need = 4 * held_by(checkpoint).numbers
    monkeypatch.setattr(module, "free_memory", lambda device: need)
    require(checkpoint, CPU, torch.float32)
    monkeypatch.setattr(module, "free_memory", lambda device: need - 1)
    with pytest.raises(
        RuntimeError, match=r"needs 0 MB of memory on cpu as float32, but only 0 MB are free; end other"
    ):
        require(checkpoint, CPU, torch.float32)
    require(checkpoint, CPU, torch.bfloat16)


def test_a_disk_that_is_too_small_is_said_beforehand(monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RuntimeError, match=r"needs 93 MB of disk space, but only 1 MB are free"):
        require(known()[0].source, CPU, None, 92_871_040)
