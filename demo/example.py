"""The conversation that a page opens with: two turns of the default model, recorded with every record.

Nothing in it is made up: `python -m demo.example` has the model write it anew. The page shows it without running the
model; patterns are derived from the tokens as soon as a head is looked at. The first message of a person starts a
conversation of their own.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt.chat import Span
from gpt.engine import Engine
from gpt.sampling import SamplingParams
from gpt.session import Candidate, Session, TokenEvent

__all__ = ["Example", "record"]

FILE = Path(__file__).parent.parent / "assets" / "example.json"
MESSAGES = ("Tell me a two-sentence story about a lighthouse keeper and a fox.", "Why did the fox stay?")
SEED = 7
HEAD = (15, 6)  # layer and head that it opens with
TURNS = (  # settings of each turn, and those from its n-th token on
    (SamplingParams(temperature=0.8, top_k=40, top_p=0.95), 16, {"temperature": 1.2}),
    (SamplingParams(temperature=0.6, top_k=40, top_p=0.95, min_p=0.05), 0, {}),
)


class Example:
    """The recorded conversation, for an engine that runs the model it was recorded with."""

    def __init__(self, engine: Engine, path: Path = FILE) -> None:
        self.engine = engine
        recorded = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self._recorded = recorded if recorded.get("model") == engine.name else None

    @property
    def known(self) -> bool:
        """Whether the conversation was recorded with the engine's model."""
        return self._recorded is not None

    @property
    def selection(self) -> dict[str, int]:
        """What to look at first: how one head, at the last fox, finds the foxes before it."""
        tokens = self._recorded["tokens"]
        (fox,) = self.engine.tokenizer.encode(" fox")
        layer, head = HEAD
        return {"layer": layer, "head": head, "position": max(i for i, token in enumerate(tokens) if token == fox)}

    def fill(self, session: Session) -> Session:
        """Put the conversation into an empty session; nothing of it has been read by the model yet."""
        data = self._recorded
        session.rewrite(data["tokens"], tuple(Span(*span) for span in data["spans"]), data["seed"])
        branch = session.current
        branch.reply_start, branch.finish = data["reply_start"], "end"
        settings = [SamplingParams(**values) for values in data["settings"]]
        for values in data["records"]:
            event = self._event(values, settings)
            branch.records[event.position] = event
        return session

    def _event(self, values: dict[str, Any], settings: list[SamplingParams]) -> TokenEvent:
        piece = self.engine.tokenizer.piece
        candidates = tuple(Candidate(token, piece(token), *rest) for token, *rest in values["candidates"])
        return TokenEvent(**{**values, "candidates": candidates, "params": settings[values["params"]]})


def record(engine: Engine, path: Path = FILE) -> str:
    """Have the engine write the conversation, keep it in `path`, and return its text."""
    session = engine.session(seed=SEED)
    for message, (params, at, change) in zip(MESSAGES, TURNS, strict=True):
        session.params = params
        engine.extend(session, [*engine.messages(session), {"role": "user", "content": message}])
        for n, _ in enumerate(engine.stream(session), 1):
            if n == at:
                session.params = params.replace(**change)
    path.write_text(json.dumps(_plain(session, engine.name), ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    return engine.tokenizer.decode(session.tokens)


def _plain(session: Session, name: str) -> dict[str, Any]:
    events = [event for event in session.records if event is not None]
    settings = list(dict.fromkeys(event.params for event in events))
    return {
        "model": name,
        "seed": session.seed,
        "tokens": session.tokens,
        "spans": [[getattr(span, field.name) for field in fields(span)] for span in session.spans],
        "reply_start": session.reply_start,
        "settings": [params.as_dict() for params in settings],
        "records": [_plain_event(event, settings) for event in events],
    }


def _plain_event(event: TokenEvent, settings: list[SamplingParams]) -> dict[str, Any]:
    candidates = [[c.token, _short(c.raw), _short(c.final), c.removed_by] for c in event.candidates]
    numbers = {"logprob": _short(event.logprob), "entropy": _short(event.entropy)}
    return {**event.as_dict(), **numbers, "candidates": candidates, "params": settings.index(event.params)}


def _short(x: float) -> float:
    return float(f"{x:.6g}")


if __name__ == "__main__":
    from gpt import load

    print(record(load(device="cpu", dtype="float32")))
