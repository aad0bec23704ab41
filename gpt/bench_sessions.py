"""What the people at several conversations get: how long a next message waits, and what sharing a step brings.

The text is random tokens. Settings are greedy, so that choosing a token costs little beside the model.
"""

import statistics
import time
from collections.abc import Iterator, Sequence

from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session

__all__ = ["sessions_cost", "sessions_lines"]

HISTORY, MESSAGE, TOGETHER = 500, 20, 4


def sessions_cost(engine: Engine, prompts: Iterator[list[int]], n: int, repeats: int) -> dict[str, float] | None:
    """Medians: milliseconds from a message of 20 tokens to the first token of its reply, in a conversation of 500; and
    the throughput of 4 conversations of that length that step together over that of one, n tokens each.

    None when the model's context is too short for them.
    """
    if HISTORY + MESSAGE + n + 1 > engine.config.block_size:
        return None
    text = [token for _ in range(HISTORY + MESSAGE) for token in next(prompts)]  # more than enough
    sessions = [_conversation(engine, text[i : i + HISTORY]) for i in range(TOGETHER)]
    waits, ratios = [], []
    for _ in range(repeats):
        for session in sessions:
            session.rewrite(session.tokens[:HISTORY])  # or the same message would not be read again
            session.rewrite(session.tokens + text[-MESSAGE:])
            start = time.perf_counter()
            _steps(engine, [session], 1)
            waits.append(time.perf_counter() - start)
        alone, together = (_seconds(engine, who, n) for who in (sessions[:1], sessions))
        ratios.append(TOGETHER * alone / together)
    return {"first_token_ms": 1e3 * statistics.median(waits), "together": statistics.median(ratios)}


def _conversation(engine: Engine, tokens: list[int]) -> Session:
    session = engine.session(params=SamplingParams(temperature=0))
    session.rewrite(tokens)
    engine.feed(session)
    return session


def _steps(engine: Engine, sessions: Sequence[Session], n: int) -> None:
    for _ in range(n):
        while None in engine.step(sessions):
            pass  # something is still read
        for session in sessions:
            session.finish = None


def _seconds(engine: Engine, sessions: Sequence[Session], n: int) -> float:
    """How long the sessions take to write n tokens each, from where all of them have written one."""
    for session in sessions:
        session.rewrite(session.tokens[: HISTORY + MESSAGE])
    _steps(engine, sessions, 1)
    start = time.perf_counter()
    _steps(engine, sessions, n)
    return time.perf_counter() - start


def sessions_lines(report: dict[str, float] | None) -> list[str]:
    """The figures for people."""
    if report is None:
        return []
    return [
        f"a message of {MESSAGE} tokens after {HISTORY} waits {report['first_token_ms']:.0f} ms for its first token",
        f"{TOGETHER} conversations at once get {report['together']:.2f} x the tokens of one",
    ]
