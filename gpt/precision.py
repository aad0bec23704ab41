"""Where and in which numbers a model computes: devices and dtypes by name, what suits them, what memory that takes.

What was asked for is done or refused. Otherwise: on a processor, matrices of a file of codes or of 16-bit numbers stay
as they are stored, and everything is computed in float32 (quant.py), which is exactly what the attention view is held
to. Other weights are float32, and so are those where there is no compiler for the kernels. Where that does not fit into
the free memory, 16 bits do: float16 for a checkpoint that is stored so, since nothing is lost, and bfloat16 for all
others, because it has float32's range. On a CUDA GPU bfloat16, or float16
where the GPU is too old for it; on Apple's GPU float16.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from gpt import native

__all__ = ["Holding", "Precision", "choose", "device_of", "dtype_of", "free_memory"]

_SLACK = 1.1  # of what float32 weights take: the conversation and the program need memory too
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CGROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


class Precision(NamedTuple):
    """What a model computes in, and whether matrices stay as they are stored."""

    dtype: torch.dtype
    stored: bool = False

    @property
    def name(self) -> str:
        return "stored" if self.stored else str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Holding:
    """What a checkpoint holds, as far as memory is concerned; of one that is not here yet, as far as it is known.

    `numbers` counts its weights, `stored` names what most are stored as ("BF16", "Q4_K"). `packed` is what the weights
    take in bytes when matrices stay as they are stored, None when none can.
    """

    name: str
    numbers: int
    stored: str
    packed: int | None = None

    def memory(self, precision: Precision) -> int:
        """Bytes that the weights take."""
        return self.packed or 0 if precision.stored else self.numbers * precision.dtype.itemsize


def device_of(name: str | None) -> torch.device:
    """The device of that name; None: a CUDA GPU when there is one, else the processor. Raises ValueError."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here ({error}); try cpu, or cuda with a GPU") from error
    return device


def dtype_of(name: str | torch.dtype | None) -> str | torch.dtype | None:
    """ "stored", or the dtype of that name; None for None. Raises ValueError."""
    names = ("stored", *_DTYPES)
    if name not in (None, *names, *_DTYPES.values()):
        raise ValueError(f"dtype must be one of {', '.join(names)}, got {name!r}")
    return _DTYPES.get(name, name)


def choose(holding: Holding, device: torch.device, wanted: str | torch.dtype | None = None) -> Precision:
    """What a model should compute in, as this module's docstring says. Raises ValueError for what cannot be."""
    if isinstance(wanted, torch.dtype):
        return Precision(wanted)
    obstacle = _obstacle_to_packing(holding, device)
    if wanted and obstacle:
        raise ValueError(f"stored needs {obstacle}; give another dtype")
    return Precision(_usual(holding, device)) if obstacle else Precision(torch.float32, stored=True)


def _obstacle_to_packing(holding: Holding, device: torch.device) -> str | None:
    """What is missing for leaving the matrices of a checkpoint as they are stored; None when nothing is."""
    if device.type != "cpu":
        return f"a processor, and not {device}"
    if holding.packed is None:
        return f"a checkpoint in 16 bits or a GGUF file such as Q4_1, Q4_K or Q8_0, which {holding.name} is not"
    return None if native.kernels() else "a C compiler (gcc or clang) that makes working code here"


def _usual(holding: Holding, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    if device.type != "cpu":
        return torch.bfloat16
    if _SLACK * holding.memory(Precision(torch.float32)) <= free_memory(device):
        return torch.float32
    return torch.float16 if holding.stored == "F16" else torch.bfloat16


def free_memory(device: torch.device) -> int:
    """Bytes that new weights can have on a device, what the system can take back from files included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = [psutil.virtual_memory().available, *(room for names in _CGROUPS for room in _container_room(*names))]
    return max(min(rooms), 0)


def _container_room(limit: str, used: str, place: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What a container still allows, in one of Linux's two ways of limiting it; empty where it sets no limit."""
    with suppress(OSError, ValueError):  # not there, or the word "max"
        top, now = (int((place / name).read_text()) for name in (limit, used))
        stat = dict(line.split() for line in (place / limit).with_name("memory.stat").read_text().splitlines())
        return [top - now + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))]
    return []
