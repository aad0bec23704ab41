"""Checkpoints on disk -> GPT: GGUF files, and folders in Hugging Face layout (config.json and safetensors).

Opening reads the description only; `Checkpoint.model` then writes every tensor straight into the parameters
of a model that was never initialised. Whatever is missing, left over, misshapen or stored in a way that is
unknown here is refused by name, and nothing is ever unpickled. Sources: the GGUF specification; llama.cpp's
converter (tensor names, the interleaved rotary order of q and k); the `gguf` library (dequantisation);
Hugging Face transformers (names).
"""

import json
import math
import os
import re
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gpt.config import GPTConfig
from gpt.model import GPT

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]


class CheckpointError(ValueError):
    """The checkpoint cannot be used. The message names the file, what is wrong with it and what to do."""


class _To(NamedTuple):
    """Where the tensors of one module of a file go: rows of one of our modules, and how the file orders them.

    "transposed" is GPT-2's Conv1D, (in, out). "interleaved" is llama.cpp's rotary order: the rows of a head
    come as 0, D/2, 1, D/2 + 1, ...
    """

    module: str
    rows: str = "all"
    order: str = "plain"


_GGUF_COMMON = {
    "token_embd": _To("wte"),
    "blk.{i}.attn_norm": _To("blocks.{i}.norm_1"),
    "blk.{i}.attn_output": _To("blocks.{i}.attn.out"),
    "blk.{i}.ffn_norm": _To("blocks.{i}.norm_2"),
    "blk.{i}.ffn_down": _To("blocks.{i}.mlp.down"),
    "output_norm": _To("norm_f"),
    "output": _To("lm_head"),
}
_GGUF_GPT2 = _GGUF_COMMON | {
    "position_embd": _To("wpe"),
    "blk.{i}.attn_qkv": _To("blocks.{i}.attn.qkv"),
    "blk.{i}.ffn_up": _To("blocks.{i}.mlp.up"),
}
_GGUF_LLAMA = _GGUF_COMMON | {
    "blk.{i}.attn_q": _To("blocks.{i}.attn.qkv", "q", "interleaved"),
    "blk.{i}.attn_k": _To("blocks.{i}.attn.qkv", "k", "interleaved"),
    "blk.{i}.attn_v": _To("blocks.{i}.attn.qkv", "v"),
    "blk.{i}.ffn_gate": _To("blocks.{i}.mlp.up", "gate"),
    "blk.{i}.ffn_up": _To("blocks.{i}.mlp.up", "up"),
}
_HF_GPT2 = {
    "wte": _To("wte"),
    "wpe": _To("wpe"),
    "h.{i}.ln_1": _To("blocks.{i}.norm_1"),
    "h.{i}.attn.c_attn": _To("blocks.{i}.attn.qkv", order="transposed"),
    "h.{i}.attn.c_proj": _To("blocks.{i}.attn.out", order="transposed"),
    "h.{i}.ln_2": _To("blocks.{i}.norm_2"),
    "h.{i}.mlp.c_fc": _To("blocks.{i}.mlp.up", order="transposed"),
    "h.{i}.mlp.c_proj": _To("blocks.{i}.mlp.down", order="transposed"),
    "ln_f": _To("norm_f"),
    "lm_head": _To("lm_head"),
}
_HF_LLAMA = {
    "embed_tokens": _To("wte"),
    "layers.{i}.input_layernorm": _To("blocks.{i}.norm_1"),
    "layers.{i}.self_attn.q_proj": _To("blocks.{i}.attn.qkv", "q"),
    "layers.{i}.self_attn.k_proj": _To("blocks.{i}.attn.qkv", "k"),
    "layers.{i}.self_attn.v_proj": _To("blocks.{i}.attn.qkv", "v"),
    "layers.{i}.self_attn.o_proj": _To("blocks.{i}.attn.out"),
    "layers.{i}.post_attention_layernorm": _To("blocks.{i}.norm_2"),
    "layers.{i}.mlp.gate_proj": _To("blocks.{i}.mlp.up", "gate"),
    "layers.{i}.mlp.up_proj": _To("blocks.{i}.mlp.up", "up"),
    "layers.{i}.mlp.down_proj": _To("blocks.{i}.mlp.down"),
    "norm": _To("norm_f"),
    "lm_head": _To("lm_head"),
}
_GGUF_TABLES = {"gpt2": _GGUF_GPT2, "llama": _GGUF_LLAMA}
_HF_TABLES = {"gpt2": _HF_GPT2, "llama": _HF_LLAMA}
_HF_PREFIX = re.compile(r"^(transformer|model)\.")
_HF_DERIVED = re.compile(r"h\.\d+\.attn\.(masked_)?bias|(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_HF_DTYPES = ("F64", "F32", "F16", "BF16")
_PIECE = 1 << 19  # numbers dequantised at once: few enough to need little memory, enough to keep threads busy


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


@dataclass
class Checkpoint:
    """A checkpoint that has been opened; no weight is read yet.

    `fields` is the metadata of a GGUF file as plain values (token lists included), None for a folder.
    """

    path: Path
    name: str
    config: GPTConfig
    fields: dict[str, Any] | None
    weights: "_SafeTensors | _Gguf" = field(repr=False)

    def model(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> GPT:
        """A new GPT that holds the weights, in eval mode and without gradients.

        Raises CheckpointError when a tensor is missing, left over, misshapen or of an unknown kind.
        """
        with torch.device(device), _Bare(dtype):
            model = GPT(self.config)
        model.to(dtype).eval().requires_grad_(False)
        plan = _plan(self.weights.table, model)
        self._refuse_differences(plan, model)
        self._fill(plan, model)
        return model

    def _refuse_differences(self, plan: Mapping[str, _To], model: GPT) -> None:
        shapes, again = self.weights.shapes, {"lm_head.weight"} if self.config.tied else set()
        if missing := sorted(plan.keys() - shapes.keys()):
            raise self._error(f"lacks {_some(missing)}; it is incomplete, fetch it again")
        if extra := sorted(shapes.keys() - plan.keys() - again):
            raise self._error(f"holds {_some(extra)}, which this architecture lacks; use another checkpoint")
        for name, to in plan.items():
            expected = tuple(_destination(model, to).shape)
            expected = expected[::-1] if to.order == "transposed" else expected
            if shapes[name] != expected:
                raise self._error(f"has {name} of shape {shapes[name]}, its config asks for {expected}")

    def _fill(self, plan: Mapping[str, _To], model: GPT) -> None:
        def fill(item: tuple[str, _To]) -> None:
            name, to = item
            self.weights.copy(name, _destination(model, to), to.order, self.config.head_dim)

        try:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(fill, plan.items()))
            if self.config.tied and "lm_head.weight" in self.weights.shapes:
                self._require_tied(model)
        except (NotImplementedError, SafetensorError, OSError) as error:
            raise self._error(f"cannot be read: {error}; fetch it again or use another one") from error

    def _require_tied(self, model: GPT) -> None:
        """A file may hold the tied matrix a second time, under the head's name, if it is the same."""
        head = torch.empty_like(model.wte.weight)
        self.weights.copy("lm_head.weight", head, "plain", self.config.head_dim)
        if not torch.equal(head, model.wte.weight):
            raise self._error("says tie_word_embeddings but holds another lm_head.weight; correct it")

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


def _plan(table: Mapping[str, _To], model: GPT) -> dict[str, _To]:
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


def _destination(model: GPT, to: _To) -> Tensor:
    """The rows of our parameter that `to` names, as a view."""
    c = model.config
    k, v = c.n_head * c.head_dim, (c.n_head + c.n_kv_head) * c.head_dim
    rows = {
        "all": slice(None), "q": slice(0, k), "k": slice(k, v), "v": slice(v, None),
        "gate": slice(0, c.d_mlp), "up": slice(c.d_mlp, None),
    }
    return model.get_parameter(to.module).data[rows[to.rows]]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - 4} more tensors" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest


# ---- folders in Hugging Face layout


class _SafeTensors:
    """One or several .safetensors files. Names lose the prefix that tells a whole model from its body."""

    def __init__(self, files: Iterable[Path], table: Mapping[str, _To]) -> None:
        self.table, self.shapes, self._places = table, {}, {}
        for path in files:
            self._add(path)

    def _add(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise CheckpointError(f"has a broken {path.name} ({error}); fetch it again") from error
        for full in file.keys():  # noqa: SIM118 (not a dict)
            name, tensor = _HF_PREFIX.sub("", full), file.get_slice(full)
            if _HF_DERIVED.fullmatch(name):
                continue
            if tensor.get_dtype() not in _HF_DTYPES:
                raise CheckpointError(f"stores {name} as {tensor.get_dtype()}; use full precision or a GGUF")
            self.shapes[name] = tuple(tensor.get_shape())
            self._places[name] = file, full

    def copy(self, name: str, out: Tensor, order: str, head_dim: int) -> None:
        file, full = self._places[name]
        tensor = file.get_tensor(full)
        out.copy_(tensor.T if order == "transposed" and tensor.dim() == 2 else tensor)


def _open_folder(path: Path) -> Checkpoint:
    config = _read_json(path / "config.json")
    shape = GPTConfig.from_hf(config)
    weights = _SafeTensors(_safetensors_files(path), _HF_TABLES[config["model_type"]])
    return Checkpoint(path, path.resolve().name, shape, None, weights)


def _safetensors_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if not index.is_file():
        raise CheckpointError("has no model.safetensors; pickles are never loaded, save it as safetensors")
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    if absent := [name for name in names if not (path / name).is_file()]:
        raise CheckpointError(f"lacks {_some(absent)}, which its index names; fetch it again")
    return [path / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"has no {path.name}; give a whole checkpoint folder or a .gguf file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"has a {path.name} that is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"has a {path.name} that is not a JSON object; fetch it again")
    return content


# ---- GGUF


class _Stored(NamedTuple):
    """A tensor of a GGUF file: the bytes start:stop of the file, in blocks of one quantisation."""

    kind: GGMLQuantizationType
    start: int
    stop: int


class _Header:
    """Reads the values at the start of a GGUF file one after another, and refuses to run past its end."""

    CODES = {
        GGUFValueType.UINT8: "B", GGUFValueType.UINT16: "H", GGUFValueType.UINT32: "I",
        GGUFValueType.INT8: "b", GGUFValueType.INT16: "h", GGUFValueType.INT32: "i",
        GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q", GGUFValueType.BOOL: "?",
        GGUFValueType.FLOAT32: "f", GGUFValueType.FLOAT64: "d",
    }

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> memoryview:
        self.at += size
        if self.at > len(self.data):
            raise CheckpointError("ends in the middle of its header; it is cut short, fetch it again")
        return self.data[self.at - size:self.at]

    def numbers(self, code: str, count: int) -> list[Any]:
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))

    def number(self, code: str) -> Any:
        return self.numbers(code, 1)[0]

    def texts(self, count: int) -> list[str]:
        """`count` strings. A vocabulary and its merges are 100,000 of them, hence the bare loop."""
        data, at, end, unpack, texts = self.data, self.at, len(self.data), struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            start = at + 8
            at = start + unpack(data, at)[0] if start <= end else end + 1
            if at > end:
                break
            texts.append(str(data[start:at], "utf-8"))
        self.at = at
        self.take(0)
        return texts

    def value(self, kind: int) -> Any:
        if kind == GGUFValueType.STRING:
            return self.texts(1)[0]
        if kind == GGUFValueType.ARRAY:
            kind, count = self.number("I"), self.number("Q")
            if kind == GGUFValueType.STRING:
                return self.texts(count)
            return self.numbers(self.code(kind), count)
        return self.number(self.code(kind))

    def code(self, kind: int) -> str:
        if kind not in self.CODES:
            raise CheckpointError(f"holds metadata of the unknown type {kind}; it is damaged, fetch it again")
        return self.CODES[kind]


class _Gguf:
    """The metadata and the tensors of one GGUF file, which stays mapped into memory."""

    table: Mapping[str, _To]

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < 24:
            raise CheckpointError("is too short to be a GGUF file; fetch it again")
        self.data = np.memmap(path, mode="c")  # copy on write: torch warns about memory that it may not write
        header = _Header(memoryview(self.data))
        if header.take(4) != b"GGUF":
            raise CheckpointError("is not a GGUF file; give a .gguf file or a folder with config.json")
        version = header.number("I")
        if version not in (2, 3):
            raise CheckpointError(f"is GGUF version {version}; little-endian versions 2 and 3 are supported")
        n_tensors, n_fields = header.numbers("Q", 2)
        self.fields: dict[str, Any] = {}
        for _ in range(n_fields):
            key = header.value(GGUFValueType.STRING)
            self.fields[key] = header.value(header.number("I"))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.stored: dict[str, _Stored] = {}
        self._read_places(header, n_tensors)

    def _read_places(self, header: _Header, count: int) -> None:
        kinds = {}
        for _ in range(count):
            name = header.value(GGUFValueType.STRING)
            self.shapes[name] = tuple(reversed(header.numbers("Q", header.number("I"))))
            kinds[name] = header.number("I"), header.number("Q")
        alignment = self.fields.get("general.alignment", 32)
        base = -(-header.at // alignment) * alignment  # rounded up
        for name, (kind, offset) in kinds.items():
            self.stored[name] = self._place(name, kind, base + offset)

    def _place(self, name: str, kind: int, start: int) -> _Stored:
        if kind not in gguf.GGML_QUANT_SIZES:
            raise CheckpointError(f"stores {name} in the unknown quantisation {kind}; use another file")
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if not self.shapes[name] or self.shapes[name][-1] % per_block:
            raise CheckpointError(f"stores rows of {name} in parts of blocks; it is damaged, fetch it again")
        stop = start + math.prod(self.shapes[name]) // per_block * block_bytes
        if stop > len(self.data):
            missing = stop - len(self.data)
            raise CheckpointError(f"is cut short, {missing} bytes of {name} are missing; fetch it again")
        return _Stored(GGMLQuantizationType(kind), start, stop)

    def copy(self, name: str, out: Tensor, order: str, head_dim: int) -> None:
        """Dequantise into `out`, a contiguous tensor, piece by piece."""
        kind, start, stop = self.stored[name]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        data = self.data[start:stop]
        if order == "interleaved":
            data = data.reshape(-1, head_dim // 2, 2, len(data) // out.shape[0]).swapaxes(1, 2)
        data, out, step = data.reshape(-1), out.view(-1), max(_PIECE // per_block, 1)
        for first in range(0, out.numel() // per_block, step):
            piece = data[first * block_bytes:(first + step) * block_bytes]
            values = gguf.dequantize(piece[None], kind)[0]
            out[first * per_block:(first + step) * per_block] = torch.from_numpy(values)


def _open_gguf(path: Path) -> Checkpoint:
    weights = _Gguf(path)
    config = GPTConfig.from_gguf(weights.fields)
    config = replace(config, tied="output.weight" not in weights.shapes)
    weights.table = _GGUF_TABLES[weights.fields["general.architecture"]]
    _drop_unit_rope_factors(weights)
    return Checkpoint(path, path.stem, config, weights.fields, weights)


def _drop_unit_rope_factors(weights: _Gguf) -> None:
    """Llama 3's factors on the rotary frequencies: all ones change nothing, others are refused."""
    if "rope_freqs.weight" not in weights.shapes:
        return
    factors = torch.empty(weights.shapes.pop("rope_freqs.weight"))
    weights.copy("rope_freqs.weight", factors, "plain", 0)
    if not torch.all(factors == 1):
        raise CheckpointError("scales its rotary frequencies (rope_freqs.weight), which is not supported")
