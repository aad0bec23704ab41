"""A model that is loaded, and what the page needs to run it: the engine, and what writes replies with it.

A conversation belongs to the model it was begun with: its tokens, cache and records mean nothing to another one. So
every entry of the store holds the one of these that made it, and a model is freed when no entry holds it any more.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from demo.live import Remote
from gpt.branch import TokenEvent
from gpt.config import GPTConfig
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session
from gpt.tokenizer import Tokenizer

__all__ = ["Chosen", "Running", "Source", "Wish", "fresh_seed"]

Chosen = list[tuple[int, TokenEvent]]  # what one step chose, by number of the reply


class Source(Protocol):
    """What writes replies: an `Engine`, or a `Remote` one."""

    config: GPTConfig
    tokenizer: Tokenizer

    def session(self, *, params: SamplingParams | None = None, seed: int = 0) -> Session: ...

    def stream(self, session: Session, run: int | None = None) -> Iterator[TokenEvent]: ...

    def stream_all(self, sessions: Sequence[Session], runs: Sequence[int] | None = None) -> Iterator[Chosen]: ...

    def feed(self, session: Session) -> None: ...

    def logits(self, session: Session, position: int) -> Tensor: ...

    def gram(self, layer: int) -> Tensor: ...


@dataclass(frozen=True)
class Wish:
    """What `gpt.load` is asked for; None leaves the choice to it."""

    name: str
    device: str | None = None
    dtype: str | None = None
    revision: str | None = None


@dataclass(frozen=True, eq=False)
class Running:
    """One loaded model. `remote` writes for it where the engine computes in another process (demo/live.py).

    wish: what it was loaded by, so that it is not loaded twice. params: what its conversations begin with.
    """

    engine: Engine
    remote: Remote | None = None
    wish: Wish | None = None
    params: SamplingParams | None = None

    @property
    def source(self) -> Source:
        return self.remote or self.engine

    @property
    def changed(self) -> Callable[[Session], None] | None:
        """Who must be told when a session's run or parameters change."""
        return self.remote.publish if self.remote else None

    def session(self) -> Session:
        """An empty conversation with a seed of its own."""
        return self.source.session(params=self.params, seed=fresh_seed())

    @cached_property
    def folded(self) -> list[str]:
        """The text of every token, in the form in which letters are compared."""
        size = min(self.engine.tokenizer.n_vocab, self.engine.config.vocab_size)
        return [self.engine.tokenizer.piece(token).casefold() for token in range(size)]


def fresh_seed() -> int:
    """A seed for a conversation that did not ask for one, short enough to be written down."""
    return secrets.randbelow(1_000_000)
