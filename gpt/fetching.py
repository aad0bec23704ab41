"""What all fetching of models has in common: the cache folder, progress, what it will take, in numbers and in words."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

__all__ = ["Estimate", "FetchError", "NoSuchModel", "Progress", "free_disk", "home", "in_words", "quiet"]

Progress = Callable[[str, int, int], None]
"""(stage: wait, download, check, unpack or read; bytes done; bytes in all). What it raises stops the work."""


class FetchError(RuntimeError):
    """The model is known but could not be brought here: network, disk or a wrong hash. It says what to do."""


class NoSuchModel(FetchError):
    """Nobody there knows the name, or nobody says so."""


def quiet(stage: str, done: int, total: int) -> None:
    """The progress callback of a caller who gave none."""


def home() -> Path:
    """The folder that keeps what Glassbox itself fetches and makes: GLASSBOX_HOME, else the platform's cache folder."""
    return Path(os.environ.get("GLASSBOX_HOME") or user_cache_dir("glassbox", appauthor=False)).expanduser()


def in_words(size: float) -> str:
    """Bytes for people: "98 MB", "1.4 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 999.5e6 else f"{size / 1e6:.0f} MB"


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


@dataclass(frozen=True)
class Estimate:
    """What loading takes and what there is, in bytes. None: cannot be known before the file is here.

    `download` is still to be fetched, 0 when all is here. `memory` is for the weights, held as `precision` says;
    `conversation` is what 1,000 tokens of a conversation add: queries, keys, values, last hidden states.
    """

    download: int
    memory: int | None
    free_memory: int
    free_disk: int
    name: str = "the model"
    device: str = "cpu"
    precision: str = "float32"
    conversation: int | None = None

    @property
    def obstacle(self) -> str | None:
        """Why the model surely cannot be loaded, in one sentence; None when it may."""
        if self.download > self.free_disk:
            need, free = in_words(self.download), in_words(self.free_disk)
            return (
                f"{self.name} needs {need} of disk space, but only {free} are free; free some, or choose a smaller one."
            )
        if self.memory and self.memory > self.free_memory:
            need, free = in_words(self.memory), in_words(self.free_memory)
            return (
                f"{self.name} needs {need} of memory on {self.device} as {self.precision}, but only {free} are free; "
                "end other programs, choose a smaller one, or give a smaller --dtype or a GGUF of fewer bits."
            )
        return None
