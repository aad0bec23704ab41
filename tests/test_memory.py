"""Threads share arenas of glibc once they are told to, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.memory import give_back

COUNT = """
import ctypes, sys, threading
from demo.memory import share_arenas
if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(8)
def work():
    together.wait()
    libc.free(ctypes.c_void_p(libc.malloc(1000)))
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def arenas(how: str) -> int:
    run = [sys.executable, "-c", COUNT, how]
    report = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout
    return len(re.findall("<heap nr=", report))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_threads_share_two_arenas_instead_of_having_one_each():
    if not arenas("each"):
        pytest.skip("this is not glibc")
    assert arenas("each") > 2
    assert arenas("shared") == 2


def test_memory_can_be_given_back_at_any_time():
    give_back()
    assert len(b"x" * 10_000_000) == 10_000_000
    give_back()
