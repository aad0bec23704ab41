"""What all fetching of models has in common: the cache folder, the progress callback, bytes in words, the error."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_dir

__all__ = ["FetchError", "NoSuchModel", "Progress", "free_disk", "home", "in_words", "quiet"]

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
