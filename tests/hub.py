"""A small Hugging Face hub on this machine: the few answers that `huggingface_hub` asks for, and accidents."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository: its files, and what goes wrong with it."""

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main", COMMIT)
    error: str | None = None  # what the hub says instead: GatedRepo, RepoNotFound, down, ...
    cut: dict[str, int] = field(default_factory=dict)  # the connection breaks after so many bytes, once
    pause: float = 0  # seconds between pieces of 64 kB
    hold: threading.Event | None = None  # nothing comes after the first piece until it is set
    facts: dict = field(default_factory=dict)  # what else its description says: safetensors, gguf


class Hub(ThreadingHTTPServer):
    """The repositories by name, and what was asked: (method, path, first byte asked for)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.tokens: list[str | None] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]

    def handle_error(self, *_) -> None:
        """A client that goes away is no news."""


ERRORS = {"RepoNotFound": 404, "GatedRepo": 403, "RevisionNotFound": 404, "down": 503, "Forbidden": 403, "Token": 401}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")[0])
        self.server.asked.append((self.command, path, start))
        self.server.tokens.append(self.headers.get("Authorization"))
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self.describe(name, revision or "main")
        else:
            name, _, rest = path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            self.send_file(name, revision, file, start, body)

    def repo(self, name: str, revision: str, gate: bool) -> Repo | None:
        """The repository, unless an error was sent instead. A gated one is described, but not given."""
        repo = self.server.repos.get(name)
        error = repo.error if repo else "RepoNotFound"
        if repo and not error and revision not in (*repo.revisions, repo.commit):
            error = "RevisionNotFound"
        if error and (gate or error != "GatedRepo"):
            self.refuse(error)
            return None
        return repo

    def refuse(self, error: str) -> None:
        self.send_response(ERRORS[error])
        if error == "Token":
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        elif error != "down":
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def describe(self, name: str, revision: str) -> None:
        repo = self.repo(name, revision, gate=False)
        if repo is None:
            return
        files = [
            {"rfilename": file, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            for file, content in repo.files.items()
        ]
        text = json.dumps({"id": name, "sha": repo.commit, "siblings": files, **repo.facts}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def send_file(self, name: str, revision: str, file: str, start: int, body: bool) -> None:
        repo = self.repo(name, revision, gate=True)
        if repo is None:
            return
        content = repo.files[file]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.pour(repo, content[start:], repo.cut.pop(file, None))

    def pour(self, repo: Repo, content: bytes, cut: int | None) -> None:
        for at in range(0, len(content[:cut]), 1 << 16):
            self.wfile.write(content[:cut][at : at + (1 << 16)])
            self.wfile.flush()
            time.sleep(repo.pause)
            if repo.hold:
                repo.hold.wait(60)
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *_) -> None:
        pass
