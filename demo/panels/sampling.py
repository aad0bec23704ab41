"""The sampling panel's server functions: parameters and seed, in force from the next token on."""

from collections.abc import Callable

from demo.args import Args, Reply, patched, seed_of
from demo.rpc import Server, answered

__all__ = ["Sampling"]


class Sampling:
    """Neither waits for the reply that is being written."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.set_params, self.set_seed)]

    def set_params(self, args: Args) -> Reply:
        """Change the parameters that are named, all of them or, when one is wrong, none."""
        entry = self.server.entry(args)
        patch = {name: value for name, value in args.items() if name != "sid"}
        with entry.patching:  # of two changes at the same time none is lost
            entry.set_params(patched(entry.engine, entry.session.params, patch))
            return {"params": entry.session.params.as_dict()}

    def set_seed(self, args: Args) -> Reply:
        """Change the seed."""
        session = self.server.entry(args).session
        session.seed = seed_of(args, session.seed)
        return {"seed": session.seed}
