"""The hub's library at work: files fetched in a thread that can be watched and stopped, errors in one sentence.

The library tells bytes to what it takes for a tqdm class, one for each file, on threads of its own. Source:
huggingface_hub 2.4 (`hf_hub_download`, what it asks of a progress bar, its errors).
"""

import contextlib
import errno
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from gpt.fetching import FetchError, NoSuchModel

__all__ = ["Meter", "plainly", "watched"]

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Stopped(Exception):
    """Ends the library's work from inside its progress bar."""


class Meter:
    """Counts the bytes of some files (name -> bytes in all) while the library fetches them, and stops it."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes, self.arrived = sizes, dict.fromkeys(sizes, 0)
        self.total = sum(sizes.values())
        self.stopped = False

    @property
    def done(self) -> int:
        return sum(min(self.arrived[name], size) for name, size in self.sizes.items())

    def stop(self) -> None:
        """Let the fetching end at its next byte."""
        self.stopped = True
        if "hf_xet" in sys.modules:  # it fetches on threads that no exception reaches
            from huggingface_hub.utils._xet import abort_xet_session

            abort_xet_session()

    def tell(self, name: str, count: int) -> None:
        self.arrived[name] = count
        if self.stopped:
            raise _Stopped

    def bar(self, name: str) -> type["_Bar"]:
        """What the library takes for a tqdm class, for one file."""
        return type("Bar", (_Bar,), {"meter": self, "name": name})


class _Bar:
    """As much of a tqdm as the library asks for. It tells bytes that were written, and those that came over the net."""

    meter: Meter
    name: str

    def __init__(self, *_: Any, **options: Any) -> None:
        self.total = options.get("total")
        self.written, self.received = options.get("initial") or 0, 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        self.written += int(n or 0)
        self.meter.tell(self.name, max(self.written, self.received))

    def update_transfer(self, n: float | None = 1) -> None:
        self.received += int(n or 0)
        self.meter.tell(self.name, max(self.written, self.received))

    def set_postfix_str(self, *_: Any, **__: Any) -> None:
        pass

    set_transfer_postfix_str = set_postfix_str


def watched(work: Callable[[], T], report: Callable[[], None], stop: Callable[[], None] = lambda: None) -> T:
    """The value of `work`, done in another thread while `report` is called here, ten times a second.

    What `report` raises, or Ctrl-C, ends the waiting at once. `stop` then tells the work, which is given a second to
    clean up; where the network hangs it takes longer, out of sight, and a program that ends does not wait for it.
    """
    future: Future[T] = Future()
    thread = threading.Thread(target=_settle, args=(future, work), daemon=True)
    thread.start()
    try:
        while not wait([future], timeout=0.1).done:
            report()
    finally:
        if not future.done():
            stop()
            thread.join(1)
    return future.result()


def _settle(future: Future, work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # handed on, whatever it is, to the thread that waits
        future.set_exception(error)


@contextlib.contextmanager
def plainly(repo: str, revision: str | None) -> Iterator[None]:
    """What the library raises inside becomes a FetchError of one sentence that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, RuntimeError, ValueError) as error:
        causes = list(_causes(error))
        known = (_refusal(repo, revision, cause) for cause in causes)
        said = next(filter(None, known), None) or _trouble(repo, causes)
        unknown = any(type(cause) is errors.RepositoryNotFoundError for cause in causes)  # a gated one is a kind of it
        raise (NoSuchModel if unknown else FetchError)(said) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _refusal(repo: str, revision: str | None, error: BaseException) -> str | None:
    """What the hub answered, if that is what `error` is about."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated: accept its licence at {hub}/{repo}, then set HF_TOKEN to a token of your account, "
            "or run `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no model {repo} at {hub}, nor a folder of that name here, or it is private; "
            "check the name, or set HF_TOKEN to a token that may read it."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; give a branch, a tag or a commit that {hub}/{repo} lists."
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} cannot be a name at {hub}: {_first_line(error)}"
    if not isinstance(error, errors.HfHubHTTPError) or error.response is None:
        return None
    said = {
        401: "refuses the token; check HF_TOKEN, or run `hf auth login`",
        403: "does not let this token read it; check what the token in HF_TOKEN may do",
        404: "lacks a file that it listed; try again",
        429: "has had too many requests; wait a few minutes, or set HF_TOKEN",
    }
    reason = said.get(error.response.status_code)
    return f"{repo} cannot be fetched: {hub} {reason}." if reason else None


def _trouble(repo: str, causes: list[BaseException]) -> str:
    """What else went wrong: the disk, the network, the setting that forbids it."""
    from huggingface_hub import constants, errors

    hub, cache, last = constants.ENDPOINT, constants.HF_HUB_CACHE, causes[-1]
    if any(isinstance(cause, OSError) and cause.errno in _FULL for cause in causes) or "No space left" in str(last):
        return f"the disk is full: free space for {repo} in {cache}, or set HF_HOME to a larger disk."
    if any(isinstance(cause, PermissionError) for cause in causes):
        return f"{repo} cannot be kept in {cache} ({_first_line(last)}); set HF_HOME to a folder that can be written."
    rest = f"and {repo} is not whole in {cache}; connect to the network, or give a folder or .gguf file that is here."
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return f"HF_HUB_OFFLINE is set, {rest.replace('connect to the network', 'unset it')}"
    return f"{hub} cannot be reached or broke off ({_first_line(last)}), {rest}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
