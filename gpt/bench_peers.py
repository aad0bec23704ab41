"""Other programs for the benchmark, each behind one method: read tokens, then write some.

llama.cpp runs in this process through the package xllamacpp, transformers through its `generate`. What is not
installed or cannot read the checkpoint is left out, and said so.
"""

import sys
import time
from collections.abc import Iterator, Sequence
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
    """llama.cpp in this process, through xllamacpp. Needs a GGUF file."""

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


def load_transformers(path: Path, engine: Engine) -> Any:
    """The same checkpoint as transformers reads it, in the engine's dtype, on its device."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place = {"gguf_file": path.name} if path.is_file() else {}
    folder = path.parent if path.is_file() else path
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=engine.dtype, **place)
    return model.to(engine.device).eval()


def peers(
    names: Sequence[str], path: Path, engine: Engine, context: int, threads: int
) -> Iterator[tuple[str, Program]]:
    """The wanted programs that can run here; why another cannot is said on standard error."""
    shared: list[Any] = []
    for name in names:
        try:
            if name == "llama.cpp":
                yield name, LlamaCpp(path, context, threads)
            else:
                shared = shared or [load_transformers(path, engine)]
                yield name, Transformers(shared[0], name.endswith("attentions"))
        except (ImportError, ValueError, RuntimeError, OSError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
