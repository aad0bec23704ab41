"""`python -m gpt.bench`: speed and memory of Glassbox and, in the same run, of other programs on the same checkpoint.

Every program reads the same random tokens (`--context` of them, others in each round, so that no prompt cache helps)
and then writes `--tokens` greedily; end tokens do not end it. Rounds are interleaved: in each, every program runs once,
so that a machine that slows down slows them all. Figures are medians over the rounds.

decode                  tokens/s from the first written token to the last, batch 1
prefill                 tokens/s of reading the context, up to the first written token
ratios                  Glassbox / the other program, for both; more than 1 means that Glassbox is faster
queries_cost            share of decode speed lost by keeping queries: two sessions, one of which does not keep them,
                        step in turn; the median over the pairs of steps
session_bytes_per_token what one more written token adds to a session: queries, keys and values, and its record
sampling                milliseconds of one core to choose a token, beside the model's step: filters, draw and record,
                        with no filter, the usual ones and all of them, at the model's own and at a large vocabulary;
                        and the share of a decode step that the model's own vocabulary makes of it
attention               milliseconds of deriving what is looked at, for texts of 1,000 and 2,000 tokens: one head's
                        exact pattern, its contributions, metrics, pictures and likeness of all heads, rollout; and the
                        bytes that such a session holds (bench_attention.py)
sessions                milliseconds from a message of 20 tokens, in a conversation of 500, to the first token of its
                        reply; and the throughput of 4 conversations that step together, over that of one
                        (bench_sessions.py); null when the context is too short
load_seconds            from the name to an engine that can answer, torch already imported, the file on this disk
peak_rss_bytes          the most memory that the process held, weights included, before any other program was loaded;
                        null on Windows

With --load, instead of all this, what loading a large checkpoint takes (bench_load.py).

A program that is not installed, or cannot read the checkpoint, is null. Peers: llama.cpp (the package xllamacpp) and
transformers `generate`, the latter without and with output_attentions, in Glassbox's own dtype.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gpt import DEFAULT_MODEL, load
from gpt.bench_attention import LENGTHS, attention_cost, attention_lines
from gpt.bench_load import load_cost, load_lines
from gpt.bench_peers import PEERS, Program, Speed, peers, speed
from gpt.bench_sampling import sampling_cost, sampling_lines
from gpt.bench_sessions import sessions_cost, sessions_lines
from gpt.cache import KVCache
from gpt.catalog import resolve
from gpt.engine import Engine
from gpt.model import Segment
from gpt.params import SamplingParams
from gpt.runner import GraphRunner
from gpt.session import Session

__all__ = ["main", "measure"]


class Glassbox:
    """The bare engine, without the page."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def session(self, prompt: list[int], cache: KVCache | None = None) -> Session:
        session = self.engine.session(params=SamplingParams(temperature=0))
        session.cache = cache or session.cache
        session.rewrite(prompt)
        return session

    def write(self, session: Session, n: int) -> list[float]:
        """Let a session write n tokens; the seconds that each took."""
        times = []
        for _ in range(n):
            start = time.perf_counter()
            while self.engine.step([session])[0] is None:
                pass  # the prompt is read in several steps
            times.append(time.perf_counter() - start)
            session.finish = None
        return times

    def run(self, prompt: list[int], n: int) -> Speed:
        return speed(len(prompt), self.write(self.session(prompt), n))


class KeysAndValues(KVCache):
    """A cache as every other program has it: it keeps no queries."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.config, engine.device, engine.dtype)
        self._buffers = self._buffers._replace(queries=self._buffers.queries[:, :0])

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> list[Segment]:
        start, end = self.length, self.length + k.shape[2]
        _, keys, values, *_ = self._buffers
        for buffer, new in ((keys, k), (values, v)):
            buffer[layer, :, start:end] = new[0]
        return [self._segment(layer, q, keys[layer, :, :end], values[layer, :, :end])]

    def extend(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> None:
        super().extend(q[:, :0], k, v, hidden)


def queries_cost(program: Glassbox, prompts: Iterator[list[int]], n: int, rounds: int) -> float:
    """The share of decode speed that keeping queries takes: the median of n pairs of steps in each round."""
    ratios = []
    for _ in range(rounds):
        prompt = next(prompts)
        sessions = [program.session(prompt), program.session(prompt, KeysAndValues(program.engine))]
        for session in sessions:
            program.write(session, 2)
        for i in range(n):
            first, second = sessions if i % 2 else reversed(sessions)
            times = {id(session): program.write(session, 1)[0] for session in (first, second)}
            ratios.append(times[id(sessions[1])] / times[id(sessions[0])])
    return 1 - statistics.median(ratios)


def random_prompts(vocab_size: int, context: int) -> Iterator[list[int]]:
    """Endless prompts, the same in every run of the bench."""
    draw = random.Random(0)
    while True:
        yield draw.choices(range(vocab_size), k=context)


def interleave(programs: dict[str, Program], prompts: Iterator[list[int]], n: int, rounds: int) -> dict[str, Speed]:
    """The median speed of each program over rounds in which each runs once. Their first run does not count."""
    for program in programs.values():
        program.run(next(prompts), 2)
    runs: dict[str, list[Speed]] = {name: [] for name in programs}
    for _ in range(rounds):
        prompt = next(prompts)
        for name, program in programs.items():
            runs[name].append(program.run(prompt, n))
    return {name: Speed(*map(statistics.median, zip(*speeds, strict=True))) for name, speeds in runs.items()}


def bytes_per_token(session: Session, n: int) -> int:
    """What each of the n tokens that a session has written takes."""
    records = session.nbytes - session.cache.nbytes
    return round(session.cache.nbytes / session.cache.capacity + records / n)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The whole report, as the module's docstring explains it."""
    torch.set_num_threads(args.threads)
    path = resolve(args.model)
    start = time.perf_counter()
    engine = load(args.model, dtype=args.dtype)
    if args.graphs:
        engine.runner = GraphRunner(engine.model)
    load_seconds = time.perf_counter() - start
    _require_room(engine, args.context + args.tokens + 2)
    program, prompts = Glassbox(engine), random_prompts(engine.config.vocab_size, args.context)
    session = program.session(next(prompts))
    program.write(session, args.tokens)
    own = {
        "session_bytes_per_token": bytes_per_token(session, args.tokens),
        "load_seconds": load_seconds,
        "peak_rss_bytes": peak_rss(),
        "machine": machine(engine, args),
    }
    cost = queries_cost(program, prompts, args.tokens, args.repeats)
    attention = attention_cost(engine, prompts, LENGTHS, args.repeats)  # before any other program keeps threads awake
    sessions = sessions_cost(engine, prompts, args.tokens, args.repeats)
    room = args.context + args.tokens + 8
    programs = {"glassbox": program, **dict(peers(args.peers, path, engine, room, args.threads))}
    speeds = interleave(programs, prompts, args.tokens, args.repeats)
    sampling = sampling_cost(engine, next(prompts), args.tokens, 1 / speeds["glassbox"].decode)
    looked = {"queries_cost": cost, "sampling": sampling, "attention": attention, "sessions": sessions}
    return {**comparison(speeds), **looked, **own}


def comparison(speeds: dict[str, Speed]) -> dict[str, Any]:
    """decode, prefill and ratios; None for a program that did not run."""
    every = ("glassbox", *PEERS)
    rates = {kind: {name: getattr(speeds.get(name), kind, None) for name in every} for kind in ("decode", "prefill")}
    ratios = {
        kind: {name: row["glassbox"] / row[name] if row[name] else None for name in PEERS}
        for kind, row in rates.items()
    }
    return {**rates, "ratios": ratios}


def _require_room(engine: Engine, tokens: int) -> None:
    if tokens >= engine.config.block_size:
        room = engine.config.block_size
        raise ValueError(f"--context and --tokens make {tokens} tokens, the model holds {room}; ask for fewer")


def peak_rss() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def machine(engine: Engine, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "device": torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else str(engine.device),
        "dtype": engine.precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "model": engine.name,
        **{name: getattr(args, name) for name in ("context", "tokens", "repeats")},
    }


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'':26}{'decode':>10}{'':>8}{'prefill':>10}   (tokens/s, and Glassbox relative to it)"]
    for name in ("glassbox", *PEERS):
        cells = f"{name:26}"
        for kind in ("decode", "prefill"):
            rate, ratio = report[kind][name], report["ratios"][kind].get(name)
            cells += f"{'-' if rate is None else f'{rate:.1f}':>10}" + (f"{ratio:7.2f}x" if ratio else " " * 8)
        lines.append(cells.rstrip())
    peak = report["peak_rss_bytes"]
    lines += [
        "",
        *sampling_lines(report["sampling"]),
        *attention_lines(report["attention"]),
        *sessions_lines(report["sessions"]),
        f"keeping queries costs {100 * report['queries_cost']:.1f} % of decode speed",
        f"a token adds {report['session_bytes_per_token']:,} bytes to its session",
        f"loading takes {report['load_seconds']:.2f} s"
        + (f"; the process peaks at {peak / 1e6:,.0f} MB" if peak else ""),
        ", ".join(f"{key} {value}" for key, value in report["machine"].items()),
    ]
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpt.bench", description="Measure speed and memory, beside others.")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="a name, a folder in Hugging Face layout, or a .gguf file"
    )
    parser.add_argument("--dtype", help="stored, float32, ...; transformers gets the nearest it has")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor threads, for everybody")
    parser.add_argument("--context", type=int, default=256, help="tokens to read")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to write, at least 2")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the medians are taken")
    parser.add_argument("--load", action="store_true", help="measure loading instead, which writes 3 GB for a while")
    parser.add_argument("--graphs", action="store_true", help="step by CUDA graphs on a GPU (runner.py)")
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")
    parser.add_argument(
        "--peers", default=",".join(PEERS), help='whom to compare with, separated by commas; "" for nobody'
    )
    args = parser.parse_args(argv)
    args.peers = [name.strip() for name in args.peers.split(",") if name.strip()]
    if unknown := set(args.peers) - set(PEERS):
        parser.error(f"--peers knows {', '.join(PEERS)}; got {', '.join(sorted(unknown))}")
    if min(args.threads, args.context, args.tokens - 1, args.repeats) < 1:
        parser.error("--threads, --context and --repeats must be at least 1, --tokens at least 2")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse(argv)
    try:
        report = load_cost() if args.load else measure(args)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(load_lines(report)) if args.load else table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
