"""The models of one program: the one that it was started with, and those that its pages pick.

One is loaded at a time, in a thread of its own, while the others go on serving. It waits for the tab that asked for it;
a load that is cancelled or fails changes nothing. A model is freed when no session is left that was begun with it,
except the one that the program was started with, which is also what the API runs. Where a page can be reached by
others, no model is loaded for whoever asks: the policy says what may be picked.
"""

import atexit
import gc
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from demo.memory import give_back
from demo.running import Running, Wish
from demo.store import PATIENCE, SessionStore
from gpt import load as load_engine
from gpt.catalog import estimate, known
from gpt.engine import Engine
from gpt.threads import use_all_threads

__all__ = ["POLICIES", "Loading", "Models", "policy_of"]

POLICIES = ("any", "catalog", "fixed")  # anything that `gpt.load` takes; what the catalog lists; nothing
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETTLE = 1.0  # seconds until whoever was using a model has let go of it

LOADING, READY, FAILED = "loading", "ready", "failed"


class _Cancelled(Exception):
    """Raised inside `gpt.load` to end it."""


@dataclass(eq=False)
class Loading:
    """A model that was asked for: how far it is, then the model or why it is none."""

    wish: Wish
    sid: str
    state: str = LOADING
    stage: str = ""
    done: int = 0  # bytes
    total: int = 0
    error: str = ""
    running: Running | None = None
    wanted: bool = True

    def tell(self, stage: str, done: int, total: int) -> None:
        """What `gpt.load` is given to report progress to. Raises to end it when it was cancelled."""
        if not self.wanted:
            raise _Cancelled
        self.stage, self.done, self.total = stage, done, total

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = {name: getattr(self, name) for name in ("state", "stage", "done", "total", "error")}
        return {"name": self.wish.name, "cancelled": not self.wanted, **plain}


class Models:
    """What is loaded, and what is being loaded. Safe to use from any thread.

    load: as `gpt.load`; tests give another one.
    """

    def __init__(
        self, default: Running, store: SessionStore, policy: str = "fixed", load: Callable[..., Engine] = load_engine
    ) -> None:
        self.default, self.store, self.policy, self._load = default, store, policy, load
        self._loads: dict[str, Loading] = {}  # by the session whose page asked; what it has not used yet
        self._lock = threading.Lock()

    def loaded(self) -> list[Running]:
        """The default model, and those that a session holds or a page is about to use."""
        waiting = [load.running for load in list(self._loads.values()) if load.running]
        return list(dict.fromkeys([self.default, *self.store.running(), *waiting]))

    def begin(self, wish: Wish, sid: str) -> Loading:
        """Load a model for a session's page, at once ready if it is loaded already.

        Raises ValueError for what the policy does not allow, RuntimeError while another is loading and for what does
        not fit beside the models that are loaded; as `catalog.estimate` for what cannot be found.
        """
        self.check(wish)
        found = self._find(wish)
        if found is None:
            _check_room(wish)
        with self._lock:
            busy = next((load for load in self._loads.values() if load.state == LOADING), None)
            if busy and (not found or busy.sid == sid):
                raise RuntimeError(f"{busy.wish.name} is being loaded; wait until it is ready, or cancel it")
            load = self._loads[sid] = Loading(wish, sid, READY if found else LOADING, running=found)
        if not found:
            thread = threading.Thread(target=self._run, args=(load,), daemon=True)
            _threads[thread] = load
            thread.start()
        return load

    def check(self, wish: Wish) -> None:
        """Raise ValueError for a model that may not be picked here."""
        if self.policy == "fixed":
            raise ValueError("the model of this page is fixed; its owner can allow others with --models")
        if self.policy == "catalog" and (wish.revision or wish.name.lower() not in {entry.name for entry in known()}):
            raise ValueError(f"only models of the list can be picked on this page, and {wish.name!r} is none of them")

    def of(self, sid: str) -> dict[str, Any] | None:
        """How far the model is that a session's page asked for; of another page's only that it is being loaded."""
        load = self._loads.get(sid)
        if load is not None:
            return load.as_dict()
        others = (load.wish.name for load in list(self._loads.values()) if load.state == LOADING)
        return next(({"name": name, "state": "busy"} for name in others), None)

    def ready(self, sid: str) -> Running:
        """The model that a session's page has asked for. Raises ValueError while there is none."""
        load = self._loads.get(sid)
        if load is None or load.running is None:
            raise ValueError("there is no model that is ready to be used; load one first")
        return load.running

    def drop(self, sid: str) -> None:
        """End or forget what a session's page asked for."""
        with self._lock:
            load = self._loads.get(sid)
            if load is None:
                return
            load.wanted = False
            if load.state != LOADING:
                del self._loads[sid]
        _release_soon()

    def tidy(self) -> None:
        """Forget what was asked for by sessions that have gone, and give memory back."""
        for sid in [sid for sid in list(self._loads) if not self.store.holds(sid)]:
            self.drop(sid)
        _release_soon()

    def _find(self, wish: Wish) -> Running | None:
        return next((running for running in self.loaded() if running.wish == wish), None)

    def _run(self, load: Loading) -> None:
        """The thread: whatever happens, the load ends in a state that says so."""
        use_all_threads()
        error, engine, wish = "this model could not be loaded; the terminal says why", None, load.wish
        try:
            query_bytes = self.default.engine.query_bytes
            engine = self._load(wish.name, wish.device, wish.dtype, load.tell, query_bytes, wish.revision)
        except _Cancelled:
            pass
        except (ValueError, RuntimeError, OSError, MemoryError) as failure:
            error = str(failure) or "there is not enough memory for this model"
        finally:
            self._end(load, engine, error)
            _threads.pop(threading.current_thread(), None)

    def _end(self, load: Loading, engine: Engine | None, error: str) -> None:
        with self._lock:
            if not load.wanted:
                if self._loads.get(load.sid) is load:
                    del self._loads[load.sid]
            elif engine is None:
                load.state, load.error = FAILED, error
            else:
                load.state, load.running = READY, Running(engine, wish=load.wish)
        if load.running is None:
            _release_soon()


_threads: dict[threading.Thread, Loading] = {}


@atexit.register
def _end_all() -> None:
    """End what is still loading: a thread that the interpreter stops inside torch takes the program down."""
    for thread, load in list(_threads.items()):
        load.wanted = False
        thread.join(PATIENCE)


def policy_of(asked: str | None, host: str | None, share: object) -> str:
    """The policy that was asked for; else "any" on a page that only this machine can reach, "fixed" on any other.

    Raises ValueError for one that does not exist.
    """
    if asked:
        if asked not in POLICIES:
            raise ValueError(f"models must be one of {', '.join(POLICIES)}, got {asked!r}")
        return asked
    host = host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK[0]
    return "fixed" if share or host not in LOOPBACK or os.environ.get("SPACE_ID") else "any"


def _check_room(wish: Wish) -> None:
    """Raise RuntimeError for a model that does not fit beside what is loaded; as `catalog.estimate`."""
    needed = estimate(wish.name, wish.dtype, wish.device, wish.revision)
    for what, need, free in (
        ("memory", needed.memory or 0, needed.free_memory),
        ("disk space", needed.download, needed.free_disk),
    ):
        if need > free:
            raise RuntimeError(
                f"{wish.name} needs {need / 1e6:,.0f} MB of {what}, but only {free / 1e6:,.0f} MB are free beside what "
                "is loaded; choose a smaller one"
            )


def _release_soon() -> None:
    """Give memory back to the system, as soon as whoever calls this holds nothing any more."""
    timer = threading.Timer(SETTLE, _release)
    timer.daemon = True
    timer.start()


def _release() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    give_back()
