"""A hub of models on this machine: the part of the Hugging Face hub's HTTP interface that a download uses.

Weights are large files (LFS), described by their SHA-256, all others are described by git's SHA-1 of them. It can be
told to be slow, to refuse, to cut a transfer, and to send other bytes than it describes.
"""

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/?]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class HubServer:
    """Models by (name, revision); a revision's commit is a digest of its files."""

    endpoint: str = ""
    models: dict[tuple[str, str], Path] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    """Name of each file that was sent, and the byte from which on."""
    status: int = 200
    """What the server answers; another number than 200 is a server that fails."""
    failures: int = 0
    """How often `status` is still answered; 0 for ever."""
    token: str = ""
    """The token that the server wants; empty wants none."""
    gated: bool = False
    """Whether the token's account has not accepted the terms."""
    delay_seconds: float = 0.0
    """Pause before every part of a file."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes of a file after which the connection is closed, once."""
    other: dict[str, bytes] = field(default_factory=dict)
    """What is sent of a file instead of what it has."""

    def commit(self, name: str, revision: str) -> str:
        """The commit (40 hex digits) of a revision."""
        folder = self.models[name, revision]
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
        return hashlib.sha1(repr(files).encode(), usedforsecurity=False).hexdigest()

    def folder(self, name: str, revision: str) -> Path | None:
        """The files of a revision, or of a commit."""
        for (known, branch), folder in self.models.items():
            if known == name and revision in (branch, self.commit(name, branch)):
                return folder
        return None


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """The server with its hub."""

    def __init__(self, *arguments: Any) -> None:
        self.hub = HubServer()
        super().__init__(*arguments)


class _Handler(BaseHTTPRequestHandler):
    """Answers for the hub that its server has."""

    server: "_Server"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append(path)
        refusal = _refusal(self.server.hub, self.headers.get("Authorization", ""))
        if refusal is not None:
            self._send(*refusal, with_body)
            return
        info, file = _INFO.fullmatch(path), _FILE.fullmatch(path)
        name, revision = info.groups() if info else file.groups()[:2] if file else ("", "")
        folder = self.server.hub.folder(name, revision or "main")
        if folder is None:
            known = any(one == name for one, _ in self.server.hub.models)
            code = "RevisionNotFound" if known else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code}, with_body)
            return
        commit = next(
            self.server.hub.commit(*key)
            for key, one in self.server.hub.models.items()
            if one == folder and key[0] == name
        )
        headers = {"X-Repo-Commit": commit}
        if info:
            self._send(200, _description(path, name, commit, folder), headers, with_body)
            return
        assert file is not None
        described = (folder / file[3]).read_bytes()
        self._send_file(
            file[3], self.server.hub.other.get(file[3], described), headers | _etag(file[3], described), with_body
        )

    def _send_file(self, name: str, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        """A file, or the part from a place on that a client asks for which has the rest."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.server.hub.ranges.append((name, first)) if with_body else None
        more = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        body = content[first:]
        self._head(206 if first else 200, len(body), headers | more)
        if not with_body:
            return
        limit = self.server.hub.cut_after.pop(name, len(body))
        for place in range(0, min(limit, len(body)), 1 << 16):
            time.sleep(self.server.hub.delay_seconds)
            self.wfile.write(body[place : min(place + (1 << 16), limit)])
        if limit < len(body):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self._head(status, len(body), headers)
        if with_body:
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()


def _refusal(hub: HubServer, authorization: str) -> tuple[int, bytes, dict[str, str]] | None:
    """The answer to a request that is not served; None for one that is."""
    if hub.token and authorization != f"Bearer {hub.token}":
        return 401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"}
    if hub.gated:
        return 403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"}
    if hub.status == 200:
        return None
    status = hub.status
    if hub.failures:
        hub.failures -= 1
        hub.status = hub.status if hub.failures else 200
    return status, b"", {}


def _etag(name: str, content: bytes) -> dict[str, str]:
    """The digest by which the hub's clients know a file."""
    if not name.endswith(".safetensors"):
        return {"ETag": f'"{_blob(content)}"'}
    large = f'"{hashlib.sha256(content).hexdigest()}"'
    return {"ETag": large, "X-Linked-Etag": large, "X-Linked-Size": str(len(content))}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _description(path: str, name: str, commit: str, folder: Path) -> bytes:
    files = {one.name: one.read_bytes() for one in sorted(folder.iterdir())}
    if "/tree/" in path:
        tree = [
            {"type": "file", "path": one, "size": len(content), "oid": _blob(content)} for one, content in files.items()
        ]
        return json.dumps(tree).encode()
    siblings = [_sibling(one, content) for one, content in files.items()]
    return json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _blob(content)}
    if name.endswith(".safetensors"):
        digest = hashlib.sha256(content).hexdigest()
        facts["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
    return facts
