"""A conversation as the model sees it: tokens, their records, the cache, parameters, and the branches that were left.

The Session owns all state and computes nothing. Invariant: `0 <= cache.length <= len(tokens)`; the engine feeds
`tokens[cache.length:]`. Send, continue, regenerate, edit and fork are one path: `rewrite` keeps the longest common
prefix. A rewrite that would lose sampled tokens leaves the old branch whole and goes on in a new one.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from gpt.branch import Branch, TokenEvent, common_prefix
from gpt.cache import KVCache
from gpt.chat import Span
from gpt.params import SamplingParams

__all__ = ["SAMPLES", "Session"]

SAMPLES = (2, 8)  # how many replies to one prompt may be written at once

RECORD_BYTES = 5_000  # what one TokenEvent with its candidates takes in memory, about


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
        self.branches = {0: Branch(seed=seed)}
        self.branch = 0
        self.clock: float | None = None  # when the last token came, or the reply was asked for
        self._made = count(1)

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
        kept = {id(r) for b in self.branches.values() for r in b.records if r is not None}
        return self.cache.nbytes + RECORD_BYTES * len(kept)

    def interrupt(self) -> int:
        """End whatever is running for this session at its next token; return the id of the run that may follow."""
        self.run += 1
        return self.run

    def end_run(self, run: int) -> None:
        """Count the reply that `run` was writing as stopped, unless it ended or that run is still in force."""
        with self.lock:
            if self.finish is None and self.run != run:
                self.finish = "stopped"

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
            return shared

    def fork(self, position: int, tokens: Sequence[int] = ()) -> None:
        """Go on from `position` with `tokens` chosen by hand, then with what is drawn; the old branch stays.

        Draws go on with the seed that drew the token at `position`, so that other settings alone make the difference.
        Raises ValueError when no reply stands at that position, nor one that can go on ends there.
        """
        with self.lock:
            self._check_open(position)
            after = position + len(tokens)
            record = self.records[position] if position < len(self.tokens) else None
            seed = self.seed if record is None else record.seed
            branch = self.current.before(position, budget_start=after, forced=tuple(tokens), seed=seed)
            self._go_on_in(branch, position)

    def _check_open(self, position: int) -> None:
        sampled = 0 <= position < len(self.tokens) and self.records[position] is not None
        if not sampled and not (position == len(self.tokens) and self.current.can_go_on):
            raise ValueError(
                f"token {position} is not one that can be chosen anew; choose a token of a reply, "
                "or the place after a reply that was stopped"
            )

    def redo(self, seed: int | None = None) -> None:
        """Forget the last reply, so that it can be written again, with the same seed or another.

        The end of its prompt is read again as it was read then: another step would round otherwise, and rounding can
        tip a draw.
        """
        with self.lock:
            start = self.reply_start
            self._go_on_in(self.current.before(start, seed=self.seed if seed is None else seed), start)
            if self.cache.length == start > 0:
                self.cache.truncate(self.cache.reads[-1])

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
            self._check_branch(branch)
            if branch == self.branch:
                return
            self._leave()
            shared = common_prefix(self.tokens, self.branches[branch].tokens)
            self.branch = branch
            self.cache.truncate(min(self.cache.length, shared))

    def load(self, branches: dict[int, Branch], branch: int) -> None:
        """Hold these branches instead, `branch` being the current one; nothing of it is read yet."""
        with self.lock:
            self.branches, self.branch = branches, branch
            self._made = count(max(branches) + 1)
            self.cache.truncate(0)

    def rename(self, branch: int, name: str) -> None:
        """Call a branch something; an empty name takes the old one away."""
        with self.lock:
            self._check_branch(branch)
            self.branches[branch].name = name

    def delete(self, branch: int) -> None:
        """Forget a branch. Those that left it then leave its parent; if it was the current one, the parent is shown.

        Raises ValueError for the only branch.
        """
        with self.lock:
            self._check_branch(branch)
            if len(self.branches) == 1:
                raise ValueError("this is the only branch; start a new chat instead")
            heir = self.branches[branch].parent
            children = [number for number, other in self.branches.items() if other.parent == branch]
            if heir is None:
                heir = children.pop(0)
                self.branches[heir].parent, self.branches[heir].forked_at = None, 0
            if branch == self.branch:
                self.switch(heir)
            for number in children:
                self._reparent(self.branches[number], heir)
            del self.branches[branch]

    def spread(self, seeds: Sequence[int]) -> list["Session"]:
        """Independent sessions, one for each seed, that each write this session's last reply anew.

        Feed this session first, so that its prompt is read once. `gather` brings the replies back. Raises ValueError
        unless there are 2 to 8 seeds and a prompt.
        """
        if not SAMPLES[0] <= len(seeds) <= SAMPLES[1]:
            raise ValueError(f"from {SAMPLES[0]} to {SAMPLES[1]} replies can be written at once, not {len(seeds)}")
        with self.lock:
            if not self.tokens:
                raise ValueError("there is nothing to answer; send a message first")
            start = self.reply_start
            return [self._copy(self.current.before(start, seed=seed), start) for seed in seeds]

    def only(self, branch: int) -> "Session":
        """An independent session that holds one branch alone, with what its tokens share with this one's cache.

        Raises ValueError for a branch that does not exist.
        """
        with self.lock:
            self._check_branch(branch)
            wanted = self.branches[branch]
            shared = common_prefix(self.tokens, wanted.tokens)
            return self._copy(replace(wanted, tokens=list(wanted.tokens), records=list(wanted.records)), shared)

    def _copy(self, branch: Branch, length: int) -> "Session":
        copy = Session(self.cache.fork(min(self.cache.length, length)), self.params)
        copy.branches = {0: branch}
        return copy

    def gather(self, samples: Sequence["Session"], chosen: int) -> None:
        """Take over what `spread` made: every reply that has begun becomes a branch, samples[chosen] the current one.

        Raises ValueError when the chosen one has no token yet.
        """
        with self.lock:
            start = self.reply_start
            picked = samples[chosen]
            if len(picked.tokens) <= start:
                raise ValueError("this reply has not begun yet; wait for its first token")
            self._go_on_in(picked.current, start)
            self.cache = picked.cache
            for sample in samples:
                if sample is not picked and len(sample.tokens) > start:
                    left = replace(sample.current, parent=self.branch, forked_at=start, reads=sample.cache.boundaries)
                    self._add(left)

    def _go_on_in(self, branch: Branch, shared: int) -> None:
        if any(record is not None for record in self.records[shared:]):
            self._leave()
            self.branch = self._add(replace(branch, parent=self.branch, forked_at=shared))
        else:
            kept = {name: getattr(self.current, name) for name in ("parent", "forked_at", "name")}
            self.branches[self.branch] = replace(branch, **kept)
        self.cache.truncate(min(self.cache.length, shared))

    def _add(self, branch: Branch) -> int:
        number = next(self._made)
        self.branches[number] = branch
        return number

    def _leave(self) -> None:
        self.current.reads = self.cache.boundaries

    def _reparent(self, branch: Branch, parent: int) -> None:
        branch.parent = parent
        branch.forked_at = common_prefix(branch.tokens, self.branches[parent].tokens)

    def _check_branch(self, branch: int) -> None:
        if branch not in self.branches:
            raise ValueError(f"there is no branch {branch}; there are {', '.join(map(str, self.branches))}")
