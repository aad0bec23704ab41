"""Models by their name on the Hugging Face hub: what a repository holds, and how it gets into the library cache.

Weights are safetensors or GGUF: a pickle is never fetched, and code of a repository is never run. What is fetched lies
where every program that uses `huggingface_hub` looks for it (HF_HOME), and the library's settings hold: HF_TOKEN or a
login, HF_ENDPOINT, HF_HUB_OFFLINE. Files that are complete stay when a fetch is stopped; a connection that is cut is
taken up where it broke; a file that was stopped half-way starts anew, because the library names partial files anew.
Source: huggingface_hub 2.4 (API, cache layout, what it asks of a progress bar).
"""

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from gpt.download import Meter, plainly, watched
from gpt.fetching import FetchError, Progress, free_disk, in_words, quiet

__all__ = ["Reference", "Snapshot", "cache", "find", "kept"]

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_NAME = re.compile(
    r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:/(?P<file>[^:@]+\.gguf)|:(?P<kind>\w+))?(?:@(?P<revision>[^@\s]+))?",
    re.IGNORECASE,
)
_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./-]*")
_SECONDS = 10  # to wait for the hub's answer
_CHUNK = 1 << 18  # bytes between two reports of the library, which would make it ten million


@dataclass(frozen=True)
class Reference:
    """What a name asks for: `owner/name`, `owner/name/file.gguf` or `owner/name:Q4_K_M`, each with @revision or not."""

    repo: str
    file: str | None = None
    kind: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, name: str, revision: str | None = None) -> "Reference | None":
        """The reference that `name` is; None when it is no name of the hub. Raises ValueError for two revisions."""
        found = _NAME.fullmatch(name)
        if not found:
            return None
        if revision and found["revision"]:
            raise ValueError(f"{name} names a revision already; leave out {revision!r}")
        revision = revision or found["revision"]
        if revision and not _REVISION.fullmatch(revision):
            raise ValueError(f"a revision is a branch, a tag or a commit, got {revision!r}")
        return cls(found["repo"], found["file"], found["kind"], revision)


@dataclass(frozen=True)
class Snapshot:
    """What of a repository a model needs, at one commit; looked up, but not fetched.

    `files`: name -> bytes, the weights last. `config`: its config.json, None for a GGUF. Where the hub says so:
    `parameters`, numbers by kind ("BF16" -> count); `architecture`, the one in a GGUF's header; `blobs`, name -> the
    name under which the cache keeps that content, whatever commit it came with.
    """

    reference: Reference
    commit: str
    files: dict[str, int]
    config: dict[str, Any] | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    architecture: str | None = None
    blobs: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people: the repository, the revision if one was asked for, and the file if it is a GGUF."""
        revision = f"@{self.reference.revision}" if self.reference.revision else ""
        return self.reference.repo + revision + (f" ({Path(self.weights[0]).stem})" if self.config is None else "")

    @property
    def weights(self) -> list[str]:
        return [name for name in self.files if name.lower().endswith((".safetensors", ".gguf"))]

    @property
    def path(self) -> Path:
        """Where it lies once it is here: a folder, or a .gguf file."""
        folder = _folder(self.reference.repo, self.commit)
        return folder if self.config is not None else folder / self.weights[0]

    @property
    def missing(self) -> int:
        """Bytes still to be fetched."""
        return sum(self._sizes(self._absent).values())

    @property
    def _absent(self) -> list[str]:
        folder = _folder(self.reference.repo, self.commit)
        return [name for name in self.files if not (folder / name).is_file()]

    def _sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those files whose content is not here from another commit."""
        blobs = _folder(self.reference.repo, "").parent / "blobs"
        return {name: self.files[name] for name in names if not (blobs / self.blobs.get(name, "?")).is_file()}

    def fetch(self, progress: Progress = quiet) -> Path:
        """Bring here what is not here yet. Raises FetchError, and whatever `progress` raises, at once."""
        absent = self._absent
        if absent:
            self._require_space()
            meter = Meter(self._sizes(absent))

            def report() -> None:
                progress("download", min(meter.done, max(meter.total - 1, 0)), meter.total)  # the last: all is in place

            watched(partial(self._bring, absent, meter), report, meter.stop)
            progress("download", meter.total, meter.total)
        _remember(self.reference, self.commit)
        return self.path

    def _require_space(self) -> None:
        need, free = self.missing, free_disk(cache())
        if free < need:
            raise FetchError(
                f"{self.reference.repo} needs {in_words(need)} of disk space in {cache()}, but only {in_words(free)} "
                "are free; free some, or set HF_HOME to a larger disk."
            )

    def _bring(self, names: Iterable[str], meter: Meter) -> None:
        from huggingface_hub import constants, hf_hub_download

        constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
        for name in names:
            with plainly(self.reference.repo, self.reference.revision):
                hf_hub_download(
                    self.reference.repo, name, revision=self.commit, tqdm_class=meter.bar(name), etag_timeout=_SECONDS
                )


def find(reference: Reference, progress: Progress = quiet) -> Snapshot:
    """Ask the hub what a repository holds; where it cannot be reached, what the cache holds. Raises FetchError.

    `progress("wait", 0, 1)` is called meanwhile.
    """
    return watched(partial(_find, reference), lambda: progress("wait", 0, 1))


def kept(reference: Reference) -> Snapshot | None:
    """What the cache holds of a repository, if that is whole. Asks nobody."""
    folder = _folder(reference.repo, _known_commit(reference))
    try:
        snapshot = _snapshot(reference, folder.name, _listed(folder), lambda name: folder / name)
    except (FetchError, OSError):
        return None
    return None if snapshot.missing else snapshot


def _find(reference: Reference) -> Snapshot:
    from huggingface_hub import HfApi, hf_hub_download

    repo, revision = reference.repo, reference.revision
    try:
        with plainly(repo, revision):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_SECONDS)
    except FetchError:
        if here := kept(reference):
            return here
        raise

    def read(name: str) -> Path:
        with plainly(repo, revision):
            bar = Meter({}).bar(name)  # nothing to count, and nothing to print
            return Path(hf_hub_download(repo, name, revision=info.sha, tqdm_class=bar, etag_timeout=_SECONDS))

    siblings = info.siblings or ()
    files = {file.rfilename: file.size or 0 for file in siblings}
    blobs = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in siblings if file.blob_id}
    snapshot = replace(_snapshot(reference, info.sha, files, read), blobs=blobs)
    if snapshot.config is None:
        return _with_header(snapshot, info.gguf or {})
    return replace(snapshot, parameters=dict(info.safetensors.parameters or {}) if info.safetensors else {})


def _snapshot(reference: Reference, commit: str, files: dict[str, int], read: Callable[[str], Path]) -> Snapshot:
    """What is needed of the files there are. `read` gives the path of a small one. Raises FetchError."""
    repo = reference.repo
    if reference.file or reference.kind or not {SINGLE, INDEX} & files.keys():
        name = _one_gguf(reference, files)
        return Snapshot(reference, commit, {name: files[name]})
    if "config.json" not in files:
        raise FetchError(f"{repo} has no config.json, so it is no model of its own; ask for another repository.")
    if not files.keys() & set(_VOCABULARIES):
        raise FetchError(f"{repo} has no tokenizer, as {_VOCABULARIES[0]} or otherwise; ask for another repository.")
    shards = [SINGLE] if SINGLE in files else _shards(repo, files, read)
    beside = [name for name in _BESIDE if name in files]
    if "tokenizer.json" not in files and "tokenizer.model" in files:
        beside.append("tokenizer.model")
    beside += [INDEX] if SINGLE not in files else []
    config = _json(repo, read("config.json"))
    return Snapshot(reference, commit, {name: files[name] for name in (*beside, *shards)}, config)


def _shards(repo: str, files: dict[str, int], read: Callable[[str], Path]) -> list[str]:
    places = _json(repo, read(INDEX)).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise FetchError(f"{repo} has a {INDEX} without weight_map; ask for another repository or revision.")
    shards = sorted(set(places.values()))
    if absent := [name for name in shards if name not in files]:
        raise FetchError(f"{repo} lacks {', '.join(absent[:4])}, which its {INDEX} names; ask for another revision.")
    return shards


def _one_gguf(reference: Reference, files: dict[str, int]) -> str:
    """The GGUF file that is asked for, or the only one. Raises FetchError with those there are."""
    repo, wanted = reference.repo, reference.file or reference.kind
    there = sorted(name for name in files if name.lower().endswith(".gguf") and "mmproj" not in name.lower())
    whole = [name for name in there if not _SPLIT.search(name)]
    if not there:
        raise FetchError(_no_weights(reference, files))
    if reference.file:
        found = [name for name in whole if name == reference.file]
    else:
        ending = re.compile(rf"(^|[-._/]){re.escape(reference.kind or '')}\.gguf$", re.IGNORECASE)
        found = [name for name in whole if not reference.kind or ending.search(name)]
    if len(found) != 1:
        said = f"has no whole GGUF file for {wanted}" if wanted and not found else f"holds {len(found)} GGUF files"
        names = ", ".join((whole or there)[:12])
        raise FetchError(f"{repo} {said}; name one, as in {repo}/{(whole or there)[0]}; there are {names}.")
    return found[0]


def _no_weights(reference: Reference, files: dict[str, int]) -> str:
    repo, wanted = reference.repo, reference.file or reference.kind
    if wanted:
        return f"{repo} holds no GGUF files; leave out {wanted!r}."
    pickles = sorted(name for name in files if name.lower().endswith(_PICKLES))
    if pickles:
        return (
            f"{repo} holds its weights as pickles only ({pickles[0]}), which are never loaded; "
            "ask for a repository with safetensors, or convert it with transformers' save_pretrained."
        )
    return f"{repo} holds neither {SINGLE} nor a GGUF file; ask for a repository that holds a language model."


def _with_header(snapshot: Snapshot, header: dict[str, Any]) -> Snapshot:
    """What the hub read in a GGUF file. It speaks of one file of the repository; all are the same model."""
    total, kind = header.get("total"), Path(snapshot.weights[0]).stem.rpartition("-")[2]
    parameters = {kind: total} if isinstance(total, int) and total > 0 else {}
    return replace(snapshot, parameters=parameters, architecture=header.get("architecture"))


def _json(repo: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FetchError(f"{repo} has a {path.name} that is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise FetchError(f"{repo} has a {path.name} that is not a JSON object.")
    return content


# ---- the library's cache


def cache() -> Path:
    """The folder in which the hub's library keeps everything."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _folder(repo: str, commit: str) -> Path:
    return cache() / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


def _ref(reference: Reference) -> Path:
    return _folder(reference.repo, "").parent / "refs" / (reference.revision or "main")


def _known_commit(reference: Reference) -> str:
    """The commit that a revision was when the hub was last asked; the revision itself if it may be a commit."""
    ref = _ref(reference)
    return ref.read_text("utf-8").strip() if ref.is_file() else reference.revision or "main"


def _remember(reference: Reference, commit: str) -> None:
    """Keep which commit a revision is, for when the hub cannot be reached; told when all of that commit is here."""
    ref = _ref(reference)
    if reference.revision != commit and _known_commit(reference) != commit:
        with suppress(OSError):  # a cache that can only be read serves as well
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit, "utf-8")


def _listed(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
