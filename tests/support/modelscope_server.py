"""A small ModelScope for tests: it lists the files of repositories and sends them, and misbehaves when told to."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.hub_server import sha256


@dataclass
class ModelScopeServer:
    """Repositories by name, each with its files; what goes wrong, and what was asked."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: What is sent for the file of this path instead, so many times.
    wrong: dict[str, list[bytes]] = field(default_factory=dict)
    #: Sends of the file of this path that end after so many bytes.
    cuts: dict[str, list[int]] = field(default_factory=dict)
    #: Status codes of the next answers.
    refusals: list[int] = field(default_factory=list)
    #: The answer to a question for files, in place of a list.
    page: str | None = None
    #: The path and the range of each file that was asked for.
    sent: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    def start(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (Answer,), {"hub": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class Answer(BaseHTTPRequestHandler):
    hub: ModelScopeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        found = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", asked.path)
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if found is None:
            self._say(404, {"Code": 404, "Message": "no such page"})
        elif self.hub.refusals:
            code = self.hub.refusals.pop(0)
            self._say(code, {"Code": code, "Message": "refused", "Success": False})
        elif found[1] not in self.hub.repos or query["Revision"] not in ("master", "v1"):
            self._say(404, {"Code": 10010205001, "Message": "the model does not exist", "Success": False})
        elif found[2]:
            self._list(self.hub.repos[found[1]])
        else:
            self._send(self.hub.repos[found[1]], query["FilePath"])

    def _list(self, files: dict[str, bytes]) -> None:
        if self.hub.page is not None:
            self._write(200, self.hub.page.encode())
            return
        entries = [{"Path": name, "Size": len(content), "Sha256": sha256(content), "Type": "blob"}
                   for name, content in files.items()]  # fmt: skip
        folders = {name.partition("/")[0] for name in files if "/" in name}
        entries += [{"Path": name, "Size": 0, "Sha256": "", "Type": "tree"} for name in folders]
        self._say(200, {"Code": 200, "Data": {"Files": entries}, "Success": True})

    def _send(self, files: dict[str, bytes], name: str) -> None:
        wrong = self.hub.wrong.get(name)
        content = wrong.pop(0) if wrong else files[name]
        span = self.headers.get("Range")
        self.hub.sent.append((name, span))
        first = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        body = content[first:]
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut := self.hub.cuts.get(name):
            self.wfile.write(body[: cut.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _say(self, code: int, content: dict[str, Any]) -> None:
        self._write(code, json.dumps(content).encode())

    def _write(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
