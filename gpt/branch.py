"""One line of a conversation: its tokens, and of each that was chosen the record of how.

Plain values without behaviour of a model: sessions own branches, the engine makes records.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpt.chat import Span
from gpt.params import SamplingParams
from gpt.sampling import Stage

__all__ = ["Branch", "Candidate", "TokenEvent", "common_prefix"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One token that could have come: probability before (`raw`) and after the filters (`final`, 0 if removed)."""

    token: int
    text: str
    raw: float
    final: float
    removed_by: str | None


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """Everything about one chosen token, as plain values.

    `text` is what the token completes (empty inside a character, or held back as the start of a stop string).
    `logprob` and `entropy` are in nats and, like `rank` (1 = most probable), belong to the model's distribution
    before any filter; `final_logprob` to the one that was drawn from (-inf for a removed token chosen by hand).
    `u` is the draw in [0, 1) that `seed` gives for this position, None when the token was chosen by hand. `params`
    made this token; `stages` tell what each active filter left, `ignored` which ones could not be applied here.
    `mu` is mirostat's state after it, None while that is off. `seconds` passed since the token before, or since the
    reply was asked for. `finish` is set on the last one.
    """

    position: int
    token: int
    text: str
    logprob: float
    rank: int
    entropy: float
    candidates: tuple[Candidate, ...]
    u: float | None
    params: SamplingParams
    finish: str | None = None
    final_logprob: float = 0.0
    seed: int = 0
    stages: tuple[Stage, ...] = ()
    ignored: tuple[str, ...] = ()
    mu: float | None = None
    seconds: float = field(default=0.0, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, which has no infinity: a removed token's final_logprob is None."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        candidates = [{name: getattr(c, name) for name in Candidate.__slots__} for c in self.candidates]
        stages = [{name: getattr(stage, name) for name in Stage.__slots__} for stage in self.stages]
        final = self.final_logprob if math.isfinite(self.final_logprob) else None
        lists = {"candidates": candidates, "stages": stages, "ignored": list(self.ignored)}
        return {**plain, **lists, "final_logprob": final, "params": self.params.as_dict()}


@dataclass(eq=False)
class Branch:
    """One line of the conversation. `records[i]` tells how tokens[i] was chosen, None if it was given.

    `spans` cover the tokens before `reply_start`; from there on stands the reply that is being written. `forced` are
    tokens chosen by hand that the next steps take instead of drawing.
    """

    tokens: list[int] = field(default_factory=list)
    records: list[TokenEvent | None] = field(default_factory=list)
    spans: tuple[Span, ...] = ()
    reply_start: int = 0
    seed: int = 0
    finish: str | None = None
    parent: int | None = None
    forked_at: int = 0
    budget_start: int = 0  # max_new_tokens counts from here
    name: str = ""  # what a person calls it
    forced: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()  # how the model had read it when it was left: KVCache.boundaries

    def before(self, position: int, **changes: Any) -> "Branch":
        """A copy of the first `position` tokens; an assistant's reply that is cut open there becomes the reply."""
        spans, reply_start = _cut_spans(self.spans, position, self.reply_start)
        kept = replace(
            self,
            tokens=self.tokens[:position],
            records=self.records[:position],
            spans=spans,
            reply_start=reply_start,
            finish=None,
            budget_start=position,
            name="",
            forced=(),
        )
        return replace(kept, **changes)

    def reply_start_at(self, position: int) -> int:
        """Where the reply begins that the token at `position` belongs to; `position` itself for a token of none.

        The token that ends a reply belongs to it, though it is the template's once another message follows.
        """
        if position >= self.reply_start:
            return self.reply_start
        inside = (s.start for s in self.spans if s.role == "assistant" and s.start <= position <= s.end)
        return next(inside, position)

    @property
    def can_go_on(self) -> bool:
        """Whether more tokens may follow: the reply has not begun, was stopped, or ran into its length."""
        return bool(self.tokens) and self.finish in (None, "stopped", "length")


def _cut_spans(spans: tuple[Span, ...], position: int, reply_start: int) -> tuple[tuple[Span, ...], int]:
    if position >= reply_start:
        return spans, reply_start
    for index, span in enumerate(spans):
        if span.role == "assistant" and span.start <= position <= span.end:
            return spans[:index], span.start
    raise ValueError(f"token {position} stands in the prompt; a conversation can be cut open in a reply only")


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)
