"""A real HTTP server that behaves like an API server as far as the launcher can tell, and misbehaves on request."""

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Object = dict[str, Any]


@dataclass
class Fault:
    """An answer that stands in for the right one, once."""

    request: str
    """Verb and kind, `WATCH pods`; `*` for any."""
    status: int = 500
    message: str = "made up"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    is_cut: bool = False
    """Close the connection in place of an answer; a POST has been carried out by then."""


class ApiServer:
    """Objects of one namespace, their changes, and faults to come."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.objects: dict[str, dict[str, Object]] = {}
        self.faults: deque[Fault] = deque()
        self.requests: list[str] = []
        self.bodies: list[tuple[str, Any]] = []
        self.logs: dict[str, list[list[str]]] = {}
        self.valid_tokens = {"first"}
        self.oldest_version = 0
        self.on_create: Callable[[Object], None] = lambda item: None
        self.is_hanging_up = False
        self._changes: list[tuple[int, str, str, Object]] = []
        self._version = 100
        self._news = threading.Condition()
        self._http: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()
        self.write_kubeconfig("first")

    def start(self) -> None:
        """Serve, at the same port after the first time."""
        handler = type("Handler", (_Handler,), {"server_state": self})
        ThreadingHTTPServer.allow_reuse_address = True
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.is_hanging_up = False
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection."""
        assert self._http is not None
        with self._news:
            self.is_hanging_up = True
            self._news.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def write_kubeconfig(self, token: str) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def put(self, kind: str, item: Object) -> Object:
        """Create or change an object and tell the watchers."""
        with self._news:
            self._version += 1
            item["metadata"].setdefault("uid", str(uuid.uuid4()))
            item["metadata"]["resourceVersion"] = str(self._version)
            known = self.objects.setdefault(kind, {})
            verb = "MODIFIED" if item["metadata"]["name"] in known else "ADDED"
            known[item["metadata"]["name"]] = item
            self._changes.append((self._version, kind, verb, json.loads(json.dumps(item))))
            self._news.notify_all()
        return item

    def remove(self, kind: str, name: str) -> None:
        """Delete an object and tell the watchers."""
        with self._news:
            item = self.objects.get(kind, {}).pop(name, None)
            if item is None:
                return
            self._version += 1
            item["metadata"]["resourceVersion"] = str(self._version)
            self._changes.append((self._version, kind, "DELETED", item))
            self._news.notify_all()

    def compact(self) -> None:
        """Forget the history, as etcd does: older versions have expired."""
        with self._news:
            self._version += 1
            self.oldest_version = self._version

    def bookmark(self) -> None:
        with self._news:
            self._version += 1
            self._changes.append((self._version, "*", "BOOKMARK", {}))
            self._news.notify_all()

    def cut(self) -> None:
        """Break off all watches in the middle of a line."""
        with self._news:
            self._changes.append((self._version, "*", "CUT", {}))
            self._news.notify_all()

    def names(self, kind: str) -> list[str]:
        return sorted(self.objects.get(kind, {}))

    def count(self, request: str) -> int:
        return self.requests.count(request)

    def wait_for(self, request: str, count: int = 1) -> None:
        """Wait until a request has come this many times, and a moment longer, until it is processed."""
        deadline = time.monotonic() + 300
        while self.count(request) < count:
            assert time.monotonic() < deadline, f"{request} came {self.count(request)} times"
            time.sleep(0.01)
        time.sleep(0.1)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: ApiServer

    def log_message(self, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        kind, name, part = _parts(url.path)
        verb = "WATCH" if query.get("watch") else "LOG" if part == "log" else method
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        state = self.server_state
        state.requests.append(f"{verb} {kind}")
        state.bodies.append((f"{verb} {kind}", body if body is not None else query))
        if state.is_hanging_up:
            self.close_connection = True
            return
        if self.headers.get("Authorization") not in {f"Bearer {token}" for token in state.valid_tokens}:
            self._status(401, "Unauthorized", "Unauthorized")
            return
        fault = self._fault(f"{verb} {kind}")
        if fault is not None and fault.is_cut:
            if method == "POST":
                self._create(kind, body, is_silent=True)
            self.close_connection = True
        elif fault is not None:
            self._status(fault.status, "Fault", fault.message, headers=fault.headers, body=fault.body)
        elif verb == "WATCH":
            self._watch(kind, query)
        elif verb == "LOG":
            self._log(name)
        elif method == "POST":
            self._create(kind, body)
        elif method == "PATCH":
            item = self.server_state.objects[kind][name]
            item["metadata"]["annotations"].update(body["metadata"]["annotations"])
            self._json(200, self.server_state.put(kind, item))
        elif method == "DELETE":
            self._delete(kind, name, body)
        elif name:
            self._get(kind, name)
        else:
            items = list(state.objects.get(kind, {}).values())
            selected = [item for item in items if _matches(item, query)]
            self._json(200, {"metadata": {"resourceVersion": str(state._version)}, "items": selected})

    def _fault(self, request: str) -> Fault | None:
        faults = self.server_state.faults
        for fault in list(faults):
            if fault.request in (request, "*"):
                faults.remove(fault)
                return fault
        return None

    def _get(self, kind: str, name: str) -> None:
        item = self.server_state.objects.get(kind, {}).get(name)
        if item is None:
            self._status(404, "NotFound", f'{kind} "{name}" not found', name=name)
        else:
            self._json(200, item)

    def _create(self, kind: str, body: Object, *, is_silent: bool = False) -> None:
        state = self.server_state
        name = body["metadata"]["name"]
        if name in state.objects.get(kind, {}):
            if not is_silent:
                self._status(409, "AlreadyExists", f'{kind} "{name}" already exists', name=name)
            return
        body["metadata"]["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body["spec"]["suspend"] = True
        item = state.put(kind, body)
        if not is_silent:
            self._json(201, item)
        state.on_create(item)

    def _delete(self, kind: str, name: str, body: Object) -> None:
        state = self.server_state
        if not name:
            for one in list(state.objects.get(kind, {})):
                state.remove(kind, one)
            self._json(200, {})
            return
        item = state.objects.get(kind, {}).get(name)
        if item is None:
            self._status(404, "NotFound", f'{kind} "{name}" not found', name=name)
            return
        uid = (body.get("preconditions") or {}).get("uid")
        if uid not in (None, item["metadata"]["uid"]):
            self._status(409, "Conflict", "the UID in the precondition does not match", name=name)
            return
        state.remove(kind, name)
        if kind == "trainjobs":  # the garbage collector
            for pod, found in list(state.objects.get("pods", {}).items()):
                if found["metadata"]["labels"].get("jobset.sigs.k8s.io/jobset-name") == name:
                    state.remove("pods", pod)
        self._json(200, {})

    def _watch(self, kind: str, query: dict[str, str]) -> None:
        state, since = self.server_state, int(query["resourceVersion"])
        if since < state.oldest_version:
            self._status(410, "Expired", "too old resource version")
            return
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        position = len([change for change in state._changes if change[0] <= since])
        self._begin_stream()
        while True:
            with state._news:
                while position >= len(state._changes) and not state.is_hanging_up and time.monotonic() < deadline:
                    state._news.wait(0.05)
                news, position = state._changes[position:], len(state._changes)
                is_over = state.is_hanging_up or time.monotonic() >= deadline
            for version, changed, verb, item in news:
                if verb == "CUT":
                    self._chunk(b'{"type": "MODI')
                    self.close_connection = True
                    return
                if verb == "BOOKMARK":
                    event = {"type": verb, "object": {"metadata": {"resourceVersion": str(version)}}}
                elif changed == kind and _matches(item, query):
                    event = {"type": verb, "object": item}
                else:
                    continue
                self._chunk(json.dumps(event).encode() + b"\n")
            if is_over:
                if not state.is_hanging_up:
                    self._chunk(b"")
                self.close_connection = True
                return

    def _log(self, pod: str) -> None:
        streams = self.server_state.logs.get(pod)
        if streams is None:
            self._status(500, "InternalError", "no route to the kubelet")
            return
        lines = streams.pop(0) if len(streams) > 1 else streams[0]
        self._begin_stream()
        for line in lines:
            if line == "cut":  # in the middle of a line
                self._chunk(b"2026-01-01T00:00:00Z half of a li")
                self.close_connection = True
                return
            self._chunk(line.encode() + b"\n")
        if lines and lines[-1] == "unended":
            with self.server_state._news:
                self.server_state._news.wait_for(lambda: self.server_state.is_hanging_up, 40)
        self._chunk(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _json(self, status: int, data: Object, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(data).encode(), headers or {})

    def _status(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        name: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        data = {"kind": "Status", "reason": reason, "message": message, "code": status}
        if name:
            data["details"] = {"name": name}
        self._bytes(status, json.dumps(data).encode() if body is None else body, headers or {})

    def _bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


def _parts(path: str) -> tuple[str, str, str]:
    """Kind, name and part of a path below `/api/v1` or `/apis/<group>/<version>`."""
    pieces = [unquote(piece) for piece in path.strip("/").split("/")]
    rest = pieces[2:] if pieces[0] == "api" else pieces[3:]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return (*rest, "", "")[:3]  # type: ignore[return-value]


def _matches(item: Object, query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        key, has_value, value = wanted.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    field_selector = query.get("fieldSelector", "")
    if field_selector.startswith("metadata.name="):
        return item["metadata"]["name"] == field_selector.removeprefix("metadata.name=")
    return True
