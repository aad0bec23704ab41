"""What a model computes in: as asked, or what suits the device, the checkpoint and the memory that is free."""

import pytest
import torch

from gpt import precision
from gpt.precision import Holding, Precision, choose, device_of, dtype_of, free_memory

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
PLAIN = Holding("plain", 1_000_000, "BF16")
CODED = Holding("coded", 1_000_000, "Q4_1", packed=625_000)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A processor with a compiler and 10 MB of free memory."""
    monkeypatch.setattr("gpt.native.kernels", lambda: object())
    monkeypatch.setattr(precision, "free_memory", lambda device: 10_000_000)


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_asked_for_is_what_is_taken(device, wanted):
    assert choose(CODED, device, wanted) == Precision(wanted)


def test_on_a_processor_codes_stay_and_other_weights_become_float32():
    assert choose(CODED, CPU) == choose(CODED, CPU, "stored") == Precision(torch.float32, stored=True)
    assert choose(PLAIN, CPU) == Precision(torch.float32)


@pytest.mark.parametrize(
    ("stored", "dtype"), [("BF16", torch.bfloat16), ("F32", torch.bfloat16), ("F16", torch.float16)]
)
def test_what_does_not_fit_as_float32_is_held_in_16_bits(stored, dtype):
    assert choose(Holding("m", 2_200_000, stored), CPU).dtype == torch.float32
    assert choose(Holding("m", 2_300_000, stored), CPU).dtype == dtype


def test_without_a_compiler_codes_become_floats(monkeypatch):
    monkeypatch.setattr("gpt.native.kernels", lambda: None)
    assert choose(CODED, CPU) == Precision(torch.float32)
    with pytest.raises(ValueError, match="stored needs a C compiler"):
        choose(CODED, CPU, "stored")


@pytest.mark.parametrize(("modern", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_gets_bfloat16_or_what_an_old_one_has(monkeypatch, modern, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: modern)
    assert choose(CODED, CUDA) == choose(PLAIN, CUDA) == Precision(dtype)
    assert choose(PLAIN, MPS) == Precision(torch.float16)


@pytest.mark.parametrize(("holding", "device"), [(PLAIN, CPU), (CODED, CUDA)])
def test_codes_where_there_are_none_or_no_kernel_are_refused(holding, device):
    with pytest.raises(ValueError, match=r"stored needs a (checkpoint in 16 bits|processor).*; give another dtype"):
        choose(holding, device, "stored")


def test_memory_is_counted_in_the_numbers_that_are_chosen():
    sizes = [PLAIN.memory(Precision(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert sizes == [4_000_000, 2_000_000, 2_000_000]
    assert CODED.memory(Precision(torch.float32, stored=True)) == 625_000
    assert Precision(torch.float32, stored=True).name == "stored"
    assert Precision(torch.bfloat16).name == "bfloat16"


def test_names_of_devices_and_dtypes():
    assert device_of("cpu") == CPU
    assert (dtype_of("bfloat16"), dtype_of(torch.float16), dtype_of(None)) == (torch.bfloat16, torch.float16, None)
    assert dtype_of("stored") == "stored"
    for name in ("int3", torch.int8):
        with pytest.raises(ValueError, match="dtype must be one of stored, float32, bfloat16, float16"):
            dtype_of(name)
    with pytest.raises(ValueError, match="'abacus' cannot be used here"):
        device_of("abacus")


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_its_limit_leaves_files_not_counted(tmp_path, version):
    limit, used = precision._CGROUPS[2 - version]
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / used).write_text("700\n")
    (tmp_path / limit).with_name("memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert precision._container_room(limit, used, tmp_path) == [450]
    (tmp_path / limit).write_text("max\n")
    assert precision._container_room(limit, used, tmp_path) == []


def test_the_free_memory_of_a_processor_is_at_most_what_the_system_has():
    import psutil

    assert 0 < free_memory(CPU) <= psutil.virtual_memory().total
