"""A GPT that runs on this machine, and everything that can be read off it while it answers.

>>> from gpt import load, SamplingParams
>>> engine = load("smollm2-135m-instruct")
>>> session = engine.session("Who wrote Hamlet?", SamplingParams(temperature=0, max_new_tokens=40))
>>> for event in engine.stream(session):
...     print(event.text, end="", flush=True)
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gpt.checkpoint import Checkpoint
    from gpt.engine import Engine
    from gpt.params import SamplingParams

__all__ = ["DEFAULT_MODEL", "SamplingParams", "load"]

# Torch's threads wait for each other some hundred times a token. If they spin while they wait, as is the default, a
# browser on the same cores makes them ten times slower. Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DEFAULT_MODEL = "smollm2-135m-instruct"


def load(
    name: str = DEFAULT_MODEL,
    device: str | None = None,
    dtype: "str | torch.dtype | None" = None,
    progress: Callable[[str, int, int], None] | None = None,
    query_bytes: int | None = None,
) -> "Engine":
    """Load a model by catalogue name, folder in Hugging Face layout, or .gguf path, and return its engine.

    `device` defaults to a GPU when there is one, `dtype` to bfloat16 there. On a processor it defaults to "quantised"
    where that can be, which leaves the matrices of a GGUF file in the codes that it stores and computes in float32
    (quant.py), else to float32; bfloat16 and float16 can be asked for too. `progress(stage, done, total)` is told about
    downloads, in bytes. `query_bytes` bounds what a session keeps for its attention: of a longer text, the rows of the
    last positions can be derived; None keeps all.
    Raises ValueError or RuntimeError with one sentence that says what was expected.
    """
    if query_bytes is not None and query_bytes <= 0:
        raise ValueError(f"the memory for a conversation's attention must be more than 0, got {query_bytes / 1e6:g} MB")
    import torch

    from gpt.catalog import resolve
    from gpt.chat import ChatTemplate
    from gpt.checkpoint import open_checkpoint
    from gpt.engine import Engine
    from gpt.tokenizer import Tokenizer

    place = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = None if dtype is None else _dtype(dtype)
    checkpoint = open_checkpoint(resolve(name, progress))
    if checkpoint.fields is None:
        tokenizer = Tokenizer.from_folder(checkpoint.path)
        chat = ChatTemplate.from_folder(checkpoint.path, tokenizer)
    else:
        tokenizer = Tokenizer.from_gguf(checkpoint.fields)
        chat = ChatTemplate.from_gguf(checkpoint.fields, tokenizer)
    quantised = False
    if wanted in (None, "quantised"):
        obstacle = _obstacle_to_codes(checkpoint, place)
        if wanted and obstacle:
            raise ValueError(f"quantised needs {obstacle}; give another dtype")
        quantised, wanted = not obstacle, torch.float32 if place.type == "cpu" else torch.bfloat16
    engine = Engine(checkpoint.model(place, wanted, quantised), tokenizer, chat, checkpoint.name)
    engine.query_bytes, engine.source = query_bytes, checkpoint.path
    return engine


def _device(name: str) -> "torch.device":
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here ({error}); try cpu, or cuda with a GPU") from error
    return device


def _obstacle_to_codes(checkpoint: "Checkpoint", device: "torch.device") -> str | None:
    """What is missing for leaving the matrices of a checkpoint in their codes; None when nothing is."""
    from gpt.native import kernels

    if device.type != "cpu":
        return f"a processor, and not {device}"
    if not checkpoint.is_quantised:
        return f"a quantised GGUF file such as Q4_1, Q4_K or Q8_0, which {checkpoint.name} is not"
    return None if kernels() else "a C compiler (gcc or clang) that makes working code here"


def _dtype(name: "str | torch.dtype") -> "str | torch.dtype":
    import torch

    dtypes = {"quantised": "quantised", "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in (*dtypes, *dtypes.values()):
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, got {name!r}")
    return dtypes.get(name, name)


def __getattr__(name: str) -> object:
    if name == "SamplingParams":
        from gpt.params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'gpt' has no attribute {name!r}")
