"""The model picker's server functions: what can be picked, what it takes, loading it, and going over to it."""

from collections.abc import Callable
from dataclasses import asdict

import torch

from demo.args import Args, Invalid, Reply, whole_characters
from demo.carry import switch
from demo.rpc import Server, answered
from demo.running import Running, Wish
from gpt.catalog import Entry as Listed
from gpt.catalog import estimate, known

__all__ = ["Picker"]

SHOWN = ("name", "title", "size", "parameters", "licence", "good_for", "good_for_zh", "chinese", "chat", "gated")
DTYPES = ("stored", "float32", "bfloat16", "float16")
LONGEST = 1000  # characters of a name


class Picker:
    """A model comes as {name, revision, device, dtype}; all but the name may be missing."""

    def __init__(self, server: Server) -> None:
        self.server, self.models = server, server.models

    def functions(self) -> list[Callable]:
        methods = (self.picker, self.estimate_model, self.load_model, self.load_state, self.cancel_load)
        return [answered(method) for method in (*methods, self.use_model)]

    def picker(self, args: Args) -> Reply:
        """What may be picked, what is listed, and what this page runs."""
        entry = self.server.entry(args)
        wish = entry.running.wish
        return {
            "policy": self.models.policy,
            "current": asdict(wish) if wish else None,
            "loaded": [_loaded(running) for running in self.models.loaded() if running.wish],
            "list": [_listed(entry) for entry in known()] if self.models.policy != "fixed" else [],
            "devices": _devices(),
            "dtypes": list(DTYPES),
            "load": self.models.of(entry.sid),
        }

    def estimate_model(self, args: Args) -> Reply:
        """What loading a model takes and what there is, in bytes; `memory` is null where that is not known.

        `precision` is what it would be held in.
        """
        self.server.entry(args)
        wish = self._wish(args)
        if any(running.wish == wish for running in self.models.loaded()):
            return {"loaded": True}
        needed = estimate(wish.name, wish.dtype, wish.device, wish.revision)
        names = ("download", "memory", "free_memory", "free_disk", "precision")
        values = {name: getattr(needed, name) for name in names}
        return {**values, "loaded": False}

    def load_model(self, args: Args) -> Reply:
        """Begin to load a model; this page's own goes on meanwhile."""
        entry = self.server.entry(args)
        return {"load": self.models.begin(self._wish(args), entry.sid).as_dict()}

    def load_state(self, args: Args) -> Reply:
        """How far the model is that this page asked for, or null."""
        return {"load": self.models.of(self.server.entry(args).sid)}

    def cancel_load(self, args: Args) -> Reply:
        """End loading, or forget a model that is ready or has failed."""
        entry = self.server.entry(args)
        self.models.drop(entry.sid)
        return {"load": self.models.of(entry.sid)}

    def use_model(self, args: Args) -> Reply:
        """Go over to the model that is ready; `carry` takes the conversation along. Answers with the new session."""
        entry, carry = self.server.entry(args), args.get("carry", False)
        if not isinstance(carry, bool):
            raise Invalid(f"carry must be true or false, got {carry!r}", "carry")
        made, cut = switch(self.server.store, entry, self.models.ready(entry.sid), carry)
        return {"sid": made.sid, "name": made.engine.name, **({"cut": [cut.messages, cut.tokens]} if cut else {})}

    def _wish(self, args: Args) -> Wish:
        """The model that is meant. Raises Invalid, and ValueError for one that may not be picked here."""
        name = _text(args, "name")
        if name is None:
            raise Invalid("Choose a model, or type its name.", "name")
        device, dtype = _text(args, "device"), _text(args, "dtype")
        if dtype not in (None, *DTYPES):
            raise Invalid(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}", "dtype")
        if device not in (None, *_devices()):
            raise Invalid(f"device must be one of {', '.join(_devices())}, got {device!r}", "device")
        wish = Wish(name, device, dtype, _text(args, "revision"))
        self.models.check(wish)
        return wish


def _text(args: Args, name: str) -> str | None:
    """The text `args[name]` without white space around it, None when there is none. Raises Invalid."""
    value = args.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST:
        raise Invalid(f"{name} must be a text of at most {LONGEST} characters", name)
    return whole_characters(value.strip()) or None


def _listed(entry: Listed) -> Reply:
    return {**{name: getattr(entry, name) for name in SHOWN}, "here": entry.is_here}


def _loaded(running: Running) -> Reply:
    engine = running.engine
    return {
        **asdict(running.wish),
        "title": engine.name,
        "bytes": engine.model.nbytes(),
        "chat": engine.chat is not None,
    }


def _devices() -> list[str]:
    """Where a model can run on this machine."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
