"""What a command tells people on standard error while they wait for a model.

On a terminal it is one line a stage, written over; in a file, a line when something is waited for or downloaded.
"""

import sys
from typing import TextIO

__all__ = ["Teller"]

_SLOW = ("wait", "download")  # stages that a log should show


class Teller:
    """To be called as `progress(stage, done, total)`, in bytes, as often as one likes, inside a `with`."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._stage = self._line = ""

    def __enter__(self) -> "Teller":
        return self

    def __exit__(self, *_: object) -> None:
        self._out.write("\n" if self._line else "")  # whatever comes next begins a line

    def __call__(self, stage: str, done: int, total: int) -> None:
        line, new = f"{stage}: {_share(done, total)}", stage != self._stage
        if line == self._line or not (self._out.isatty() or (new and stage in _SLOW)):
            return
        begin = ("\n" if self._line else "") if new else "\r"
        self._stage, self._line = stage, line
        self._out.write(f"{begin}{line}  ")
        self._out.flush()


def _share(done: int, total: int) -> str:
    """ "31 % of 98 MB"; "..." where nobody knows how much there is."""
    return f"{100 * done / total:.0f} % of {total / 1e6:.0f} MB" if total > 1 else "..."
