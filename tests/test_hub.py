"""Names of the hub: the real library against a small hub on this machine, and what is said when that goes wrong."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM

from gpt import download, hub
from gpt.catalog import estimate, find, resolve
from gpt.checkpoint import CheckpointError, open_checkpoint
from gpt.fetching import FetchError
from gpt.hub import Reference
from tests.hub import COMMIT, Hub, Repo

NAME = "some-one/tiny-llama"
SHAPE = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    vocab_size=258, max_position_embeddings=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The same tiny model in one file, in shards, and as a large lump that only looks like one."""
    made = {}
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    for kind, size in (("whole", "1GB"), ("sharded", "40KB")):
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder, max_shard_size=size)
        made[kind] = {path.name: path.read_bytes() for path in folder.iterdir()}
        made[kind] |= {"README.md": b"#", "pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"other"}
        made[kind] |= {"tokenizer.json": b"{}", "tokenizer.model": b"old"}
    made["large"] = {**made["whole"], "model.safetensors": os.urandom(3 << 20)}
    return made


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that the library asks instead of the real one, with an empty cache."""
    server = Hub()
    point(monkeypatch, server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
    yield server
    server.shutdown()
    server.server_close()


def point(monkeypatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def unreachable(monkeypatch, server) -> None:
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.rglob("*.incomplete")]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("a/b", Reference("a/b")),
        ("a-1/b_2.5@v1", Reference("a-1/b_2.5", revision="v1")),
        ("a/b:Q4_K_M", Reference("a/b", kind="Q4_K_M")),
        ("a/b/x/y-Q8_0.gguf@refs/pr/4", Reference("a/b", file="x/y-Q8_0.gguf", revision="refs/pr/4")),
        ("a", None), ("a/b/c", None), ("./a/b", None), ("a/b c", None), ("", None),
    ],
)  # fmt: skip
def test_a_name_of_the_hub_is_told_from_others(name, reference):
    assert Reference.parse(name) == reference


def test_a_revision_is_given_once_and_stays_in_its_folder():
    assert Reference.parse("a/b", "v2") == Reference("a/b", revision="v2")
    with pytest.raises(ValueError, match="names a revision already"):
        Reference.parse("a/b@v1", "v2")
    with pytest.raises(ValueError, match="a branch, a tag or a commit"):
        Reference.parse("a/b@../../x")


@pytest.mark.parametrize("kind", ["whole", "sharded"])
def test_a_model_is_fetched_with_what_it_needs_and_nothing_else(server, folders, kind):
    server.repos[NAME] = Repo(folders[kind])
    seen = []
    path = resolve(NAME, lambda *told: seen.append(told))
    wanted = {name for name in folders[kind] if name.startswith(("config", "model", "generation", "tokenizer.json"))}
    assert {file.name for file in path.iterdir()} == wanted == set(server.fetched())
    assert open_checkpoint(path).config.n_layer == 2
    assert open_checkpoint(path).model().config.vocab_size == 258
    total = sum(len(folders[kind][name]) for name in wanted - {"config.json", "model.safetensors.index.json"})
    downloads = [(done, all_) for stage, done, all_ in seen if stage == "download"]
    assert downloads[-1] == (total, total)


def test_a_second_load_asks_what_is_newest_and_fetches_nothing(server, folders):
    server.repos[NAME] = Repo(folders["whole"])
    path = resolve(NAME)
    server.asked.clear()
    assert resolve(NAME) == path
    assert [method for method, _, _ in server.asked] == ["GET"]
    assert find(NAME).missing == 0


def test_a_new_commit_fetches_what_changed_and_is_the_newest_only_when_it_is_whole(server, folders, monkeypatch):
    server.repos[NAME] = Repo(folders["whole"])
    path = resolve(NAME)
    changed = {**folders["whole"], "generation_config.json": b'{"eos_token_id": 1}'}
    server.repos[NAME] = Repo(changed, commit="f" * 40)
    assert find(NAME).missing == len(changed["generation_config.json"])
    server.asked.clear()
    with pytest.raises(KeyboardInterrupt):
        find(NAME).fetch(interrupt)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(NAME) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    newer = resolve(NAME)
    assert (newer.name, (newer / "generation_config.json").read_bytes()) == ("f" * 40, b'{"eos_token_id": 1}')
    assert (newer / "model.safetensors").samefile(path / "model.safetensors")
    assert "model.safetensors" not in server.fetched()


def interrupt(stage, done, total):
    raise KeyboardInterrupt


def test_progress_counts_bytes_as_they_come_and_never_backwards(server, folders):
    server.repos[NAME] = Repo(folders["large"], pause=0.02)
    seen = []
    resolve(NAME, lambda stage, done, total: seen.append((done, total)) if stage == "download" else None)
    assert len({done for done, _ in seen}) > 4
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1


def test_what_progress_raises_stops_the_fetching_at_once_and_leaves_no_half_file(server, folders, tmp_path):
    server.repos[NAME] = Repo(folders["large"], pause=0.02)

    def cancel(stage, done, total):
        if stage == "download" and done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(NAME, cancel)
    assert leftovers(tmp_path) == []
    server.repos[NAME].pause = 0
    server.asked.clear()
    assert (resolve(NAME) / "model.safetensors").read_bytes() == folders["large"]["model.safetensors"]
    assert server.fetched() == ["model.safetensors"]


def test_cancel_does_not_wait_for_a_hub_that_says_nothing(server, folders):
    hold = threading.Event()
    server.repos[NAME] = Repo(folders["large"])
    snapshot = find(NAME)
    server.repos[NAME].hold = hold

    def cancel(stage, done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        snapshot.fetch(cancel)
    assert not hold.is_set()
    hold.set()


def test_a_connection_that_is_cut_is_taken_up_where_it_broke(server, folders):
    server.repos[NAME] = Repo(folders["large"], cut={"model.safetensors": 1_000_000})
    path = resolve(NAME)
    assert (path / "model.safetensors").read_bytes() == folders["large"]["model.safetensors"]
    starts = [start for method, asked, start in server.asked if method == "GET" and asked.endswith("model.safetensors")]
    assert starts[0] == 0
    assert 0 < starts[1] <= 1_000_000


def test_files_that_are_complete_stay_when_a_fetch_breaks_off(server, folders, monkeypatch, tmp_path):
    server.repos[NAME] = Repo(folders["large"])
    snapshot = find(NAME)
    real = huggingface_hub.hf_hub_download

    def full(repo, name, **options):
        if name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(repo, name, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(FetchError, match=r"the disk is full: free space .* or set HF_HOME"):
        snapshot.fetch()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", real)
    assert find(NAME).missing == len(folders["large"]["model.safetensors"])
    assert snapshot.fetch().is_dir()


def test_too_little_disk_space_is_said_before_weights_are_fetched(server, folders, monkeypatch):
    server.repos[NAME] = Repo(folders["large"])
    monkeypatch.setattr(hub, "free_disk", lambda folder: 1_000_000)
    with pytest.raises(FetchError, match=r"needs 3 MB of disk space in .*, but only 1 MB are free.*HF_HOME"):
        resolve(NAME)
    assert "model.safetensors" not in server.fetched()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("RepoNotFound", r"there is no model some-one/tiny-llama at http.*, or it is private; .*HF_TOKEN"),
        ("GatedRepo", r"is gated: accept its licence at http.*/some-one/tiny-llama, then set HF_TOKEN"),
        ("Token", r"refuses the token; check HF_TOKEN"),
        ("Forbidden", r"does not let this token read it"),
        ("down", r"cannot be reached or broke off .*503.* is not whole in .*; connect to the network"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(server, folders, error, said):
    server.repos[NAME] = Repo(folders["whole"], error=error)
    with pytest.raises(FetchError, match=said) as refusal:
        resolve(NAME)
    assert "\n" not in str(refusal.value)
    assert "model.safetensors" not in server.fetched()


def test_a_misspelt_name_of_the_list_is_answered_with_the_right_one(server):
    with pytest.raises(FetchError, match=r"there is no model qwen/Qwen3-0.6 at .* Did you mean 'Qwen/Qwen3-0.6B'\?"):
        resolve("qwen/Qwen3-0.6")


def test_a_tokenizer_of_the_old_kind_is_fetched_where_there_is_no_other(server, folders):
    server.repos[NAME] = Repo({name: data for name, data in folders["whole"].items() if name != "tokenizer.json"})
    assert (resolve(NAME) / "tokenizer.model").read_bytes() == b"old"


def test_a_revision_that_does_not_exist_is_named(server, folders):
    server.repos[NAME] = Repo(folders["whole"])
    with pytest.raises(FetchError, match=r"has no revision 'v9'; give a branch, a tag or a commit"):
        resolve(f"{NAME}@v9")
    with pytest.raises(FetchError, match="'v9'"):
        resolve(NAME, revision="v9")


@pytest.mark.parametrize("revision", ["main", "v1", COMMIT])
def test_every_kind_of_revision_is_found_again_without_a_hub(server, folders, monkeypatch, revision):
    server.repos[NAME] = Repo(folders["sharded"], revisions=("main", "v1", COMMIT))
    path = resolve(NAME, revision=revision)
    unreachable(monkeypatch, server)
    assert resolve(NAME, revision=revision) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(f"{NAME}@{revision}") == path


def test_without_a_hub_and_without_a_whole_copy_what_to_do_is_said(server, folders, monkeypatch):
    server.repos[NAME] = Repo(folders["sharded"])
    shard = sorted(resolve(NAME).glob("model-*"))[0]
    shard.unlink()
    unreachable(monkeypatch, server)
    with pytest.raises(FetchError, match=r"cannot be reached .* is not whole in .*; connect to the network, or give"):
        resolve(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match=r"HF_HUB_OFFLINE is set, and .* is not whole in .*; unset it, or give"):
        resolve(NAME)


def test_a_copy_that_is_whole_serves_where_the_hub_refuses(server, folders):
    server.repos[NAME] = Repo(folders["whole"])
    path = resolve(NAME)
    server.repos[NAME].error = "RepoNotFound"
    assert resolve(NAME) == path


def test_the_token_comes_from_the_environment(server, folders, monkeypatch):
    server.repos[NAME] = Repo(folders["whole"])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    resolve(NAME)
    assert set(server.tokens) == {"Bearer hf_secret"}


# ---- repositories that hold something else


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.safetensors": None}, r"as pickles only \(pytorch_model.bin\), which are never loaded; .*safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": None}, r"holds neither model.safetensors nor a GGUF file"),
        ({"config.json": None}, "has no config.json"),
        ({"tokenizer.json": None, "tokenizer.model": None}, "has no tokenizer, as tokenizer.json or otherwise"),
        ({"config.json": b"{"}, "has a config.json that is not JSON"),
        ({"config.json": b"[]"}, "not a JSON object"),
    ],
)
def test_a_repository_that_is_no_model_is_refused_before_it_is_fetched(server, folders, change, said):
    files = {**folders["whole"], **change}
    server.repos[NAME] = Repo({name: content for name, content in files.items() if content is not None})
    with pytest.raises(FetchError, match=said):
        resolve(NAME)
    assert not {"model.safetensors", "pytorch_model.bin"} & set(server.fetched())


def test_a_shard_that_the_repository_lacks_is_named_before_it_is_fetched(server, folders):
    shard = sorted(name for name in folders["sharded"] if name.startswith("model-"))[0]
    server.repos[NAME] = Repo({name: data for name, data in folders["sharded"].items() if name != shard})
    with pytest.raises(FetchError, match=rf"lacks {shard}, which its model.safetensors.index.json names"):
        resolve(NAME)
    assert server.fetched() == ["model.safetensors.index.json"]


GGUFS = ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "sub/tiny-F16.gguf", "mmproj-tiny-F16.gguf")


@pytest.mark.parametrize(
    ("suffix", "file"), [(":q8_0", GGUFS[1]), (":Q4_K_M", GGUFS[0]), (f"/{GGUFS[2]}", GGUFS[2]), (":F16", GGUFS[2])]
)
def test_one_gguf_of_several_is_asked_for_by_kind_or_by_file(server, suffix, file):
    server.repos[NAME] = Repo({name: name.encode() for name in GGUFS})
    path = resolve(NAME + suffix)
    assert path.read_bytes() == file.encode()
    assert server.fetched() == [file.rpartition("/")[2]]
    assert find(NAME + suffix).name == f"{NAME} ({Path(file).stem})"


def test_a_repository_with_one_gguf_needs_no_more_than_its_name(server, monkeypatch):
    server.repos[NAME] = Repo({"a.gguf": b"x", "README.md": b""})
    path = resolve(NAME)
    assert path.name == "a.gguf"
    unreachable(monkeypatch, server)
    assert resolve(NAME) == path


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("", r"holds 3 GGUF files; name one, as in .*; there are sub/tiny-F16.gguf, tiny-Q4_K_M.gguf, tiny-Q8_0.gguf"),
        (":Q2_K", r"has no whole GGUF file for Q2_K; name one"),
        ("/other.gguf", r"has no whole GGUF file for other.gguf"),
    ],
)
def test_which_gguf_files_there_are_is_said(server, suffix, said):
    server.repos[NAME] = Repo(dict.fromkeys(GGUFS, b""))
    with pytest.raises(FetchError, match=said):
        resolve(NAME + suffix)


def test_a_gguf_in_parts_and_a_kind_where_there_is_none_are_refused(server, folders):
    server.repos[NAME] = Repo({f"tiny-Q8_0-0000{i}-of-00002.gguf": b"" for i in (1, 2)})
    with pytest.raises(FetchError, match="no whole GGUF file for Q8_0"):
        resolve(f"{NAME}:Q8_0")
    server.repos[NAME] = Repo(folders["whole"])
    with pytest.raises(FetchError, match="holds no GGUF files; leave out 'Q8_0'"):
        resolve(f"{NAME}:Q8_0")


# ---- before it is fetched


def test_the_estimate_of_a_model_on_the_hub_fetches_its_config_only(server, folders):
    server.repos[NAME] = Repo(folders["sharded"])
    promised = estimate(NAME, "bfloat16", "cpu")
    assert server.fetched() == ["model.safetensors.index.json", "config.json"]
    resolve(NAME)
    exact = estimate(NAME, "bfloat16", "cpu")
    assert 0 == exact.download < promised.download
    assert promised.name == exact.name == NAME
    assert find(NAME, "main").name == f"{NAME}@main"
    assert promised.memory == pytest.approx(exact.memory, rel=0.03)  # the header of each file counts too
    assert promised.conversation == exact.conversation == 1000 * 2 * (2 * (4 + 2 * 2) * 8 + 32)


def test_what_the_hub_says_of_the_weights_is_believed(server, folders):
    facts = {"safetensors": {"parameters": {"BF16": 5_000, "F32": 10}, "total": 5_010}}
    server.repos[NAME] = Repo(folders["whole"], facts=facts)
    assert estimate(NAME, "float32", "cpu").memory == 4 * 5_010


def test_a_family_that_is_not_supported_is_refused_before_it_is_fetched(server, folders):
    config = {**json.loads(folders["whole"]["config.json"]), "model_type": "novel", "auto_map": {"AutoModel": "x.Y"}}
    server.repos[NAME] = Repo({**folders["whole"], "config.json": json.dumps(config).encode(), "x.py": b"1/0"})
    with pytest.raises(CheckpointError, match=r"'novel' is not supported; .*code of its own \(auto_map\) is never run"):
        estimate(NAME)
    server.repos[NAME] = Repo({"a-Q8_0.gguf": b"x"}, facts={"gguf": {"architecture": "rwkv", "total": 5}})
    with pytest.raises(CheckpointError, match=r"\(a-Q8_0\) cannot be used: the architecture 'rwkv' is not supported"):
        estimate(NAME)
    assert server.fetched() == ["config.json"]


def test_a_gguf_on_the_hub_is_estimated_by_its_kind(server):
    server.repos[NAME] = Repo({"a-Q4_K_M.gguf": bytes(1000)}, facts={"gguf": {"architecture": "llama", "total": 1700}})
    assert estimate(NAME, "float32", "cpu").memory == 4 * 1700
    assert estimate(NAME, "stored", "cpu").memory == 1400
    assert estimate(NAME, "float32", "cpu").download == 1000


# ---- the library's other way to fetch


class Group:
    """The download group of hf_xet, which reports on a thread of its own what it has received and written."""

    def __init__(self, content: bytes, progress_callback) -> None:
        self.content, self.report = content, progress_callback

    def __enter__(self):
        return self

    def start_download_file(self, info, path):
        self.path = path

    def __exit__(self, *error):
        thread = threading.Thread(target=self.work)
        thread.start()
        thread.join()

    def work(self):
        for received, written in ((1 << 20, 0), (3 << 20, 1 << 20), (3 << 20, 3 << 20)):
            time.sleep(0.15)
            self.report(SimpleNamespace(
                total_bytes_completed=written, total_transfer_bytes_completed=received, total_bytes=3 << 20,
                total_bytes_completion_rate=1.0, total_transfer_bytes_completion_rate=1.0,
            ))  # fmt: skip
        Path(self.path).write_bytes(self.content)


def test_bytes_that_come_through_xet_are_counted_as_they_come(tmp_path):
    from huggingface_hub.file_download import xet_get
    from huggingface_hub.utils import _xet

    content, seen = bytes(3 << 20), []
    meter = download.Meter({"model.safetensors": len(content)})
    session = SimpleNamespace(new_file_download_group=lambda progress_callback, **_: Group(content, progress_callback))
    info = _xet.XetConnectionInfo("token", 1 << 40, "http://127.0.0.1:9")

    def work():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_xet, "get_xet_session", lambda: session)
            patch.setattr(_xet, "refresh_xet_connection_info", lambda **_: info)
            data = _xet.XetFileData("0" * 64, "http://127.0.0.1:9")
            xet_get(
                incomplete_path=tmp_path / "x", xet_file_data=data, headers={}, expected_size=len(content),
                tqdm_class=meter.bar("model.safetensors"),
            )  # fmt: skip

    download.watched(work, lambda: seen.append(meter.done))
    assert {1 << 20, 3 << 20} <= {*seen, meter.done}
    assert (tmp_path / "x").read_bytes() == content


LOAD = """
import sys
from gpt.catalog import resolve
print(resolve(sys.argv[1]).name)
"""


def test_the_librarys_own_settings_hold(server, folders, tmp_path):
    server.repos[NAME] = Repo(folders["whole"])
    settings = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", LOAD, NAME]
    done = subprocess.run(command, env={**os.environ, **settings}, cwd=Path(__file__).parents[1], capture_output=True)
    assert done.stdout.decode().strip() == COMMIT, done.stderr.decode()
    assert list((tmp_path / "home" / "hub").glob("models--some-one--tiny-llama/snapshots/*/model.safetensors"))
