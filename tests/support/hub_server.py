"""A hub of models on this machine: the part of the Hugging Face hub's HTTP interface that a download uses."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/?]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class HubServer:
    """Models by (name, revision); a revision's commit is a digest of its files."""

    endpoint: str = ""
    models: dict[tuple[str, str], Path] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    status: int = 200
    """What the server answers; another number than 200 is a server that fails."""

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
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def _answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(path)
            if hub.status != 200:
                return self._send(hub.status, b"", {}, with_body)
            info, file = _INFO.fullmatch(path), _FILE.fullmatch(path)
            name, revision = info.groups() if info else file.groups()[:2] if file else ("", "")
            folder = hub.folder(name, revision)
            if folder is None:
                known = any(one == name for one, _ in hub.models)
                code = "RevisionNotFound" if known else "RepoNotFound"
                return self._send(404, b"{}", {"X-Error-Code": code}, with_body)
            commit = next(hub.commit(*key) for key, one in hub.models.items() if one == folder and key[0] == name)
            headers = {"X-Repo-Commit": commit}
            if info:
                return self._send(200, _description(path, name, commit, folder), headers, with_body)
            assert file is not None
            content = (folder / file[3]).read_bytes()
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            return self._send(200, content, headers | {"ETag": f'"{etag}"'}, with_body)

        def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _description(path: str, name: str, commit: str, folder: Path) -> bytes:
    files = sorted(folder.iterdir())
    if "/tree/" in path:
        tree = [{"type": "file", "path": one.name, "size": one.stat().st_size, "oid": "0" * 40} for one in files]
        return json.dumps(tree).encode()
    siblings = [{"rfilename": one.name} for one in files]
    return json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()
