"""llama.cpp's own samplers, called in the library that the package xllamacpp carries; structures as in its llama.h."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_bool, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

_SIGNATURES = {
    "top_k": (c_int32,),
    "top_p": (c_float, c_size_t),
    "min_p": (c_float, c_size_t),
    "typical": (c_float, c_size_t),
    "temp_ext": (c_float, c_float, c_float),
    "top_n_sigma": (c_float,),
    "xtc": (c_float, c_float, c_size_t, c_uint32),
    "mirostat_v2": (c_uint32, c_float, c_float),
    "penalties": (c_int32, c_int32, c_float, c_float, c_float),
    "logit_bias": (c_int32, c_int32, c_void_p),
}
_DRY = "_Z30llama_sampler_init_dry_testingffiiRKSt6vectorIS_IiSaIiEESaIS1_EE"


class _TokenData(ctypes.Structure):
    _fields_ = [("id", c_int32), ("logit", c_float), ("p", c_float)]


class _TokenDataArray(ctypes.Structure):
    _fields_ = [("data", POINTER(_TokenData)), ("size", c_size_t), ("selected", c_int64), ("sorted", c_bool)]


class _LogitBias(ctypes.Structure):
    _fields_ = [("token", c_int32), ("bias", c_float)]


class _Vector(ctypes.Structure):
    """A std::vector: where its items begin and end, and where its memory does."""

    _fields_ = [("begin", c_void_p), ("end", c_void_p), ("capacity", c_void_p)]


def _vector(items: ctypes.Array) -> _Vector:
    start = ctypes.addressof(items)
    return _Vector(start, start + ctypes.sizeof(items), start + ctypes.sizeof(items))


@cache
def _function(name: str, *types: type, result: type | None = None) -> Callable:
    library = ctypes.CDLL(str(next(Path(find_spec("xllamacpp").submodule_search_locations[0]).glob("xllamacpp*.so"))))
    function = library[name]
    function.argtypes, function.restype = types, result
    return function


def sample(name: str, *values: float, logits: Tensor, history: Sequence[int] = ()) -> Tensor:
    """What the sampler `llama_sampler_init_<name>(*values)` makes of logits (V,) after a history: (V,), -inf: gone."""
    init = _function(f"llama_sampler_init_{name}", *_SIGNATURES[name], result=c_void_p)
    return _apply(init(*values), logits, history)


def bias(biases: dict[int, float], logits: Tensor) -> Tensor:
    array = (_LogitBias * len(biases))(*(_LogitBias(*pair) for pair in biases.items()))
    return sample("logit_bias", len(logits), len(biases), ctypes.addressof(array), logits=logits)


def dry(
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int,
    breakers: Sequence[int],
    logits: Tensor,
    history: Sequence[int],
) -> Tensor:
    """DRY with single tokens as breakers."""
    items = [(c_int32 * 1)(token) for token in breakers]
    inner = (_Vector * len(items))(*map(_vector, items))
    outer = _vector(inner)
    init = _function(_DRY, c_float, c_float, c_int32, c_int32, c_void_p, result=c_void_p)
    return _apply(init(multiplier, base, allowed, last_n, ctypes.addressof(outer)), logits, history)


def _apply(sampler: int, logits: Tensor, history: Sequence[int]) -> Tensor:
    for token in history:
        _function("llama_sampler_accept", c_void_p, c_int32)(sampler, token)
    data = (_TokenData * len(logits))(*(_TokenData(i, x, 0) for i, x in enumerate(logits.tolist())))
    array = _TokenDataArray(data, len(logits), -1, False)
    _function("llama_sampler_apply", c_void_p, POINTER(_TokenDataArray))(sampler, ctypes.byref(array))
    out = torch.full_like(logits, -torch.inf)
    for item in array.data[: array.size]:
        out[item.id] = item.logit
    _function("llama_sampler_free", c_void_p)(sampler)
    return out
