"""The choice of a token: how the filters shaped it or would shape it, every token there is, and another one instead.

Nothing is run: logits come from the hidden states that were kept, and those of the position that was asked for last
are kept, so that moving a slider costs the filters only.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from demo.args import Args, Invalid, Reply, patched, token_ids, whole
from demo.rpc import Server, answered
from demo.store import Entry
from demo.wire import short
from gpt.branch import Candidate
from gpt.chooser import Choice
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["Choices"]

TOP = 20  # candidates unless more are asked for
MOST = 200  # candidates at most
FOUND = 40  # tokens that a search shows unless more are asked for
STRUCK = 6  # removed tokens that a stage names


class Choices:
    """A position is that of the token which is chosen; the one after the last token is the choice that comes next."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        return [answered(method) for method in (self.resolve, self.shape, self.search, self.fork)]

    def resolve(self, args: Args) -> Reply:
        """How a text splits into tokens; for token ids, what they say."""
        engine = self.server.entry(args).engine
        ids = token_ids({"tokens": args.get("tokens"), "text": args.get("text") or ""}, engine)
        return {"tokens": [[token, engine.tokenizer.piece(token)] for token in ids]}

    def shape(self, args: Args) -> Reply:
        """What each filter makes of the choice at a position, under the settings in force, others, or its own."""
        n = whole(args, "n", 1, MOST, TOP)
        entry, choice = self._choice(args)
        token, shaped = choice.token, choice.shaped
        others = [choice.drawn] if token is None else [token, choice.drawn]
        candidates = entry.engine.chooser.candidates(shaped, shaped.top(n), others)
        made = _made(entry.session, choice.position)
        return {
            "position": choice.position,
            "epoch": entry.epoch,
            "token": token,
            "given": token is not None and made is None,
            "same": choice.params == (made or entry.session.params),
            "params": choice.params.as_dict(),
            "u": choice.u,
            "coin": choice.step.coin,
            "drawn": choice.drawn,
            "entropy": short(shaped.entropy),
            "rank": None if token is None else shaped.rank(token),
            "cand": [_values(candidate) for candidate in candidates],
            "ignored": list(shaped.ignored),
            "stages": _stages(entry.engine, choice, [candidate.token for candidate in candidates]),
        }

    def search(self, args: Args) -> Reply:
        """The tokens whose text holds `query`, or whose id it is after a #; the most probable ones first."""
        self.server.entry(args)
        query, limit = args.get("query"), whole(args, "limit", 1, MOST, FOUND)
        if not isinstance(query, str) or not query:
            raise Invalid("Type a part of the token, or # and its id.", "query")
        entry, choice = self._choice(args)
        found = torch.tensor(_holding(query, entry.running.folded), dtype=torch.int64)
        order = choice.shaped.probs[found].sort(descending=True, stable=True).indices[:limit]
        candidates = entry.engine.chooser.candidates(choice.shaped, found[order].tolist())
        listed = [[*_values(c), choice.shaped.rank(c.token)] for c in candidates]
        return {"cand": listed, "more": len(found) - len(listed)}

    def fork(self, args: Args) -> Reply:
        """Put other tokens at a position and go on from there, or draw anew from there on; the old branch stays."""
        tokens = token_ids(args, self.server.entry(args).engine)

        def how(entry: Entry) -> None:
            entry.session.fork(_position(args, entry, 0), tokens)

        def check(entry: Entry) -> None:
            position, records = _position(args, entry, 0), entry.session.records
            if position < len(records) and records[position] is None:
                raise Invalid("This token was not sampled; choose a token of a reply.", "position")

        return self.server.change(args, how, check)

    # ---- looking at a choice -------------------------------------------------------------------------------

    def _choice(self, args: Args) -> tuple[Entry, Choice]:
        entry = self.server.read(args)
        position = _position(args, entry, 1)
        params = patched(entry.engine, self._base(args, entry, position), args.get("params") or {})
        logits = self._logits(entry, position)
        return entry, entry.engine.distribution(entry.session, position, params, logits)

    def _base(self, args: Args, entry: Entry, position: int) -> SamplingParams:
        base = args.get("base", "now")
        if base not in ("now", "made"):
            raise Invalid(f"base must be 'now' or 'made', got {base!r}", "base")
        return (base == "made" and _made(entry.session, position)) or entry.session.params

    def _logits(self, entry: Entry, position: int) -> Tensor:
        key = (entry.epoch, position)
        if entry.logits is None or entry.logits[0] != key:
            entry.logits = (key, entry.source.logits(entry.session, position))
        return entry.logits[1]


# ---- what is shown of it -----------------------------------------------------------------------------------


def _stages(engine: Engine, choice: Choice, candidates: list[int]) -> list[Reply]:
    shaped, before = choice.shaped, choice.shaped.probs
    tokens = before.numel()
    stages = [_stage("model", tokens, 1.0, before[candidates])]
    for number, (stage, after) in enumerate(zip(shaped.stages, shaped.trail, strict=True)):
        gone = torch.from_numpy(shaped.gone_by) == number
        struck = [[t, engine.tokenizer.piece(t), short(float(before[t]))] for t in _likeliest(before, gone)]
        made = _stage(stage.name, stage.tokens, stage.kept, after[candidates])
        more = {"removed": struck, "n_removed": tokens - stage.tokens, **_note(choice, stage.name, before, after)}
        stages.append(made | more)
        before, tokens = after, stage.tokens
    return stages


def _holding(query: str, folded: list[str]) -> list[int]:
    """The tokens, of these texts, that hold a text, or the one whose id it is after a #."""
    if query[0] == "#" and query[1:].isdecimal():
        token = int(query[1:9])
        return [token] if token < len(folded) else []
    query = query.casefold()
    return [token for token, text in enumerate(folded) if query in text]


def _position(args: Args, entry: Entry, least: int) -> int:
    return whole(args, "position", least, max(entry.shown, least))


def _made(session: Session, position: int) -> SamplingParams | None:
    record = session.records[position] if position < len(session.records) else None
    return None if record is None else record.params


def _values(candidate: Candidate) -> list:
    raw, final = short(candidate.raw), short(candidate.final)
    return [candidate.token, candidate.text, raw, final, candidate.removed_by or ""]


def _stage(name: str, tokens: int, kept: float, probs: Tensor) -> Reply:
    probabilities = [short(p) for p in probs.tolist()]
    return {"name": name, "tokens": tokens, "kept": short(kept), "probs": probabilities, "removed": [], "n_removed": 0}


def _likeliest(probs: Tensor, of: Tensor) -> list[int]:
    """The most probable of some tokens, given as (V,) bool."""
    tokens = of.nonzero().squeeze(1)
    return tokens[probs[tokens].sort(descending=True, stable=True).indices[:STRUCK]].tolist()


def _note(choice: Choice, name: str, before: Tensor, after: Tensor) -> Reply:
    """What a filter decided by besides the probabilities."""
    step, params = choice.step, choice.params
    if name == "xtc":
        return {"note": {"coin": step.coin}}
    if name == "mirostat":
        return {"note": {"mu": short(2 * params.mirostat_tau if step.mu is None else step.mu)}}
    if name == "temperature":
        return {"note": {"value": _temperature(before, after) if params.dynatemp_range else params.temperature}}
    return {}


def _temperature(before: Tensor, after: Tensor) -> float | None:
    """The temperature that leads from one distribution to the other; None where all are equally probable."""
    probs, tokens = after.topk(min(TOP, after.numel()))
    if probs[1:].sum() == 0:
        return 0.0
    last = int((probs > 0).sum()) - 1
    then, now = (float((p[tokens[0]] / p[tokens[last]]).log()) for p in (before, after))
    return short(then / now) if now > 0 else None
