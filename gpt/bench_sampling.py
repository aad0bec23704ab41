"""What choosing a token costs, apart from the model: the filters, the draw, and what the record says of it.

The logits are the model's own, of the positions of a random prompt. For a larger vocabulary they are drawn from those;
ids past the model's have no text there, so the grammar is left out. The text that filters look at is the prompt twice,
so that there are repetitions, and a growing JSON list of words, which is the grammar. Figures are medians of the time
that the processor spent in this thread.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gpt.chooser import Chooser
from gpt.engine import Engine
from gpt.lexicon import Lexicon
from gpt.params import SamplingParams
from gpt.sampling import HEAD, Step, next_mu, pick, shape_logits, uniform

__all__ = ["LARGE", "SETTINGS", "sampling_cost", "sampling_lines"]

LARGE = 152_064
"""The vocabulary of Qwen2, one of the largest."""

SETTINGS: dict[str, SamplingParams] = {
    "nothing": SamplingParams(temperature=1.0),
    "usual": SamplingParams(temperature=0.7, top_k=40, top_p=0.95, min_p=0.05),
    "every": SamplingParams(
        logit_bias=(((1,), -1.0), ((1, 2), 1.0)), repetition_penalty=1.1, presence_penalty=0.1, frequency_penalty=0.1,
        dry_multiplier=0.8, no_repeat_ngram=8, banned=("forbidden", "not this"), min_new_tokens=1_000_000,
        grammar=("json_schema", '{"type": "array", "items": {"type": "string"}}'), temperature=0.9, dynatemp_range=0.2,
        top_k=1_000, top_p=0.99, min_p=0.001, typical_p=0.99, top_a=0.01, tfs_z=0.99, top_n_sigma=3.0,
        epsilon_cutoff=1e-4, eta_cutoff=1e-4, xtc_probability=0.5, xtc_threshold=0.3, mirostat_tau=8.0,
    ),
}  # fmt: skip


def sampling_cost(engine: Engine, prompt: list[int], n: int, step_seconds: float) -> dict[str, Any]:
    """ms: {vocabulary: {setting: median of n tokens}}; share: {setting: of a step that takes step_seconds}."""
    logits = list(_own_logits(engine, prompt, n))
    costs = {len(logits[0]): _costs(engine, logits, prompt)}
    if len(logits[0]) < LARGE:
        draw = torch.Generator().manual_seed(0)
        picked = torch.randint(len(logits[0]), (LARGE,), generator=draw)
        costs[LARGE] = _costs(engine, [row[picked] for row in logits], prompt)
    share = {name: ms / 1e3 / step_seconds for name, ms in costs[len(logits[0])].items()}
    return {"ms": {str(size): each for size, each in costs.items()}, "share": share}


def sampling_lines(report: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{'choosing a token, ms':26}" + "".join(f"{name:>10}" for name in SETTINGS)]
    for size, costs in report["ms"].items():
        lines.append(f"{f'  of {int(size):,}':26}" + "".join(f"{costs[name]:10.2f}" for name in SETTINGS))
    lines.append(f"{'  share of a step':26}" + "".join(f"{100 * report['share'][name]:8.1f} %" for name in SETTINGS))
    return lines


def _own_logits(engine: Engine, prompt: list[int], n: int) -> Iterator[Tensor]:
    session = engine.session()
    session.rewrite(prompt)
    engine.feed(session)
    for position in range(max(1, len(prompt) - n), len(prompt)):
        yield engine.logits(session, position)


def _costs(engine: Engine, logits: list[Tensor], prompt: list[int]) -> dict[str, float]:
    lexicon = Lexicon(engine.tokenizer, len(logits[0]))
    chooser = Chooser(engine.tokenizer, lexicon, engine.config.block_size)
    past, words = prompt * 2, engine.tokenizer.encode('["' + "several words that are written, " * 20)
    costs = {}
    for name, params in SETTINGS.items():
        params = params if lexicon.n_vocab == engine.config.vocab_size else params.replace(grammar=None)
        seconds, mu = [], None
        for i, row in enumerate(logits):
            step = Step(past + words[: 2 + i], len(past), len(past), uniform(0, i, 1), mu)
            fresh = row.clone()  # as the model leaves it: still in the processor's cache
            start = time.thread_time()
            mu = _choose(chooser, fresh, params, step, uniform(0, i))
            seconds.append(time.thread_time() - start)
        costs[name] = 1e3 * statistics.median(seconds)
    return costs


@torch.inference_mode()
def _choose(chooser: Chooser, logits: Tensor, params: SamplingParams, step: Step, u: float) -> float | None:
    """All that a step does after the model, but for the text."""
    shaped = shape_logits(logits, params, step, chooser.lexicon)
    token = pick(shaped.final, u, shaped.left)
    chooser.candidates(shaped, shaped.top(HEAD), (token,))
    shaped.rank(token), shaped.entropy
    return next_mu(step.mu, params, float(shaped.final[token].log()))
