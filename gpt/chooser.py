"""How one token of a reply is chosen and what is recorded of it; and what could have been chosen at any position.

Nothing here runs the model: logits come in, a TokenEvent goes out. What the filters look at besides the logits is
derived from the tokens and records before the position, so that a step can be looked at again, and drawn again, at any
time later.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpt.branch import Branch, Candidate, TokenEvent
from gpt.lexicon import Lexicon
from gpt.params import SamplingParams
from gpt.sampling import HEAD, Shaped, Step, next_mu, pick, shape_logits, uniform
from gpt.session import Session
from gpt.tokenizer import Tokenizer

__all__ = ["Choice", "Chooser"]


@dataclass(frozen=True)
class Choice:
    """What could stand at a position: `drawn` is what the draw `u` picks, `token` what stands there (None: nothing).

    `step` is what the filters looked at; `shaped.trail` holds the distribution after each stage.
    """

    position: int
    params: SamplingParams
    step: Step
    shaped: Shaped
    u: float
    drawn: int
    token: int | None


class Chooser:
    """Chooses tokens for sessions of one model. block_size: positions that the model has."""

    def __init__(self, tokenizer: Tokenizer, lexicon: Lexicon, block_size: int) -> None:
        self.tokenizer, self.lexicon, self.block_size = tokenizer, lexicon, block_size

    @torch.inference_mode()
    def choose(self, session: Session, logits: Tensor) -> TokenEvent:
        """Take the next token of a session from logits (V,): the one that was chosen by hand, else the one drawn."""
        branch, params, seed = session.current, session.params, session.seed  # read once: a slider may replace them now
        step = step_at(branch, len(branch.tokens), params, seed)
        shaped = shape_logits(logits, params, step, self.lexicon)
        by_hand = bool(branch.forced)
        u = None if by_hand else uniform(seed, len(branch.tokens))
        token = branch.forced[0] if by_hand else pick(shaped.final, u, shaped.left)
        branch.forced = branch.forced[1:]
        event = self._event(branch, params, step, shaped, token, u)
        now = time.perf_counter()
        seconds = now - (now if session.clock is None else session.clock)
        session.clock = now
        event = replace(event, seed=seed, seconds=seconds)
        session.append(event)
        return event

    def _event(
        self, branch: Branch, params: SamplingParams, step: Step, shaped: Shaped, token: int, u: float | None
    ) -> TokenEvent:
        finish, text = self._outcome(branch, params, token)
        final = float(shaped.final[token])
        final_logprob = math.log(final) if final > 0 else -math.inf
        return TokenEvent(
            len(branch.tokens),
            token,
            text,
            float(shaped.logprobs[token]),
            shaped.rank(token),
            shaped.entropy,
            self.candidates(shaped, shaped.top(HEAD), (token,)),
            u,
            params,
            finish,
            final_logprob,
            stages=shaped.stages,
            ignored=shaped.ignored,
            mu=next_mu(step.mu, params, final_logprob),
        )

    def candidates(self, shaped: Shaped, top: Sequence[int], others: Sequence[int] = ()) -> tuple[Candidate, ...]:
        """The tokens `top`, then those of `others` that are not among them."""
        listed = [*top, *(t for t in dict.fromkeys(others) if t not in top)]
        probs, final = shaped.probs_of(listed), shaped.final.numpy()[listed].tolist()
        return tuple(
            Candidate(t, self.tokenizer.piece(t), raw, after, shaped.removed_by(t))
            for t, raw, after in zip(listed, probs, final, strict=True)
        )

    @torch.inference_mode()
    def look(self, branch: Branch, position: int, logits: Tensor, params: SamplingParams, seed: int) -> Choice:
        """What these settings make of the logits (V,) of a position, and what the draw for it picks."""
        step = step_at(branch, position, params, seed)
        shaped = shape_logits(logits, params, step, self.lexicon, trail=True)
        u = uniform(seed, position)
        token = branch.tokens[position] if position < len(branch.tokens) else None
        return Choice(position, params, step, shaped, u, pick(shaped.final, u, shaped.left), token)

    # ---- what a token means for the reply ----------------------------------------------------------------

    def _outcome(self, branch: Branch, params: SamplingParams, token: int) -> tuple[str | None, str]:
        """Whether the token ends the reply, and the text it completes; what may begin a stop string waits."""
        reply, n = [*branch.tokens[branch.reply_start :], token], len(branch.tokens) + 1
        finish = None
        if token in self.tokenizer.end_tokens:
            finish = "end"
        elif n >= self.block_size:
            finish = "context"
        elif n - branch.budget_start >= params.max_new_tokens:
            finish = "length"
        if not params.stop:
            begins = len(reply) <= 4 and _opens(branch)
            text = self.tokenizer.pieces(reply[-4:], opening=begins)[-1]  # a character is 4 bytes at most
            return finish, "" if finish == "end" else text
        before, _ = self._released(reply[:-1], branch, params.stop, final=False)
        ended = reply[: len(reply) - (finish == "end")]
        now, stopped = self._released(ended, branch, params.stop, final=finish is not None)
        return "stop" if stopped else finish, now[len(before) :]

    def _released(self, reply: Sequence[int], branch: Branch, stop: tuple[str, ...], final: bool) -> tuple[str, bool]:
        """The text of a reply that may be shown: up to a stop string, and without what could become one."""
        text = "".join(self.tokenizer.pieces(reply, opening=_opens(branch)))
        ends = [at for s in stop if (at := text.find(s)) >= 0]
        if ends:
            return text[: min(ends)], True
        if final:
            return text, False
        starts = (n for s in stop for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n]))
        return text[: len(text) - max(starts, default=0)], False


def _opens(branch: Branch) -> bool:
    """Whether a reply is a text of its own, after the template's, and not one that goes on."""
    return bool(branch.spans) and branch.spans[-1].role == "template"


def step_at(branch: Branch, position: int, params: SamplingParams, seed: int) -> Step:
    """What the filters look at when a token for `position` is chosen, from the tokens and records before it."""
    reply_start = branch.reply_start_at(position)
    return Step(
        history=branch.tokens[:position],
        reply_start=reply_start,
        grammar_start=_grammar_start(branch, position, reply_start, params),
        coin=uniform(seed, position, stream=1),
        mu=_mu_before(branch, position),
    )


def _grammar_start(branch: Branch, position: int, reply_start: int, params: SamplingParams) -> int:
    """Where the grammar in force was switched on: after the last token of the reply that another one made."""
    if params.grammar is None:
        return position
    at = position
    while at > reply_start and _made_under(branch.records[at - 1], params.grammar):
        at -= 1
    return at


def _made_under(record: TokenEvent | None, grammar: tuple[str, str]) -> bool:
    return record is not None and record.params.grammar == grammar


def _mu_before(branch: Branch, position: int) -> float | None:
    before = branch.records[position - 1] if position > branch.reply_start_at(position) else None
    return before.mu if before is not None else None
