"""The kernels of gpt/kernels, compiled on the machine that runs them: `kernels()`, or None where there is no compiler.

Compiling takes two seconds, once: the library is kept in the cache folder under a name that tells the source, the
compiler and the processor apart, and is used only after a product of its has come out right.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from gpt.bindings import Kernels
from gpt.fetching import home
from gpt.selfcheck import is_right

__all__ = ["kernels"]

SOURCES = Path(__file__).with_name("kernels")
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread")
_TARGETS = ("-march=native", "-mcpu=native")  # how compilers are told to use all that this processor has
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120  # after which a compiler is given up


@functools.cache
def kernels() -> Kernels | None:
    """The kernels for this processor; None where they cannot be compiled, or compute something else."""
    for compiler in filter(shutil.which, filter(None, (os.environ.get("CC"), *_COMPILERS))):
        for target in _TARGETS:
            try:
                made = _library(compiler, (*_FLAGS, target))
            except (OSError, subprocess.SubprocessError):
                continue
            if is_right(made):
                return made
    return None


def _library(compiler: str, flags: tuple[str, ...]) -> Kernels:
    """The library in the cache folder, made first if need be. Raises OSError or SubprocessError when it cannot be."""
    machine = _output(compiler, *flags, "-dM", "-E", "-x", "c", os.devnull)
    text = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    name = hashlib.sha256(machine + text + repr(flags).encode()).hexdigest()[:32]
    path = home() / "kernels" / f"{name}.so"
    with suppress(OSError):  # not there yet, or damaged
        return Kernels(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        _output(compiler, *flags, str(SOURCES / "kernels.c"), "-o", str(made), "-lm")  # a library after what needs it
        made.replace(path)  # whole or not at all, whoever else is at it
    return Kernels(path)


def _output(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout
