"""The engine: one step feeds sessions, shapes their logits, draws a token each and reports what happened.

The step is the unit of progress. Locks and inference mode live inside it, never across a `yield`. A step reads
`session.params`, so a change acts on the very next token. Callers on several threads that ask for a token at the same
time share one forward: whoever gets the model runs the step for all who wait.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from gpt.cache import KVCache
from gpt.chat import ChatTemplate, Message, plain
from gpt.conversation import Cut, fit, messages_of
from gpt.model import GPT
from gpt.runner import EagerRunner, Runner
from gpt.sampling import HEAD, SamplingParams, Shaped, pick, shape_logits, uniform
from gpt.session import Candidate, Session, TokenEvent
from gpt.tokenizer import Tokenizer

__all__ = ["Engine"]

CHUNK = 256  # tokens of one session that a step feeds at most, so that a long prompt does not hold up the others


class _Turn:
    """One caller's wish for its session's next step."""

    def __init__(self, session: Session, run: int) -> None:
        self.session, self.run = session, run
        self.event: TokenEvent | None = None
        self.error: Exception | None = None
        self.done = False


class Engine:
    """A model with its tokenizer and chat template, ready to talk. `chat` is None for a base model."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, chat: ChatTemplate | None, name: str, runner: Runner | None = None
    ) -> None:
        self.model, self.tokenizer, self.chat, self.name = model, tokenizer, chat, name
        self.config = model.config
        self.runner = runner or EagerRunner(model)
        self._lock = threading.Lock()
        self._waiting: list[_Turn] = []

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def session(
        self,
        prompt: str | Sequence[Message] = (),
        params: SamplingParams | None = None,
        seed: int = 0,
        raw: bool = False,
    ) -> Session:
        """A new session. A text is one user's message; with `raw`, or without a chat template, the start of a text."""
        session = Session(KVCache(self.config, self.device, self.dtype), params, seed)
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
        run = session.run if run is None else run
        while session.finish is None and session.run == run:
            event = self._take_turn(session, run)
            if event is not None:
                yield event
        with session.lock:
            if session.finish is None and session.run != run:
                session.finish = "stopped"

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
            with self._lock, session.lock:
                pending = session.tokens[session.cache.length :][:CHUNK]
                if pending:
                    self.runner.run([(session.cache, pending)])

    def _take_turn(self, session: Session, run: int) -> TokenEvent | None:
        turn = _Turn(session, run)
        self._waiting.append(turn)
        with self._lock:
            if not turn.done:
                self._serve()
        if turn.error is not None:
            raise turn.error
        return turn.event

    def _serve(self) -> None:
        """Step all who wait; called by one of them, who holds the lock."""
        turns, self._waiting = self._waiting, []
        live = [t for t in turns if t.session.run == t.run and t.session.finish is None]
        try:
            events = self._step([t.session for t in live])
            for turn, event in zip(live, events, strict=True):
                turn.event = event
        except (
            RuntimeError,
            ValueError,
        ) as error:  # out of memory, or a session that cannot go on: its callers must know
            for turn in live:
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
            chosen = {id(s): self._choose(s, row) for s, row in zip(ready, logits, strict=True)}
            return [chosen.get(id(s)) for s in sessions]

    def _pending(self, session: Session) -> list[int]:
        if not session.tokens:
            raise ValueError("there is nothing to continue: the session has no tokens; send a message first")
        if session.cache.length == len(session.tokens):
            session.cache.truncate(session.cache.length - 1)  # its logits are gone: read the last token again
        return session.tokens[session.cache.length :][:CHUNK]

    @torch.inference_mode()
    def _choose(self, session: Session, logits: Tensor) -> TokenEvent | None:
        if session.cache.length < len(session.tokens):
            return None
        position, params = len(session.tokens), session.params
        u = uniform(session.seed, position)
        shaped = shape_logits(logits, params, session.tokens)
        token = pick(shaped.final, u)
        finish, text = self._outcome(session, token)
        event = TokenEvent(
            position,
            token,
            text,
            float(shaped.logprobs[token]),
            int((shaped.logprobs > shaped.logprobs[token]).sum()) + 1,
            float(torch.special.entr(shaped.probs).sum()),
            self._candidates(shaped, token),
            u,
            params,
            finish,
        )
        session.append(event)
        return event

    def _candidates(self, shaped: Shaped, token: int) -> tuple[Candidate, ...]:
        top = shaped.probs.topk(min(HEAD, shaped.probs.numel())).indices.tolist()
        return tuple(
            Candidate(t, self.tokenizer.piece(t), float(shaped.probs[t]), float(shaped.final[t]), shaped.removed_by(t))
            for t in (top if token in top else [*top, token])
        )

    def _outcome(self, session: Session, token: int) -> tuple[str | None, str]:
        """Whether the token ends the reply, and the text it completes; what may begin a stop string waits."""
        params, reply = session.params, [*session.tokens[session.reply_start :], token]
        finish = None
        if token in self.tokenizer.end_tokens:
            finish = "end"
        elif len(session.tokens) + 1 >= self.config.block_size:
            finish = "context"
        elif len(session.tokens) + 1 - session.current.budget_start >= params.max_new_tokens:
            finish = "length"
        if not params.stop:
            return finish, "" if finish == "end" else self.tokenizer.pieces(reply[-4:])[
                -1
            ]  # a character is 4 bytes at most
        before, _ = self._released(reply[:-1], params.stop, final=False)
        now, stopped = self._released(reply[: len(reply) - (finish == "end")], params.stop, final=finish is not None)
        return "stop" if stopped else finish, now[len(before) :]

    def _released(self, reply: Sequence[int], stop: tuple[str, ...], final: bool) -> tuple[str, bool]:
        """The text of a reply that may be shown: up to a stop string, and without what could become one."""
        text = "".join(self.tokenizer.pieces(reply))
        ends = [at for s in stop if (at := text.find(s)) >= 0]
        if ends:
            return text[: min(ends)], True
        held = (
            0
            if final
            else max((n for s in stop for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])), default=0)
        )
        return text[: len(text) - held], False
