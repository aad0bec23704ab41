"""The engine: one step feeds sessions, shapes their logits, draws a token each and reports what happened.

The step is the unit of progress. Locks and inference mode live inside it, never across a `yield`. A step reads
`session.params`, so a change acts on the very next token. Callers on several threads that ask for a token at the same
time share one forward: whoever gets the model runs the step for all who wait.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from gpt.branch import TokenEvent
from gpt.cache import KVCache
from gpt.chat import ChatTemplate, Message, plain
from gpt.chooser import Choice, Chooser
from gpt.conversation import Cut, fit, messages_of
from gpt.interp import output_gram
from gpt.lexicon import Lexicon
from gpt.model import GPT
from gpt.params import SamplingParams
from gpt.quant import precision_of
from gpt.runner import EagerRunner, Runner
from gpt.session import Session
from gpt.tokenizer import Tokenizer

__all__ = ["Engine"]

CHUNK = 256  # tokens of one session that a step feeds at most, so that a long prompt does not hold up the others


class _Turn:
    """One caller's wish for the next step of its sessions."""

    def __init__(self, sessions: Sequence[Session], runs: Sequence[int]) -> None:
        self.sessions, self.runs = sessions, runs
        self.events: list[TokenEvent | None] = [None] * len(sessions)
        self.error: Exception | None = None
        self.done = False

    def live(self) -> list[int]:
        """Which of the sessions still want a token."""
        pairs = zip(self.sessions, self.runs, strict=True)
        return [i for i, (session, run) in enumerate(pairs) if session.run == run and session.finish is None]


class Engine:
    """A model with its tokenizer and chat template, ready to talk. `chat` is None for a base model.

    `query_bytes` bounds what a session's queries take, which attention is derived from; None: every one is kept.
    """

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, chat: ChatTemplate | None, name: str, runner: Runner | None = None
    ) -> None:
        self.model, self.tokenizer, self.chat, self.name = model, tokenizer, chat, name
        self.config = model.config
        self.runner = runner or EagerRunner(model)
        self.lexicon = Lexicon(tokenizer, self.config.vocab_size)
        self.chooser = Chooser(tokenizer, self.lexicon, self.config.block_size)
        self.query_bytes: int | None = None
        self.source: Path | None = None  # the checkpoint that the model was read from
        self._grams: dict[int, Tensor] = {}
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def precision(self) -> str:
        """What the weights are held in: "int4", "float32", ..."""
        return precision_of(self.model)

    def session(
        self,
        prompt: str | Sequence[Message] = (),
        params: SamplingParams | None = None,
        seed: int = 0,
        raw: bool = False,
    ) -> Session:
        """A new session. A text is one user's message; with `raw`, or without a chat template, the start of a text."""
        session = Session(KVCache(self.config, self.device, self.dtype, self.query_bytes), params, seed)
        if isinstance(prompt, str) and (raw or self.chat is None):
            given = plain(prompt, self.tokenizer)
            session.rewrite(given.tokens, given.spans)
        elif prompt:
            self.extend(session, [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)
        return session

    def messages(self, session: Session) -> list[Message]:
        """The conversation so far; replies carry their tokens exactly as generated, without the end token."""
        return messages_of(session, self.tokenizer)

    def extend(self, session: Session, messages: Sequence[Message], seed: int | None = None) -> Cut | None:
        """Make `messages` the conversation, to be answered; tokens that stay the same are not fed again.

        Returns what had to be left out to fit the context, with room for a reply. Raises ValueError for messages that
        the template refuses, or that cannot fit.
        """
        room = self.config.block_size - min(session.params.max_new_tokens, self.config.block_size // 4)
        prompt, cut = fit(messages, self.chat, self.tokenizer, room)
        session.rewrite(prompt.tokens, prompt.spans, seed)
        return cut

    def stream(self, session: Session, run: int | None = None) -> Iterator[TokenEvent]:
        """Yield one TokenEvent per token until the reply is finished.

        Ends as "stopped" when `session.run` is no longer `run` (by default: what it is now). A session that is
        finished already yields nothing; `session.resume()` first lets it go on.
        """
        for ((_, event),) in self.stream_all([session], None if run is None else [run]):
            yield event

    def stream_all(
        self, sessions: Sequence[Session], runs: Sequence[int] | None = None
    ) -> Iterator[list[tuple[int, TokenEvent]]]:
        """As `stream` for several sessions that share every step: yield what each step chose, by index of session."""
        runs = [session.run for session in sessions] if runs is None else list(runs)
        for session in sessions:
            session.clock = time.perf_counter()
        everyone = _Turn(sessions, runs)
        while live := everyone.live():
            events = self._take_turn(_Turn([sessions[i] for i in live], [runs[i] for i in live]))
            chosen = [(i, event) for i, event in zip(live, events, strict=True) if event is not None]
            if chosen:
                yield chosen
        for session, run in zip(sessions, runs, strict=True):
            session.end_run(run)

    def step(self, sessions: Sequence[Session]) -> list[TokenEvent | None]:
        """Feed each session its next tokens in one forward; the token each then chose, or None while its prompt is
        read.

        Sessions must not be finished. Raises ValueError for a session without tokens.
        """
        with self._lock:
            return self._step(sessions)

    def feed(self, session: Session) -> None:
        """Read everything that is pending without choosing a token, so that every token has its row of attention."""
        while session.cache.length < len(session.tokens):
            self.read(session, len(session.tokens))

    def read(self, session: Session, end: int) -> None:
        """Read on up to the token before `end`, or as far as one step may, in one go."""
        with self._lock, session.lock:
            pending = session.tokens[session.cache.length : end][:CHUNK]
            if pending:
                session.cache.expect(min(end, len(session.tokens)))
                self.runner.run([(session.cache, pending)])

    def check(self, params: SamplingParams) -> None:
        """Raise ValueError, which begins with the parameter's name, for what only this model's tokens can tell.

        A grammar that does not compile or cannot be met, a bias on a token that does not exist.
        """
        self.lexicon.check(params)

    def distribution(
        self, session: Session, position: int, params: SamplingParams | None = None, logits: Tensor | None = None
    ) -> Choice:
        """What could stand at `position`, 1 up to the number of tokens, under the session's settings or others.

        Nothing is run but one product of the hidden state that was kept with the output matrix, nor that when the
        position's `logits` are given. Raises ValueError for a position whose past was not read yet (`feed` reads it).
        """
        with session.lock:
            record = session.records[position] if 0 <= position < len(session.records) else None
            seed = session.seed if record is None else record.seed
            logits = self.logits(session, position) if logits is None else logits
            return self.chooser.look(session.current, position, logits, params or session.params, seed)

    @torch.inference_mode()
    def logits(self, session: Session, position: int) -> Tensor:
        """The logits (V,), float32 on the CPU, that a token for `position` is chosen from; as `distribution`."""
        if not 1 <= position <= len(session.tokens):
            raise ValueError(f"position must be from 1 to {len(session.tokens)}, got {position}")
        if position > session.cache.length:
            raise ValueError(
                f"the model has read {session.cache.length} tokens, so position {position} is not known yet"
            )
        return self.model.unembed(session.cache.hidden()[None, position - 1 : position])[0, 0].cpu()

    @torch.inference_mode()
    def gram(self, layer: int) -> Tensor:
        """`interp.output_gram` of one layer, computed once: what contributions to the residual stream are made with."""
        if layer not in self._grams:
            self._grams[layer] = output_gram(self.model, layer)
        return self._grams[layer]

    def _take_turn(self, turn: _Turn) -> list[TokenEvent | None]:
        self._waiting.append(turn)
        with self._lock:
            if not turn.done:
                self._serve()
        if turn.error is not None:
            raise turn.error
        return turn.events

    def _serve(self) -> None:
        """Step all who wait; called by one of them, who holds the lock."""
        turns, self._waiting = self._waiting, []
        live = [(turn, i) for turn in turns for i in turn.live()]
        try:
            events = self._step([turn.sessions[i] for turn, i in live])
            for (turn, i), event in zip(live, events, strict=True):
                turn.events[i] = event
        except (RuntimeError, ValueError) as error:  # out of memory, or a session that cannot go on: callers must know
            for turn, _ in live:
                turn.error = error
        for turn in turns:
            turn.done = True

    def _step(self, sessions: Sequence[Session]) -> list[TokenEvent | None]:
        with ExitStack() as stack:
            for session in sessions:
                stack.enter_context(session.lock)
            for session in sessions:
                if len(session.tokens) >= self.config.block_size:
                    session.finish = "context"
            ready = [s for s in sessions if s.finish is None]
            logits = self.runner.run([(s.cache, self._pending(s)) for s in ready]).cpu() if ready else ()
            read = [(s, row) for s, row in zip(ready, logits, strict=True) if s.cache.length == len(s.tokens)]
            chosen = {id(s): self.chooser.choose(s, row) for s, row in read}
            return [chosen.get(id(s)) for s in sessions]

    def _pending(self, session: Session) -> list[int]:
        if not session.tokens:
            raise ValueError("there is nothing to continue: the session has no tokens; send a message first")
        if session.cache.length == len(session.tokens):
            session.cache.truncate(session.cache.length - 1)  # its logits are gone: read the last token again
        session.cache.expect(len(session.tokens))
        return session.tokens[session.cache.length :][:CHUNK]
