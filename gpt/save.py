"""A model that we hold -> a folder in Hugging Face layout, which transformers loads and which gives the same logits.

The exact inverse of loading: config.json by hf_config.py, tensors by the tables of names.py, dequantised where they are
held in codes; the tokenizer and the settings for generation come from the checkpoint that the model was read from. The
folder appears whole or not at all. What transformers has no words for is refused.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt import vocabulary
from gpt.engine import Engine
from gpt.hf_config import config_to_hf
from gpt.model import GPT
from gpt.names import HF_HEAD, HF_NAMES, HF_PREFIX, To, rows_of
from gpt.quant import QuantEmbedding, precision_of
from gpt.weights import GGUFFile

__all__ = ["SHARD_BYTES", "save"]

SHARD_BYTES = 2 << 30
"""The size from which the weights are cut into several files, each of which is held in memory while it is written."""

_COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def save(model: GPT | Engine, folder: str | Path, dtype: torch.dtype | None = None, source: Path | None = None) -> None:
    """Write `model` to a new folder: config.json, safetensors of `dtype`, tokenizer.

    `dtype` is by default what most weights are held in, float32 for those in codes.

    `source` is the checkpoint that it was read from, a folder or a GGUF file: an engine knows its own. Raises
    ValueError for a folder that holds something already or a model that cannot be written so, OSError when there is no
    room.
    """
    if isinstance(model, Engine):
        model, source = model.model, source or model.source
    folder, held = Path(folder), getattr(torch, precision_of(model))
    dtype = dtype or (held if held.is_floating_point else model.dtype)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something already; give the name of a new folder")
    config = config_to_hf(model.config) | dict.fromkeys(_IDS) | {"torch_dtype": str(dtype).removeprefix("torch.")}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        part = Path(made, "model")
        part.mkdir()
        if source is not None:
            config |= _tokenizer_files(source, part)
        _write_json(part / "config.json", config)
        _write_weights(part, list(_entries(model)), dtype)
        part.replace(folder)


class _Entry(NamedTuple):
    """A tensor of the folder: its full name, where it is held, and how the file wants it."""

    name: str
    module: nn.Module
    kind: str
    to: To
    model: GPT

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """The tensor, made for the file."""
        module = self.module.table if isinstance(self.module, QuantEmbedding) else self.module
        x = getattr(module, self.kind).detach()[rows_of(self.model.config, self.to.rows)]
        if self.to.less:
            x = x.float() - self.to.less
        if self.to.order == "transposed" and x.dim() == 2:
            x = x.T
        if self.to.order == "by head":
            x = x.unflatten(0, (3, -1, self.model.config.head_dim)).transpose(0, 1).flatten(0, 2)
        return x.to("cpu", dtype).contiguous()


def _entries(model: GPT) -> Iterator[_Entry]:
    family = model.config.family
    for theirs, to in HF_NAMES[family].items():
        if to.module == "lm_head" and model.config.tied:
            continue
        name = f"{HF_PREFIX.get(family, 'model.')}{theirs}" if to.module != "lm_head" else HF_HEAD.get(family, theirs)
        for i in range(model.config.n_layer if "{i}" in theirs else 1):
            module = model.get_submodule(to.module.format(i=i))
            for kind in ("weight", "bias"):
                if kind == "weight" or getattr(module, "bias", None) is not None:
                    yield _Entry(f"{name}.{kind}".format(i=i), module, kind, to, model)


def _write_weights(folder: Path, entries: list[_Entry], dtype: torch.dtype) -> None:
    """One file, or several of SHARD_BYTES at most with an index, each made of one piece after another."""
    shards: list[Path] = []
    places: dict[str, int] = {}
    held: dict[str, Tensor] = {}
    total = size = 0
    for entry in entries:
        tensor = entry.tensor(dtype)
        if held and size + tensor.nbytes > SHARD_BYTES:
            shards.append(_write_shard(folder, len(shards), held))
            held, size = {}, 0
        held[entry.name], places[entry.name] = tensor, len(shards)
        size, total = size + tensor.nbytes, total + tensor.nbytes
    shards.append(_write_shard(folder, len(shards), held))
    if len(shards) == 1:
        shards[0].rename(folder / "model.safetensors")
        return
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for path, name in zip(shards, names, strict=True):
        path.rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[i] for name, i in places.items()}}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_shard(folder: Path, number: int, tensors: dict[str, Tensor]) -> Path:
    path = folder / f"{number}.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


def _tokenizer_files(source: Path, folder: Path) -> dict[str, Any]:
    """Put the tokenizer of `source` into `folder`; the ids of special tokens for config.json."""
    if source.is_dir():
        for path in (source / name for name in _COPIED):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        config = json.loads((source / "config.json").read_text("utf-8"))
        return {key: config[key] for key in _IDS if key in config}
    return _from_gguf(GGUFFile(source).fields, folder)


def _from_gguf(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    vocab = vocabulary.from_gguf(fields)
    tokens = fields["tokenizer.ggml.tokens"]
    ids = {key: fields.get(f"tokenizer.ggml.{key}") for key in ("bos_token_id", "eos_token_id")}
    spec = dict(vocab.spec)
    if vocab.bos is not None and not spec.get("post_processor"):
        spec["post_processor"] = _bos_first(tokens[vocab.bos], vocab.bos)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": vocab.bos is not None}
    config |= {key.removesuffix("_id"): tokens[i] for key, i in ids.items() if i is not None}
    if template := fields.get("tokenizer.chat_template"):
        config["chat_template"] = template
    _write_json(folder / "tokenizer.json", {"version": "1.0", **spec})
    _write_json(folder / "tokenizer_config.json", config)
    ends = sorted(vocab.end_tokens)
    _write_json(folder / "generation_config.json", {**ids, **({"eos_token_id": ends} if ends else {})})
    return ids


def _bos_first(name: str, token: int) -> dict[str, Any]:
    """The step of a tokenizer.json that puts a token before every text."""
    single = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
    known = {name: {"id": name, "ids": [token], "tokens": [name]}}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}
