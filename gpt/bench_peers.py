"""Other programs for the benchmark, each behind one method: read tokens, then write some.

llama.cpp runs through the package xllamacpp, transformers through its `generate`, each in a process of its own. What is
not installed or cannot read the checkpoint is left out, and said so.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gpt.engine import Engine

__all__ = ["PEERS", "LlamaCpp", "Program", "Speed", "Transformers", "peers", "speed"]

PEERS = ("llama.cpp", "transformers", "transformers+attentions")


class Speed(NamedTuple):
    """Tokens per second."""

    prefill: float
    decode: float


def speed(context: int, times: Sequence[float]) -> Speed:
    """From the seconds that each written token took; the first one includes reading the context."""
    return Speed(context / times[0], (len(times) - 1) / sum(times[1:]))


class Program(Protocol):
    """Something that can read tokens and go on writing."""

    def run(self, prompt: list[int], n: int) -> Speed: ...


class LlamaCpp:
    """llama.cpp through xllamacpp. Needs a GGUF file."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import xllamacpp

        if path.suffix.lower() != ".gguf":
            raise ValueError("it reads GGUF files only")
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(path), context, 1, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(params)

    def run(self, prompt: list[int], n: int) -> Speed:
        request = {"prompt": prompt, "n_predict": n, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        t = self.server.handle_completions(request)["timings"]
        # Its clock for writing starts at the first token, so n - 1 are written in that time.
        return Speed(1e3 * t["prompt_n"] / t["prompt_ms"], 1e3 * (t["predicted_n"] - 1) / t["predicted_ms"])


class Transformers:
    """Hugging Face `generate`. To return attentions it must compute them eagerly."""

    def __init__(self, model: Any, attentions: bool) -> None:
        self.model, self.attentions = model, attentions

    def run(self, prompt: list[int], n: int) -> Speed:
        self.model.set_attn_implementation("eager" if self.attentions else "sdpa")
        tokens, clock = torch.tensor([prompt], device=self.model.device), _Clock()
        length = {"max_new_tokens": n, "min_new_tokens": n}
        kept = {"output_attentions": self.attentions, "return_dict_in_generate": True}
        mask = torch.ones_like(tokens)
        self.model.generate(
            tokens, attention_mask=mask, do_sample=False, pad_token_id=0, stopping_criteria=[clock], **length, **kept
        )
        return speed(len(prompt), [b - a for a, b in zip(clock.ticks, clock.ticks[1:], strict=False)])


class _Clock:
    """A stopping criterion that never stops, but notes when it was asked: after every token."""

    def __init__(self) -> None:
        self.ticks = [time.perf_counter()]

    def __call__(self, tokens: Tensor, scores: Tensor, **_: Any) -> Tensor:
        self.ticks.append(time.perf_counter())
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)


def load_transformers(path: Path, dtype: torch.dtype, device: str) -> "Both":
    """The same checkpoint as transformers reads it; one model for both ways of generating."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **place)
    model = model.to(device).eval()
    return Both(Transformers(model, False), Transformers(model, True))


class Both(NamedTuple):
    """Generating without and with attentions."""

    plain: Transformers
    attentions: Transformers


# ---- each in a process of its own --------------------------------------------------------------------------


class Apart:
    """A program in a process of its own: what it loads must not slow the others down.

    llama.cpp, merely loaded beside torch, halves the speed of torch's threads. `make(*args)` makes the program there,
    or a tuple of programs, of which `run` takes one by number. Raises ValueError with what hindered it.
    """

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), make, args), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def run(self, prompt: list[int], n: int, number: int = 0) -> Speed:
        self._pipe.send((prompt, n, number))
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, value = self._pipe.recv()
        except EOFError:
            good, value = False, "its process ended"
        if not good:
            raise ValueError(value)
        return value


def _serve(pipe: Connection, threads: int, make: Callable[..., Any], args: tuple) -> None:
    """The other process: make the program, then run it as often as it is asked to."""
    torch.set_num_threads(threads)
    try:
        made = make(*args)
        programs = made if isinstance(made, tuple) else (made,)
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        pipe.send((False, str(error)))
        return
    pipe.send((True, None))
    with suppress(EOFError):  # the one who asks is gone
        while True:
            prompt, n, number = pipe.recv()
            pipe.send((True, programs[number].run(prompt, n)))


class _One(NamedTuple):
    """One of the programs in another process."""

    process: Apart
    number: int

    def run(self, prompt: list[int], n: int) -> Speed:
        return self.process.run(prompt, n, self.number)


def peers(
    names: Sequence[str], path: Path, engine: Engine, context: int, threads: int
) -> Iterator[tuple[str, Program]]:
    """The wanted programs that can run here; why another cannot is said on standard error."""
    both: Apart | None = None
    for name in names:
        try:
            if name == "llama.cpp":
                yield name, Apart(LlamaCpp, path, context, threads)
            else:
                both = both or Apart(load_transformers, path, engine.dtype, str(engine.device))
                yield name, _One(both, int(name.endswith("attentions")))
        except ValueError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
