"""An HTTP proxy in front of the S3 server that injects faults and counts requests."""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

_SAID = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{text}"
_SLOW_DOWN = "<Error><Code>{code}</Code><Message>{code} (from the proxy)</Message></Error>"


@dataclass
class Request:
    """One request that passes."""

    method: str
    target: str
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        found = re.search(rb"(?im)^%s: *(.*?)\r$" % re.escape(name.encode()), self.head)
        return found[1].decode() if found else ""


@dataclass
class Fault:
    """What to do with requests that match, `times` times."""

    action: str
    """One of the actions of FaultProxy._apply."""
    match: str = ""
    """Regular expression over `METHOD /path?query`."""
    times: int = 1
    after: int = 0
    """How many matching requests pass first."""
    value: int | float | str = 0
    account: str = ""
    """Only requests of this access key."""
    hits: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)

    def takes(self, request: Request) -> bool:
        if not re.search(self.match, f"{request.method} {request.target}"):
            return False
        if self.account and f"Credential={self.account}/" not in request.header("Authorization"):
            return False
        self.seen += 1
        if self.seen <= self.after or self.hits >= self.times:
            return False
        self.hits += 1
        return True


class FaultProxy:
    """Listens on its own port; `with proxy.fault(...)` breaks requests inside the block."""

    def __init__(self, upstream_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = upstream_port
        self._tls = tls
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def count(self, pattern: str) -> int:
        """Requests so far that match `METHOD /path?query`."""
        return sum(bool(re.search(pattern, line)) for line in self.requests)

    @contextmanager
    def fault(self, *faults: Fault) -> Iterator[None]:
        with self._lock:
            self._faults, self.requests = list(faults), []
        try:
            yield
        finally:
            with self._lock:
                self._faults = []

    def close(self) -> None:
        self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread; close alone does not
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._is_closed:
                    return
                raise  # a proxy that ends in silence looks like a server that hangs
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = None
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            upstream = socket.create_connection(("127.0.0.1", self._upstream))
            source, answers = client.makefile("rb"), upstream.makefile("rb")
            while request := _read_request(source, client):
                with self._lock:
                    self.requests.append(f"{request.method} {request.target}")
                    fault = next((fault for fault in self._faults if fault.takes(request)), None)
                if not self._pass(request, fault, client, upstream, answers):
                    return
        except OSError:
            pass
        finally:
            for side in (client, upstream):
                if side is not None:
                    with suppress(OSError):
                        side.close()

    def _pass(self, request: Request, fault: Fault | None, client: Any, upstream: Any, answers: Any) -> bool:
        """Forward one request and its answer; returns whether the connection stays open."""
        action, value = (fault.action, fault.value) if fault else ("", 0)
        if action == "reset":
            return _reset(client)
        if action == "silence":
            client.settimeout(float(value))
            with suppress(OSError):
                client.recv(1)
            return False
        if action == "delay":
            time.sleep(float(value))
        if action == "refuse":
            return _answer(client, request, *str(value).split())
        if action == "say":
            client.sendall(_SAID.format(length=len(str(value)), text=value).encode())
            return True
        head, body = request.head, request.body
        if action == "flip_sent" and body:
            body = _flip(body, len(body) // 2)
        upstream.sendall(head + body)
        head, body = _read_answer(answers, request.method)
        if action == "lose_answer":
            return _reset(client)
        return _deliver(client, head, body, action, value)


def _deliver(client: Any, head: bytes, body: bytes, action: str, value: Any) -> bool:
    if action == "cut":
        client.sendall(head + body[: int(value)])
        time.sleep(0.05)  # a reset overtakes data that has not been read
        return _reset(client)
    if action == "shorten":
        body = body[: int(value)]
        head = re.sub(rb"(?im)^content-length:.*?\r\n", b"Content-Length: %d\r\n" % len(body), head)
    if action == "flip":
        body = _flip(body, int(value)) if body else body
    if action == "drip":
        client.sendall(head)
        for byte in body:
            client.sendall(bytes([byte]))
            time.sleep(float(value))
        return True
    client.sendall(head + body)
    return True


def _flip(data: bytes, offset: int) -> bytes:
    changed = bytearray(data)
    changed[offset % len(changed)] ^= 1
    return bytes(changed)


def _reset(client: socket.socket) -> bool:
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _answer(client: Any, request: Request, status: str, code: str = "", wait: str = "") -> bool:
    body = b"" if request.method == "HEAD" else _SLOW_DOWN.format(code=code).encode() if code else b"<html>no</html>"
    kind = "application/xml" if code else "text/html"
    extra = f"Retry-After: {wait}\r\n" if wait else ""
    head = f"HTTP/1.1 {status} Proxy\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return True


def _read_head(source: Any) -> bytes:
    lines = []
    while line := source.readline(65536):
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _length(head: bytes) -> int:
    found = re.search(rb"(?im)^content-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _read_request(source: Any, client: Any) -> Request | None:
    head = _read_head(source)
    if not head:
        return None
    method, target, _ = head.split(b" ", 2)
    if re.search(rb"(?im)^expect: *100-continue", head):  # boto3 waits for it
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?im)^expect:.*?\r\n", b"", head)
    return Request(method.decode(), target.decode(), head, source.read(_length(head)))


def _read_answer(source: Any, method: str) -> tuple[bytes, bytes]:
    head = _read_head(source)
    if not head:
        raise ConnectionResetError("the server ended the connection")
    if method == "HEAD" or head.split(b" ", 2)[1] in (b"204", b"304"):
        return head, b""
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        body = _read_chunks(source.readline, source.read)
        head = re.sub(rb"(?im)^transfer-encoding:.*?\r\n", b"Content-Length: %d\r\n" % len(body), head)
        return head, body
    return head, source.read(_length(head))


def _read_chunks(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> bytes:
    body = bytearray()
    while size := int(readline().split(b";")[0], 16):
        body += read(size)
        readline()
    readline()
    return bytes(body)
