"""The sampling panel's server functions: parameters and seed, in force from the next token on."""

from collections.abc import Callable

from demo.rpc import Args, Invalid, Reply, Server, answered, seed_of
from gpt.sampling import SamplingParams

__all__ = ["Sampling"]


class Sampling:
    """Neither waits for the reply that is being written."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.set_params, self.set_seed)]

    def set_params(self, args: Args) -> Reply:
        """Change the parameters that are named."""
        entry = self.server.entry(args)
        patch = {name: value for name, value in args.items() if name != "sid"}
        entry.set_params(_patched(entry.session.params, patch))
        return {"params": entry.session.params.as_dict()}

    def set_seed(self, args: Args) -> Reply:
        """Change the seed."""
        session = self.server.entry(args).session
        session.seed = seed_of(args, session.seed)
        return {"seed": session.seed}


def _patched(params: SamplingParams, patch: Args) -> SamplingParams:
    """Raises Invalid with the name of the first value that is wrong."""
    for name, value in patch.items():
        try:
            params = params.replace(**{name: value})
        except (TypeError, ValueError) as error:
            raise Invalid(str(error), name) from error
    return params
