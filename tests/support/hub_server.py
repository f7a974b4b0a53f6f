"""A small hub for tests: it answers what `huggingface_hub` asks when it pulls, and misbehaves when told to.

Large files are sent from another address, as by the true hub: `localhost` rather than `127.0.0.1`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
import sys
import threading
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from support.command import LIMIT

LARGE = (".safetensors", ".pt")
TURBO = "acestep-v15-turbo"
WEIGHTS = f"{TURBO}/model.safetensors"
FETCHED = {
    f"{TURBO}/config.json", f"{TURBO}/silence_latent.pt", WEIGHTS, "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors", "Qwen3-Embedding-0.6B/config.json",
    "Qwen3-Embedding-0.6B/tokenizer.json", "Qwen3-Embedding-0.6B/merges.txt", "Qwen3-Embedding-0.6B/model.safetensors",
}  # fmt: skip
BLOCK = 1000


def weights(seed: int, count: int = 2000) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", seed) * count


def dit(folder: str, seed: int) -> dict[str, bytes]:
    files = {"config.json": b"{}", "silence_latent.pt": b"silence", "model.safetensors": weights(seed)}
    code = {"modeling_acestep.py": b"raise SystemExit", "configuration.py": b""}
    return {f"{folder}{name}": content for name, content in {**files, **code}.items()}


def main_repo(seed: int = 1) -> dict[str, bytes]:
    return {
        "README.md": b"hello",
        "config.json": b"{}",
        **dit(f"{TURBO}/", seed),
        "vae/config.json": b'{"v": 1}',
        "vae/diffusion_pytorch_model.safetensors": weights(2, 100),
        "Qwen3-Embedding-0.6B/config.json": b'{"a": 1}',
        "Qwen3-Embedding-0.6B/tokenizer.json": b'{"t": 1}',
        "Qwen3-Embedding-0.6B/merges.txt": b"a b",
        "Qwen3-Embedding-0.6B/model.safetensors": weights(3, 300),
        "acestep-5Hz-lm-1.7B/config.json": b'{"b": 1}',
        "acestep-5Hz-lm-1.7B/tokenizer.json": b'{"c": 1}',
        "acestep-5Hz-lm-1.7B/model.safetensors": weights(4, 300),
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """What is published, what goes wrong, and what was asked."""

    #: By repository and commit: the files.
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    #: By repository: the commit of each branch or tag.
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    #: Sends of the file of this name that end after so many bytes.
    cuts: dict[str, list[int]] = field(default_factory=dict)
    #: Sends of the file of this name that hang after so many bytes, until `go_on`.
    hangs: dict[str, int] = field(default_factory=dict)
    #: What is sent for the file of this name instead, so many times.
    wrong: dict[str, list[bytes]] = field(default_factory=dict)
    #: Status codes of the next requests whose path holds this.
    refusals: dict[str, list[int]] = field(default_factory=dict)
    token: str | None = None
    ignore_ranges: bool = False
    page: str | None = None
    #: Where the API sends those who ask it.
    moved: str | None = None
    #: The encoding of answers of the API that have no end, and how much of them was sent before it was encoded.
    endless: str | None = None
    endless_sent: int = 0
    asked: list[Asked] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def publish(self, repo: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A new commit of `repo`, which `revision` now names."""
        commit = hashlib.sha1(json.dumps([repo, sorted((n, sha256(c)) for n, c in files.items())]).encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = files
        self.refs.setdefault(repo, {})[revision] = commit
        return commit

    def sends(self) -> list[Asked]:
        """The requests for content, whichever way they came in."""
        return [one for one in self.asked if one.method == "GET" and "/resolve/" in one.path]

    def start(self) -> ThreadingHTTPServer:
        server = Server(("127.0.0.1", 0), type("Answer", (Answer,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up: what they print themselves is what a test reads."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Answer(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        token = (self.headers["authorization"] or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, path, self.headers["range"], token))
        for part, codes in self.hub.refusals.items():
            if part in path and codes:
                self.refuse(codes.pop(0))
                return
        if self.hub.page is not None:
            self.answer(200, self.hub.page.encode(), {})
        elif self.hub.moved is not None and path.startswith("/api/"):
            self.answer(307, b"", {"Location": self.hub.moved})
        elif self.hub.endless is not None and path.startswith(("/api/", "/elsewhere")):
            self.send_endless(self.hub.endless)
        elif path.startswith("/content/"):
            self.send_content(path.rpartition("/")[2])
        elif self.hub.token not in (None, token):
            self.refuse(401, "RepoNotFound")
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/(.+))?", path):
            self.describe(found[1], unquote(found[2] or "main"))
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/tree/([^/]+)", path):
            self.list_files(found[1], unquote(found[2]))
        elif found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(found[1], unquote(found[2]), unquote(found[3]))
        else:
            self.refuse(404)

    def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_endless(self, encoding: str) -> None:
        """Begin a JSON answer that has 200 MB and no end, or stop where the other side does."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        self.close_connection = True
        deflate = zlib.compressobj(wbits=31)
        with contextlib.suppress(OSError):
            self.wfile.write(deflate.compress(b'{"id": "') if encoding else b'{"id": "')
            for _ in range(200):
                data = b"a" * 1_000_000
                self.wfile.write(deflate.compress(data) if encoding else data)
                self.hub.endless_sent += len(data)

    def refuse(self, code: int, name: str = "") -> None:
        headers = {"X-Error-Code": name} if name else {}
        self.answer(code, b"no", {**headers, **({"Retry-After": "1"} if code == 429 else {})})

    def commit(self, repo: str, revision: str) -> str | None:
        if repo not in self.hub.repos:
            self.refuse(404, "RepoNotFound")
            return None
        commit = self.hub.refs[repo].get(revision, revision)
        if commit not in self.hub.repos[repo]:
            self.refuse(404, "RevisionNotFound")
            return None
        return commit

    def describe(self, repo: str, revision: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        siblings = []
        for name, content in self.hub.repos[repo][commit].items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
            if name.endswith(LARGE):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        content = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def list_files(self, repo: str, revision: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        entries = []
        for name, content in self.hub.repos[repo][commit].items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob_id(content)}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        self.answer(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        content = self.hub.repos[repo][commit].get(name)
        if content is None:
            self.refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": commit}
        if name.endswith(LARGE):
            address = self.hub.url.replace("127.0.0.1", "localhost")
            headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self.answer(
                302, b"", {**headers, "Location": f"{address}/content/{repo}/{commit}/{name.replace('/', ':')}"}
            )
        elif self.command == "HEAD":
            self.answer(200, content, {**headers, "ETag": f'"{blob_id(content)}"'})
        else:
            self.send_bytes(name, content, {**headers, "ETag": f'"{blob_id(content)}"'})

    def send_content(self, name: str) -> None:
        _, _, owner, repo, commit, _ = self.path.split("/")
        name = name.replace(":", "/")
        self.send_bytes(name, self.hub.repos[f"{owner}/{repo}"][commit][name], {})

    def send_bytes(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        if self.hub.wrong.get(name):
            content = self.hub.wrong[name].pop(0)
        start = 0
        if self.headers["range"] and not self.hub.ignore_ranges:
            start = int(self.headers["range"].removeprefix("bytes=").rstrip("-"))
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.hub.cuts.get(name):
            self.wfile.write(body[: self.hub.cuts[name].pop(0)])
            self.close_connection = True
        elif name in self.hub.hangs:
            self.wfile.write(body[: self.hub.hangs.pop(name)])
            self.hub.hanging.set()
            self.hub.go_on.wait(LIMIT)
            self.close_connection = True
        else:
            self.wfile.write(body)
