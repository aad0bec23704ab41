"""The compiled kernels: the cache, the fall-back, their threads. What they compute is tested in test_quant.py."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch

from gpt import native
from gpt.bindings import Kernels
from gpt.groups import Groups
from gpt.native import kernels
from gpt.quant import QuantLinear
from gpt.threads import all_threads, one_thread, use_all_threads

OUT, IN = 200, 96


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache folder, and nothing remembered before or after."""
    monkeypatch.setenv("GLASSBOX_HOME", str(tmp_path))
    kernels.cache_clear()
    yield tmp_path / "kernels"
    kernels.cache_clear()


def script(path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_the_library_is_compiled_once_and_kept(fresh, monkeypatch):
    assert isinstance(kernels(), Kernels)
    (made,) = fresh.iterdir()
    written = made.stat().st_mtime_ns
    kernels.cache_clear()
    assert isinstance(kernels(), Kernels)
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [written]
    monkeypatch.setattr(native, "_FLAGS", ("-O2", *native._FLAGS[1:]))
    kernels.cache_clear()
    assert isinstance(kernels(), Kernels)
    assert len(list(fresh.iterdir())) == 2


def test_a_broken_library_in_the_cache_is_made_anew(fresh):
    made = "from gpt.native import kernels; assert kernels()"  # elsewhere: a process loads a path once only
    subprocess.run([sys.executable, "-c", made], check=True, cwd=native.SOURCES.parents[1])
    (path,) = fresh.iterdir()
    path.write_bytes(b"not a library")
    assert kernels()
    assert path.stat().st_size > 10_000


def test_without_a_compiler_that_works_there_are_none(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_COMPILERS", ("no-such-compiler",))
    assert kernels() is None
    monkeypatch.setenv("CC", script(tmp_path / "failing", "raise SystemExit(1)"))
    kernels.cache_clear()
    assert kernels() is None
    assert list(fresh.glob("*.so")) == []


def test_the_compiler_that_is_asked_for_comes_first(tmp_path, monkeypatch):
    real = shutil.which("cc")
    seen = tmp_path / "seen"
    call = f"sys.exit(subprocess.call([{real!r}, *sys.argv[1:]]))"
    text = f"import subprocess, sys\nopen({str(seen)!r}, 'a').close()\n{call}"
    monkeypatch.setenv("CC", script(tmp_path / "mine", text))
    assert kernels()
    assert seen.exists()


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("product.h", "minimum * sum", "minimum + sum"),
        ("vectors.h", "1 / 6.f", "1 / 7.f"),
        ("attention.h", "sum += weight * part", "sum += part"),
        ("attention.h", "read[r].sum * before", "read[r].sum"),
        ("kernels.c", "- b * sin[i]", "+ b * sin[i]"),
        ("kernels.c", "norm ? 0 : x", "0"),
        ("kernels.c", "0.044715f", "0.05f"),
    ],
)
def test_kernels_that_compute_something_else_are_not_used(tmp_path, monkeypatch, file, right, wrong):
    monkeypatch.setattr(native, "_COMPILERS", ("cc",))
    monkeypatch.setattr(native, "_FLAGS", ("-O1", *native._FLAGS[1:]))
    shutil.copytree(native.SOURCES, tmp_path / "kernels-text")
    text = (native.SOURCES / file).read_text("utf-8")
    assert text.count(right) == 1
    (tmp_path / "kernels-text" / file).write_text(text.replace(right, wrong), "utf-8")
    monkeypatch.setattr(native, "SOURCES", tmp_path / "kernels-text")
    assert kernels() is None


def test_the_text_holds_for_processors_with_shorter_vectors(monkeypatch):
    if subprocess.run(["cc", "-mavx2", "-mfma", "-E", "-x", "c", os.devnull], capture_output=True).returncode:
        pytest.skip("this compiler makes no AVX2")
    monkeypatch.setattr(native, "_TARGETS", ("-mno-avx512f",))
    assert kernels().lanes == 8  # and right, or it would be None


def layer(bits: int = 4, group: int = 32) -> QuantLinear:
    codes = torch.randint(0, 2**bits, (OUT, IN), dtype=torch.uint8)
    return QuantLinear(Groups(codes, *torch.randn(2, OUT, IN // group), bits))


def test_threads_share_a_product_without_changing_it():
    product = layer()
    x = torch.randn(9, IN)
    usual = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 8):
            torch.set_num_threads(n)
            results += [product(x) for _ in range(50)]
    finally:
        torch.set_num_threads(usual)
    assert all(torch.equal(result, results[0]) for result in results)


def test_callers_on_several_threads_get_their_own_products():
    product = layer(8, 16)
    inputs = torch.randn(6, 5, IN)
    expected = [product(x) for x in inputs]
    wrong: list[int] = []

    def call(i: int) -> None:
        torch.set_num_threads(3)
        for _ in range(300):
            if not torch.equal(product(inputs[i]), expected[i]):
                wrong.append(i)

    usual = torch.get_num_threads()
    callers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    torch.set_num_threads(usual)
    assert wrong == []


def test_torch_has_one_thread_in_there_and_all_of_them_elsewhere():
    usual = torch.get_num_threads()
    born: list[int] = []
    with one_thread():
        assert torch.get_num_threads() == 1
        assert all_threads() == usual

        def child() -> None:
            use_all_threads()
            born.append(torch.get_num_threads())

        thread = threading.Thread(target=child)
        thread.start()
        thread.join()
    assert torch.get_num_threads() == usual
    assert born == [usual]
    with pytest.raises(RuntimeError), one_thread():
        raise RuntimeError
    assert torch.get_num_threads() == usual
