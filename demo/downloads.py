"""Files that were made for somebody to fetch, in a folder that Gradio serves, so that none goes through JSON.

Gradio serves what lies in its own folder for uploads, and gives it out as an attachment. Each file lies there in a
folder of its own, whose name cannot be guessed. It goes when its owner has another one made, after LIFE seconds, when
all files together take more than CAPACITY bytes (the oldest first), and when the program ends. Nothing else is served.
"""

import atexit
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from gradio_client.utils import encode_file_path

__all__ = ["Downloads", "file_name"]

LIFE = 600.0  # seconds; a download that has begun goes on
CAPACITY = 4 << 30  # bytes
PREFIX = "glassbox-"


class Downloads:
    """The files of one program; those that another one left behind are removed as well."""

    def __init__(self, life: float = LIFE, capacity: int = CAPACITY) -> None:
        self.life, self.capacity = life, capacity
        self._folder: Path | None = None
        self._owned: dict[str, Path] = {}  # owner -> the file made last
        self._lock = threading.Lock()
        self.sweep()

    def make(self, name: str, write: Callable[[Path], None], owner: str = "") -> Path:
        """A new file, which `write` writes to the path that it is given; the owner's last one goes.

        Raises RuntimeError when there is no room for it.
        """
        self.sweep()
        try:
            path = self._root() / secrets.token_urlsafe(24) / name
            path.parent.mkdir()
            with ExitStack() as undo:
                undo.callback(shutil.rmtree, path.parent, ignore_errors=True)
                write(path)
                undo.pop_all()
        except OSError as error:
            raise RuntimeError(f"the file could not be written ({error.strerror}); try again later") from error
        self._replace(owner, path)
        timer = threading.Timer(self.life + 1, self.sweep)
        timer.daemon = True
        timer.start()
        return path

    def url(self, path: Path) -> str:
        """Where a file is fetched, relative to the page's address."""
        return f"{API_PREFIX.lstrip('/')}/file={encode_file_path(path)}"

    def sweep(self) -> None:
        """Remove what is too old, then the oldest while the rest takes too much."""
        found = sorted(_folders(), key=lambda item: item[1])
        total = sum(size for _, _, size in found)
        for folder, made, size in found:
            if time.time() - made > self.life or total > self.capacity:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size

    def _root(self) -> Path:
        """This program's folder, which other users of the machine cannot look into."""
        with self._lock:
            if self._folder is None or not self._folder.exists():
                served = Path(get_upload_folder()).absolute()
                served.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=served))
                atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            return self._folder

    def _replace(self, owner: str, path: Path) -> None:
        """Remember the owner's file; without an owner, nobody's goes."""
        with self._lock:
            before = self._owned.get(owner)
            kept = {other: file for other, file in self._owned.items() if other != owner and file.exists()}
            self._owned = {**kept, owner: path} if owner else kept
        if before is not None:
            shutil.rmtree(before.parent, ignore_errors=True)


def file_name(*parts: object, ending: str) -> str:
    """A name for a file made of parts, of which nothing but letters, digits, dots and dashes is left."""
    return "-".join(re.sub(r"[^\w.]+", "-", str(part)).strip("-.") for part in parts) + f".{ending}"


def _folders() -> list[tuple[Path, float, int]]:
    """Each file's folder, of whatever program: when it was made, and its bytes."""
    found = []
    for folder in Path(get_upload_folder()).glob(f"{PREFIX}*/*"):
        try:
            found.append((folder, folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir())))
        except OSError:  # another user's, or gone by now
            continue
    return found
