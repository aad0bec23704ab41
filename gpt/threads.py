"""How many processor threads a piece of work takes.

Beside the helpers of the kernels (pool.h) torch does best on one thread: its others would be woken for every small
operation, and be in the way of the helpers. But torch keeps its number for each thread of Python, and a new one begins
with the number that was set last, anywhere. So whoever wants all threads says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["all_threads", "one_thread", "use_all_threads"]

_all = 0  # not known before `one_thread` is first used


def all_threads() -> int:
    """The number that torch was given before anybody here changed it."""
    return _all or torch.get_num_threads()


def use_all_threads() -> None:
    """Let torch work on all threads, for this thread of Python."""
    torch.set_num_threads(all_threads())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread for as long as this lasts, for this thread of Python."""
    global _all
    before = torch.get_num_threads()
    _all = _all or before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
