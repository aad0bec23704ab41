"""What a folder in Hugging Face layout says before a weight is read: the shape in its config.json, which files hold it.

Values that no model can have, weights that are quantised in a way of their own, pickles and code are refused here, in
one sentence. Source: Hugging Face transformers (names).
"""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpt.config import GPTConfig, UnsupportedModel
from gpt.hf_config import config_from_hf
from gpt.weights import CheckpointError

__all__ = ["read_json", "safetensors_files", "shape_of", "some"]

_COUNTS = re.compile(
    r"num_(hidden_layers|attention_heads|key_value_heads)|(hidden|intermediate|vocab)_size|head_dim|"
    r"n_(layer|head|embd|positions|inner)|max_position_embeddings"
)
_NUMBERS = re.compile(r"rope_theta|rope_local_base_freq|rotary_emb_base|.*_eps(ilon)?")


def shape_of(config: dict[str, Any]) -> GPTConfig:
    """The shape that a parsed config.json describes.

    Raises CheckpointError for an architecture that is not supported, and for values that cannot be.
    """
    if config.get("quantization_config"):
        method = config["quantization_config"]
        method = method.get("quant_method", "an unknown method") if isinstance(method, dict) else method
        raise CheckpointError(f"is quantised with {method}, which cannot be read; use full precision or a GGUF")
    text = config.get("text_config")
    for key, value in (config | (text if isinstance(text, dict) else {})).items():
        if _COUNTS.fullmatch(key) and value is not None and not (type(value) is int and value > 0):
            raise CheckpointError(f"cannot be used: {key} must be a positive whole number, its config says {value!r}")
        if _NUMBERS.fullmatch(key) and value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise CheckpointError(f"cannot be used: {key} must be a positive number, its config says {value!r}")
    try:
        return config_from_hf(config)
    except UnsupportedModel as error:
        own = "; code of its own (auto_map) is never run" if "auto_map" in config else ""
        raise CheckpointError(f"cannot be used: {error}{own}") from error
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"cannot be used: {error}") from error


def safetensors_files(path: Path) -> list[Path]:
    """The files that hold the weights of a folder, one or several. Raises CheckpointError."""
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if not index.is_file():
        raise CheckpointError("has no model.safetensors; pickles are never loaded, save it as safetensors")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) and Path(n).name == n for n in places.values()):
        raise CheckpointError(f"has a {index.name} without weight_map; fetch it again")
    names = sorted(set(places.values()))
    if absent := [name for name in names if not (path / name).is_file()]:
        raise CheckpointError(f"lacks {some(absent)}, which its index names; fetch it again")
    return [path / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"has no {path.name}; give a whole checkpoint folder or a .gguf file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"has a {path.name} that is not JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"has a {path.name} that is not a JSON object; fetch it again")
    return content


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - 4} more tensors" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest
