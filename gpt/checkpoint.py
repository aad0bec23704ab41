"""Checkpoints on disk -> GPT: GGUF files, and folders in Hugging Face layout (config.json and safetensors).

Opening reads the description only; `Checkpoint.model` then writes every tensor straight into the parameters of a model
that was never initialised, by the tables of names.py. Whatever is missing, left over or misshapen is refused by name.
"""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt.config import GPTConfig
from gpt.fetching import Progress, quiet
from gpt.folder import read_json, safetensors_files, shape_of, some
from gpt.fused import fuse_blocks
from gpt.gguf_config import ROPE_FACTORS, config_from_gguf
from gpt.model import GPT
from gpt.names import GGUF_NAMES, HF_NAMES, To, hf_name, rows_of
from gpt.quant import QuantEmbedding, linear_of, with_quick_norms
from gpt.weights import CheckpointError, GGUFFile, SafeTensors

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]


class _Bare(TorchFunctionMode):
    """Parameters made under it are allocated in `dtype` and not initialised.

    The meta device would serve too, but it imports torch's compiler: 2 s.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return None
        kwargs = (kwargs or {}) | ({"dtype": self.dtype} if func is torch.empty else {})
        return func(*args, **kwargs)


class _Reading:
    """Tells how much of a file has been read: sizes of its tensors in bytes, and what is told."""

    def __init__(self, sizes: Mapping[str, int], progress: Progress) -> None:
        self.sizes, self.progress = sizes, progress
        self.done, self.total = 0, sum(sizes.values())

    def add(self, names: Iterable[str]) -> None:
        self.done += sum(self.sizes[name] for name in names)
        self.progress("read", self.done, self.total)

    def wait(self, names: dict[Future, str]) -> None:
        """Until all tensors are read, each in its future; an error, or what `progress` raises, leaves the rest."""
        pending = set(names)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    self.add([names[future]])
                if not done:
                    self.add([])
        finally:
            for future in pending:
                future.cancel()


@dataclass
class Checkpoint:
    """A checkpoint that has been opened; no weight is read yet.

    `fields` is the metadata of a GGUF file as plain values (token lists included), None for a folder.
    """

    path: Path
    name: str
    config: GPTConfig
    fields: dict[str, Any] | None
    weights: SafeTensors | GGUFFile = field(repr=False)
    table: Mapping[str, To] = field(repr=False)

    @torch.inference_mode(False)  # the caller may be in it, the threads that fill are not
    def model(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stored: bool = False,
        progress: Progress = quiet,
    ) -> GPT:
        """A new GPT that holds the weights, in eval mode and without gradients.

        `stored`: matrices that the file stores in groups of codes, or in 16 bits, stay so (quant.py); all else is of
        `dtype`.
        `progress("read", done, total)` is told the bytes of the file that have been read; what it raises ends this.
        Raises CheckpointError when a tensor is missing, left over, misshapen or of an unknown kind.
        """
        model = self._bare_model(device, dtype)
        plan = _plan(self.table, model)
        self._refuse_differences(plan, model)
        reading = _Reading({name: self.weights.nbytes(name) for name in plan}, progress)
        kept = self._pack(plan, model, reading) if stored else set()
        self._fill({name: to for name, to in plan.items() if name not in kept}, model, reading)
        return model

    @property
    def is_packed(self) -> bool:
        """Whether the file holds matrices that can stay as it stores them."""
        return any(map(self.weights.is_packed, self.weights.shapes))

    def _pack(self, plan: Mapping[str, To], model: GPT, reading: "_Reading") -> set[str]:
        """Put layers of weights as they are stored where that can be; the names of the tensors that this took."""
        matrices: dict[str, list[str]] = {}
        for name, to in plan.items():
            module, _, kind = to.module.rpartition(".")
            if kind == "weight":
                matrices.setdefault(module, []).append(name)
        taken: set[str] = set()
        for module, names in matrices.items():
            if not all(self.weights.is_packed(name, plan[name].order) for name in names):
                continue
            parts = [self.weights.packed(name, plan[name].order, self.config.head_dim) for name in names]
            parent, _, child = module.rpartition(".")
            old = model.get_submodule(module)
            made = linear_of(parts, getattr(old, "bias", None))  # the bias is filled later
            if self.config.tied and module == "wte":
                model.lm_head = made
            setattr(model.get_submodule(parent), child, made if isinstance(old, nn.Linear) else QuantEmbedding(made))
            taken.update(names)
            reading.add(names)
        fuse_blocks(model)
        with_quick_norms(model)
        return taken

    def _bare_model(self, device: torch.device | str, dtype: torch.dtype) -> GPT:
        if self.config.n_layer > len(self.weights.shapes):
            raise self._error(f"holds fewer tensors than its {self.config.n_layer} layers need; fetch it again")
        try:
            with torch.device(device), _Bare(dtype):
                model = GPT(self.config)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise self._error(f"does not fit into the memory of {device} ({reason}); choose a smaller one") from error
        return model.to(dtype).eval().requires_grad_(False)

    def _refuse_differences(self, plan: Mapping[str, To], model: GPT) -> None:
        shapes, again = self.weights.shapes, {"lm_head.weight"} if self.config.tied else set()
        if missing := sorted(plan.keys() - shapes.keys()):
            raise self._error(f"lacks {some(missing)}; it is incomplete, fetch it again")
        if extra := sorted(shapes.keys() - plan.keys() - again):
            raise self._error(f"holds {some(extra)}, which this architecture lacks; use another checkpoint")
        for name, to in plan.items():
            expected = tuple(_destination(model, to).shape)
            expected = expected[::-1] if to.order == "transposed" else expected
            if shapes[name] != expected:
                raise self._error(f"has {name} of shape {shapes[name]}, its config asks for {expected}")

    def _fill(self, plan: Mapping[str, To], model: GPT, reading: "_Reading") -> None:
        def fill(name: str, to: To) -> None:
            self._copy(name, to, _destination(model, to))

        try:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                reading.wait({pool.submit(fill, name, to): name for name, to in plan.items()})
            if self.config.tied and "lm_head.weight" in self.weights.shapes:
                self._require_tied(model)
        except CheckpointError as error:
            raise self._error(str(error)) from error.__cause__

    def _copy(self, name: str, to: To, out: Tensor) -> None:
        if not to.less:
            return self.weights.copy(name, out, to.order, self.config.head_dim)
        stored = torch.empty_like(out, dtype=torch.float32)  # a norm: small, and rounded once
        self.weights.copy(name, stored, to.order, self.config.head_dim)
        out.copy_(stored.add_(to.less))

    def _require_tied(self, model: GPT) -> None:
        """A file may hold the tied matrix a second time, under the head's name, if it is the same."""
        head = torch.empty_like(model.wte.weight)
        self.weights.copy("lm_head.weight", head)
        if not torch.equal(head, model.wte.weight):
            raise CheckpointError("says tie_word_embeddings but holds another lm_head.weight; correct it")

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"the checkpoint {self.path} {what}.")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .gguf file, or a folder that holds config.json and model.safetensors, whole or in shards.

    Raises CheckpointError for a file that is absent, broken, cut short or of an unsupported architecture.
    """
    path = Path(path)
    try:
        return _open_folder(path) if path.is_dir() else _open_gguf(path)
    except CheckpointError as error:
        raise CheckpointError(f"the checkpoint {path} {error}.") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be opened: {error.strerror}.") from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be used: {error}.") from error


def _plan(table: Mapping[str, To], model: GPT) -> dict[str, To]:
    """Every tensor that the file must hold -> the parameter (and rows of it) that it fills."""
    ours = {name for name, _ in model.named_parameters()}
    plan = {}
    for theirs, to in table.items():
        for i in range(model.config.n_layer if "{i}" in theirs else 1):
            for kind in ("weight", "bias"):
                target = f"{to.module}.{kind}".format(i=i)
                if target in ours:
                    plan[f"{theirs}.{kind}".format(i=i)] = to._replace(module=target)
    return plan


def _destination(model: GPT, to: To) -> Tensor:
    """The rows of our parameter that `to` names, as a view."""
    return model.get_parameter(to.module).data[rows_of(model.config, to.rows)]


def _open_folder(path: Path) -> Checkpoint:
    config = read_json(path / "config.json")
    shape = shape_of(config)
    weights = SafeTensors(safetensors_files(path), hf_name(config["model_type"]))
    return Checkpoint(path, path.resolve().name, shape, None, weights, HF_NAMES[shape.family])


def _open_gguf(path: Path) -> Checkpoint:
    weights = GGUFFile(path)
    factors = {name: _numbers(weights, name) for name in ROPE_FACTORS if name in weights.shapes}
    config = config_from_gguf(weights.fields, weights.shapes, factors)
    for name in factors:  # they are no parameters
        del weights.shapes[name]
    return Checkpoint(path, path.stem, config, weights.fields, weights, GGUF_NAMES[config.family])


def _numbers(weights: GGUFFile, name: str) -> tuple[float, ...]:
    """A tensor that belongs to the shape."""
    numbers = torch.empty(weights.shapes[name])
    weights.copy(name, numbers)
    return tuple(numbers.flatten().tolist())
