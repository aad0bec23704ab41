"""The conversation that a page opens with: two turns of the default model, saved with every record.

Nothing in it is made up: `python -m demo.example` has the model write it anew. The page shows it without running the
model; patterns are derived from the tokens as soon as a head is looked at. The first message of a person starts a
conversation of their own.
"""

import json
from pathlib import Path
from typing import Any

from demo.running import Source
from demo.wire import short
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.record import from_record, to_record
from gpt.session import Session

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

    def __init__(self, path: Path = FILE) -> None:
        self._recorded = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def known(self, engine: Engine) -> bool:
        """Whether the conversation was recorded with the engine's model."""
        return self._recorded.get("model") == engine.name

    def selection(self, engine: Engine) -> dict[str, int]:
        """What to look at first: how one head, at the last fox, finds the foxes before it."""
        tokens = self._recorded["branches"][0]["tokens"]
        (fox,) = engine.tokenizer.encode(" fox")
        layer, head = HEAD
        return {"layer": layer, "head": head, "position": max(i for i, token in enumerate(tokens) if token == fox)}

    def open(self, source: Source, params: SamplingParams) -> Session:
        """The conversation, of which the model has read nothing yet, to be gone on with under `params`."""
        session = from_record(source, self._recorded)
        session.params = params
        return session


def record(engine: Engine, path: Path = FILE) -> str:
    """Have the engine write the conversation, keep it in `path`, and return its text."""
    session = engine.session(seed=SEED)
    for message, (params, at, change) in zip(MESSAGES, TURNS, strict=True):
        session.params = params
        engine.extend(session, [*engine.messages(session), {"role": "user", "content": message}])
        for n, _ in enumerate(engine.stream(session), 1):
            if n == at:
                session.params = params.replace(**change)
    values = to_record(session, engine.name)
    values["records"] = [_rounded(event) for event in values["records"]]
    path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
    return engine.tokenizer.decode(session.tokens)


def _rounded(event: dict[str, Any]) -> dict[str, Any]:
    """A record with six digits of everything that was measured: the draw stays exact."""
    numbers = {n: short(event[n]) for n in ("logprob", "final_logprob", "entropy", "seconds") if event[n] is not None}
    candidates = [[token, text, short(raw), short(final), by] for token, text, raw, final, by in event["candidates"]]
    stages = [[name, tokens, short(kept)] for name, tokens, kept in event["stages"]]
    return {**event, **numbers, "candidates": candidates, "stages": stages}


if __name__ == "__main__":
    from gpt import load

    print(record(load(device="cpu", dtype="float32")))
