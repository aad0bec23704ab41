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
    revision: str | None = None,
) -> "Engine":
    """Load a model by name and return its engine.

    The name is one of `catalog.known()`, owner/name on the Hugging Face hub (with /file.gguf or :Q4_K_M for a GGUF, and
    @revision or `revision` for one that is not the newest), a folder in Hugging Face layout, or a .gguf path.
    `device` defaults to a CUDA GPU when there is one; what `dtype` defaults to on each device stands in precision.py.
    `progress(stage, done, total)` is told about fetching and reading, in bytes, and stops it by raising whatever it
    likes. `query_bytes` bounds what a session keeps for its attention: of a longer text, the rows of the last positions
    can be derived; None keeps all.
    Raises ValueError or RuntimeError with one sentence that says what was expected, before anything large is fetched
    where that can be known.
    """
    if query_bytes is not None and query_bytes <= 0:
        raise ValueError(f"the memory for a conversation's attention must be more than 0, got {query_bytes / 1e6:g} MB")
    from gpt.catalog import find, opened
    from gpt.chat import ChatTemplate
    from gpt.engine import Engine
    from gpt.estimate import held_by, require
    from gpt.fetching import quiet
    from gpt.precision import choose, device_of, dtype_of
    from gpt.tokenizer import Tokenizer

    place, wanted, progress = device_of(device), dtype_of(dtype), progress or quiet
    source = find(name, revision, progress)
    if source.missing:
        require(source, place, wanted, source.missing)
    checkpoint = opened(source, progress)
    require(checkpoint, place, wanted)
    if checkpoint.fields is None:
        tokenizer = Tokenizer.from_folder(checkpoint.path)
        chat = ChatTemplate.from_folder(checkpoint.path, tokenizer)
    else:
        tokenizer = Tokenizer.from_gguf(checkpoint.fields)
        chat = ChatTemplate.from_gguf(checkpoint.fields, tokenizer)
    model = checkpoint.model(place, *choose(held_by(checkpoint), place, wanted), progress)
    engine = Engine(model, tokenizer, chat, checkpoint.name)
    engine.query_bytes, engine.source = query_bytes, checkpoint.path
    return engine


def __getattr__(name: str) -> object:
    if name == "SamplingParams":
        from gpt.params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'gpt' has no attribute {name!r}")
