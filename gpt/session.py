"""A conversation as the model sees it: tokens, their records, the cache, parameters, and the branches that were left.

The Session owns all state and computes nothing. Invariant: `0 <= cache.length <= len(tokens)`; the engine feeds
`tokens[cache.length:]`. Send, continue, regenerate, edit and fork are one path: `rewrite` keeps the longest common
prefix. A rewrite that would lose sampled tokens leaves the old branch whole and goes on in a new one.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpt.cache import KVCache
from gpt.chat import Span
from gpt.sampling import SamplingParams

__all__ = ["Branch", "Candidate", "Session", "TokenEvent"]

RECORD_BYTES = 5_000  # what one TokenEvent with its candidates takes in memory, about


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
    before any filter. `u` is the draw in [0, 1), None when the token was chosen by hand. `params` made this token.
    `finish` is set on the last one.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        candidates = [{name: getattr(c, name) for name in Candidate.__slots__} for c in self.candidates]
        return {**plain, "candidates": candidates, "params": self.params.as_dict()}


@dataclass(eq=False)
class Branch:
    """One line of the conversation. `records[i]` tells how tokens[i] was chosen, None if it was given.

    `spans` cover the tokens before `reply_start`; from there on stands the reply that is being written.
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
    fed_from: int = 0  # the prompt was read in one go from here on

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
        )
        return replace(kept, **changes)


def _cut_spans(spans: tuple[Span, ...], position: int, reply_start: int) -> tuple[tuple[Span, ...], int]:
    if position >= reply_start:
        return spans, reply_start
    for index, span in enumerate(spans):
        if span.role == "assistant" and span.start <= position <= span.end:
            return spans[:index], span.start
    raise ValueError(f"token {position} stands in the prompt; a conversation can be cut open in a reply only")


class Session:
    """One user's conversation with one model. All methods are cheap; none runs the model.

    `run` is raised by whoever wants the running reply to end; `lock` is held during a step and while history changes;
    `params` is replaced whole, so that a step reads all of a change or nothing of it.
    """

    def __init__(self, cache: KVCache, params: SamplingParams | None = None, seed: int = 0) -> None:
        self.cache = cache
        self.params = params or SamplingParams()
        self.lock = threading.RLock()
        self.run = 0
        self.branches = [Branch(seed=seed)]
        self.branch = 0

    @property
    def current(self) -> Branch:
        return self.branches[self.branch]

    @property
    def tokens(self) -> list[int]:
        """Prompt and reply of the current branch."""
        return self.current.tokens

    @property
    def records(self) -> list[TokenEvent | None]:
        return self.current.records

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.current.spans

    @property
    def reply_start(self) -> int:
        return self.current.reply_start

    @property
    def finish(self) -> str | None:
        """Why the reply ended: end, stop, length, context or stopped; None while it can go on."""
        return self.current.finish

    @finish.setter
    def finish(self, reason: str | None) -> None:
        self.current.finish = reason

    @property
    def seed(self) -> int:
        return self.current.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.current.seed = seed

    @property
    def nbytes(self) -> int:
        """Bytes held: the cache, and the records of all branches (estimated)."""
        kept = {id(r) for b in self.branches for r in b.records if r is not None}
        return self.cache.nbytes + RECORD_BYTES * len(kept)

    def interrupt(self) -> int:
        """End whatever is running for this session at its next token; return the id of the run that may follow."""
        self.run += 1
        return self.run

    def append(self, event: TokenEvent) -> None:
        """Take a chosen token."""
        self.tokens.append(event.token)
        self.records.append(event)
        self.finish = event.finish

    def rewrite(self, tokens: Sequence[int], spans: tuple[Span, ...] = (), seed: int | None = None) -> int:
        """Replace the tokens by a new prompt, after which a reply may follow; return how many of the old ones were
        kept.

        Sampled tokens that this would lose stay behind in their branch.
        """
        with self.lock:
            tokens = list(tokens)
            shared = common_prefix(self.tokens, tokens)
            changed = Branch(
                tokens,
                self.records[:shared] + [None] * (len(tokens) - shared),
                tuple(spans),
                len(tokens),
                self.seed if seed is None else seed,
                budget_start=len(tokens),
            )
            self._go_on_in(changed, shared)
            self.current.fed_from = self.cache.length
            return shared

    def fork(self, position: int, token: int) -> None:
        """Go on from `position` with another token, chosen by hand among the candidates recorded there.

        Raises ValueError when the token at that position was given, or the other one is not among its candidates.
        """
        with self.lock:
            if not 0 <= position < len(self.tokens) or self.records[position] is None:
                raise ValueError(
                    f"token {position} was not sampled, so it has no alternatives; choose a token of a reply"
                )
            chosen = _chosen_by_hand(self.records[position], token)
            self._go_on_in(self.current.before(position, budget_start=position + 1), position)
            self.append(chosen)

    def redo(self, seed: int | None = None) -> None:
        """Forget the last reply, so that it can be written again, with the same seed or another.

        Its prompt is read again as it was read then: other steps would round otherwise, and rounding can tip a draw.
        """
        with self.lock:
            start = self.reply_start
            self._go_on_in(self.current.before(start, seed=self.seed if seed is None else seed), start)
            self.cache.truncate(min(self.cache.length, self.current.fed_from))

    def resume(self) -> None:
        """Let a reply that was stopped or reached its length go on for another max_new_tokens."""
        with self.lock:
            if self.finish not in ("stopped", "length", None):
                raise ValueError("this reply is complete; send a message, or regenerate it")
            self.finish = None
            self.current.budget_start = len(self.tokens)

    def switch(self, branch: int) -> None:
        """Make another branch the current one. What its tokens share with the cache is kept."""
        with self.lock:
            if not 0 <= branch < len(self.branches):
                raise ValueError(f"there is no branch {branch}; there are {len(self.branches)}")
            shared = common_prefix(self.tokens, self.branches[branch].tokens)
            self.branch = branch
            self.cache.truncate(min(self.cache.length, shared))

    def _go_on_in(self, branch: Branch, shared: int) -> None:
        if any(record is not None for record in self.records[shared:]):
            self.branches.append(replace(branch, parent=self.branch, forked_at=shared))
            self.branch = len(self.branches) - 1
        else:
            self.branches[self.branch] = replace(branch, parent=self.current.parent, forked_at=self.current.forked_at)
        self.cache.truncate(min(self.cache.length, shared))


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def _chosen_by_hand(record: TokenEvent, token: int) -> TokenEvent:
    for candidate in record.candidates:
        if candidate.token == token:
            rank = 1 + sum(c.raw > candidate.raw for c in record.candidates)
            logprob = math.log(candidate.raw) if candidate.raw > 0 else -math.inf
            return replace(record, token=token, text=candidate.text, logprob=logprob, rank=rank, u=None, finish=None)
    raise ValueError(f"token {token} is not among the candidates recorded at position {record.position}")
