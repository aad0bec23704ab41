"""Several replies to one prompt, written beside each other in shared steps, of which one is picked."""

from collections.abc import Callable

from demo.args import MAX_SEED, Args, Invalid, Reply, patched, text, whole
from demo.rpc import Server, answered
from demo.store import Entry, Samples
from gpt.conversation import Cut
from gpt.params import LIMITS, SamplingParams
from gpt.session import SAMPLES

__all__ = ["Sampler"]


class Sampler:
    """While replies stand beside each other, the reply that was there before stays behind them."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.samples, self.pick_sample, self.drop_samples)]

    def samples(self, args: Args) -> Reply:
        """Write from 2 to 8 replies to a new message, or the last reply anew, each with its own seed or setting."""
        entry = self.server.entry(args)
        content = None if args.get("text") is None else text(args, "text")
        asked = self._asked(args, entry)

        def how(entry: Entry) -> Cut | None:
            cut = None if content is None else self.server.ask(entry, content, None, None)
            entry.samples = asked
            return cut

        def check(entry: Entry) -> None:
            if content is not None:
                self.server.check_fits(entry, self.server.asked(entry, content, None))
            elif not entry.session.tokens:
                raise Invalid("There is nothing to answer; write a message first.", "text")

        reply = self.server.change(args, how, check)
        return {**reply, "samples": [self._line(asked, k, entry.session.params) for k in range(len(asked.seeds))]}

    def pick_sample(self, args: Args) -> Reply:
        """Go on with one of the replies; the others stay as branches."""
        entry = self.server.entry(args)
        samples = entry.samples
        if samples is None or not samples.sessions:
            raise Invalid("There are no replies beside each other.", "k")
        k = whole(args, "k", 0, len(samples.sessions) - 1)
        if len(samples.sessions[k].tokens) <= entry.session.reply_start:
            raise Invalid("This reply has not begun yet; wait for its first token.", "k")

        def how(entry: Entry) -> None:
            entry.session.gather(samples.sessions, k)
            entry.rest()

        return {**self.server.change(args, how), "run": None}

    def drop_samples(self, args: Args) -> Reply:
        """Show the reply again that was there before."""
        if self.server.entry(args).samples is None:
            return {}
        return {**self.server.change(args, Entry.rest), "run": None}

    def _asked(self, args: Args, entry: Entry) -> Samples:
        n = whole(args, "n", *SAMPLES)
        ladder, values = self._ladder(args.get("ladder"), n, entry)
        step = 0 if ladder else 1  # where a setting differs, the draws are the same
        seeds = args.get("seeds")
        if seeds is None:
            seeds = [(entry.session.seed + step * k) % (MAX_SEED + 1) for k in range(n)]
        if not isinstance(seeds, list) or len(seeds) != n:
            raise Invalid(f"seeds must be a list of {n} whole numbers, got {seeds!r}", "seeds")
        return Samples(tuple(whole({"seeds": s}, "seeds", 0, MAX_SEED) for s in seeds), ladder, values)

    def _ladder(self, ladder: object, n: int, entry: Entry) -> tuple[str, tuple]:
        if ladder is None:
            return "", ()
        name, values = (ladder.get("name"), ladder.get("values")) if isinstance(ladder, dict) else (None, None)
        if name not in list(LIMITS) or not isinstance(values, list) or len(values) != n:
            raise Invalid(f'ladder must be {{"name": a number among the parameters, "values": {n} values}}', "ladder")
        params = entry.session.params
        return name, tuple(getattr(patched(entry.engine, params, {name: value}), name) for value in values)

    def _line(self, samples: Samples, k: int, params: SamplingParams) -> Reply:
        return {"k": k, "seed": samples.seeds[k], "temperature": samples.params(k, params).temperature}
