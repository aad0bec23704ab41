"""What looking at attention costs, away from any page: deriving patterns, metrics of all heads, memory of a session.

The text is random tokens; the figures are medians over `repeats`. Nothing of it lies on the way of a token that is
being written: patterns are derived when somebody looks.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpt.engine import Engine
from gpt.heads import HeadMetrics, Thumbnails, similarity
from gpt.interp import Sight, attention_pattern, rollout, sight_rows
from gpt.session import Session

__all__ = ["LENGTHS", "attention_cost", "attention_lines"]

LENGTHS = (1_000, 2_000)
"""Tokens of the texts that are looked at."""

NAMES = {
    "pattern": "one head's pattern",
    "value": "its contributions",
    "metrics": "metrics of all heads",
    "pictures": "pictures of all heads",
    "similarity": "likeness of all heads",
    "rollout": "rollout, all layers",
}


def attention_cost(
    engine: Engine, prompts: Iterator[list[int]], lengths: tuple[int, ...], repeats: int
) -> dict[str, Any]:
    """{tokens: {name: milliseconds, ..., "session_bytes": bytes}} for each of `lengths` that fits the context."""
    costs = {}
    for length in lengths:
        if length > engine.config.block_size:
            continue
        session = engine.session()
        session.rewrite([token for _ in range(length) for token in next(prompts)][:length])
        engine.feed(session)
        costs[str(length)] = _costs(engine, session, repeats) | {"session_bytes": session.nbytes}
    return costs


def _costs(engine: Engine, session: Session, repeats: int) -> dict[str, float]:
    layer, n = engine.config.n_layer // 2, session.cache.length
    value = Sight(((layer, 0),), what="value")
    work: dict[str, Callable[[], object]] = {
        "pattern": lambda: attention_pattern(session, layer, 0),
        "value": lambda: sight_rows(session, value, range(n), engine.gram),
        "metrics": lambda: HeadMetrics().update(session),
        "pictures": lambda: Thumbnails().update(session),
        "similarity": lambda: similarity(session, layer, 0),
        "rollout": lambda: rollout(session, engine.config.n_layer - 1),
    }
    return {name: _median_ms(call, repeats) for name, call in work.items()}


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    call()
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def attention_lines(report: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{'attention, ms':26}" + "".join(f"{f'{int(n):,} tok':>14}" for n in report)]
    for name, text in NAMES.items():
        lines.append(f"{f'  {text}':26}" + "".join(f"{costs[name]:14.1f}" for costs in report.values()))
    lines.append(
        f"{'  session, MB':26}" + "".join(f"{costs['session_bytes'] / 1e6:14.1f}" for costs in report.values())
    )
    return lines
