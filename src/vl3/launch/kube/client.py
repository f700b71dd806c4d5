"""Requests to the API server: plain objects in and out, every request counted, every error classified."""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from vl3.launch.kube.connection import Connection
from vl3.launch.kube.resources import Resource

if TYPE_CHECKING:
    import urllib3

REQUEST_SECONDS = 30.0
"""Timeout of every request except watches and followed logs."""
_CONNECT_SECONDS = 10.0


class ApiUnreachableError(Exception):
    """No answer came; the request may or may not have succeeded."""


class ApiError(Exception):
    """The API server refused or failed.

    Attributes:
        status: HTTP status.
        reason: Kubernetes' own reason, `NotFound`; empty if the answer has none.
        retry_after_seconds: pause that the server asks for; 0 if none.
        names_object: whether the answer is about an object and not about an unknown path.
    """

    def __init__(self, status: int, body: bytes, retry_after: str | None, action: str) -> None:
        """Read the `Status` object of an answer."""
        data = _parsed(body)
        self.status = status
        self.reason = str(data.get("reason", ""))
        self.message = str(data.get("message") or body[:300].decode("utf-8", errors="replace").strip())
        self.names_object = bool((data.get("details") or {}).get("name"))
        self.retry_after_seconds = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        self.action = action
        super().__init__(f"{action}: {status} {self.reason}: {self.message}")

    @property
    def is_passing(self) -> bool:
        """Whether the error is transient: the server is busy, starting, or cannot reach a webhook."""
        return self.status == 429 or self.status >= 500


class Client:
    """A client of the API server for one namespace; thread safe."""

    def __init__(self, connection: Connection) -> None:
        """Connect lazily: nothing is sent before the first request."""
        self._connection = connection
        self._lock = threading.Lock()
        self._generation = 0
        self._broken_at: float | None = None
        self.counts: Counter[str] = Counter()
        """Requests so far by method and kind, `GET trainjobs`."""

    @property
    def namespace(self) -> str:
        """Namespace of all namespaced requests."""
        return self._connection.namespace

    @property
    def server(self) -> str:
        """Address of the API server, for messages."""
        return self._connection.server

    @property
    def source(self) -> str:
        """Where address and credentials come from, for messages."""
        return self._connection.source

    def is_settling(self, seconds: float) -> bool:
        """Whether it failed to answer within this time: a starting server first refuses much and lacks CRDs."""
        return self._broken_at is not None and time.monotonic() - self._broken_at < seconds

    @property
    def requests(self) -> int:
        """Number of requests so far, including retries and watches."""
        with self._lock:
            return sum(self.counts.values())

    def get(self, resource: Resource, name: str, part: str | None = None) -> dict[str, Any]:
        """Read one object."""
        return self._json("GET", resource, name=name, part=part)

    def list(self, resource: Resource, **query: str) -> dict[str, Any]:
        """Read all objects that the query (labelSelector, fieldSelector, limit) selects."""
        return self._json("GET", resource, query=query)

    def create(self, resource: Resource, body: Mapping[str, Any], **query: str) -> dict[str, Any]:
        """Create an object; the server refuses unknown fields instead of dropping them."""
        return self._json("POST", resource, query={"fieldValidation": "Strict", **query}, body=body)

    def annotate(self, resource: Resource, name: str, annotations: Mapping[str, str]) -> dict[str, Any]:
        """Set annotations of an object."""
        body = {"metadata": {"annotations": dict(annotations)}}
        return self._json("PATCH", resource, name=name, body=body, content_type="application/merge-patch+json")

    def delete(self, resource: Resource, name: str, *, uid: str | None = None) -> None:
        """Delete an object and then what it owns; with a uid only if the object has it.

        Raises:
            ApiError: 404 if it is gone, 409 if another object has the name now.
        """
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        self._json("DELETE", resource, name=name, body=options)

    def delete_all(self, resource: Resource, *, grace_seconds: int, **query: str) -> None:
        """Delete all objects that the query selects, in one request."""
        self._json("DELETE", resource, query=query, body={"gracePeriodSeconds": grace_seconds})

    def watch(self, resource: Resource, *, version: str, seconds: float, **query: str) -> "urllib3.BaseHTTPResponse":
        """Open the stream of changes since a version; the server ends it after some time."""
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        return self._open("GET", resource, query=asked, read_seconds=seconds + REQUEST_SECONDS, verb="WATCH")

    def log(self, pod: str, *, follow: bool, **query: str) -> "urllib3.BaseHTTPResponse":
        """Open a pod's log with a timestamp before each line."""
        asked = {"timestamps": "true", **query, **({"follow": "true"} if follow else {})}
        path = Resource("api/v1", "pods")
        seconds = None if follow else REQUEST_SECONDS
        return self._open("GET", path, name=pod, part="log", query=asked, read_seconds=seconds, verb="LOG")

    def _json(self, method: str, resource: Resource, **request: Any) -> dict[str, Any]:
        response = self._open(method, resource, read_seconds=REQUEST_SECONDS, **request)
        try:
            body = response.read()
        except _transport_errors() as error:
            raise ApiUnreachableError(f"{self.server} broke off its answer ({_first_line(error)})") from error
        finally:
            response.release_conn()
        return _parsed(body)

    def _open(
        self,
        method: str,
        resource: Resource,
        *,
        read_seconds: float | None,
        name: str | None = None,
        part: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        verb: str | None = None,
    ) -> "urllib3.BaseHTTPResponse":
        """Send a request; refused credentials are read again once."""
        path = resource.path(self.namespace, name, part) + (f"?{urlencode(query)}" if query else "")
        for is_last in (False, True):
            # Several threads may be refused with the same old token; the generation lets only the first reload it.
            generation = self._generation
            self._count(f"{verb or method} {resource.plural}")
            response = self._send(method, path, body, content_type, read_seconds)
            if response.status < 400:
                return response
            error = ApiError(
                response.status,
                self._rest(response),
                response.headers.get("Retry-After"),
                _action(verb or method, resource, name, self.namespace),
            )
            if response.status != 401 or is_last:
                raise error
            self._reload(generation)
        raise AssertionError("unreachable")

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, content_type: str, read_seconds: float | None
    ) -> "urllib3.BaseHTTPResponse":
        import urllib3

        headers = {"Accept": "application/json", **self._connection.authorization()}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            return self._connection.pool.request(
                method,
                self.server + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                retries=False,
                preload_content=False,
            )
        except _transport_errors() as error:
            self._broken_at = time.monotonic()
            raise ApiUnreachableError(f"{self.server} does not answer ({_first_line(error)})") from error

    def _rest(self, response: "urllib3.BaseHTTPResponse") -> bytes:
        try:
            return response.read()
        except _transport_errors():
            return b""
        finally:
            response.release_conn()

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _reload(self, generation: int) -> None:
        """Read the credentials again, unless another thread just did."""
        with self._lock:
            if generation == self._generation:
                self._connection.reload()
                self._generation += 1


def _transport_errors() -> tuple[type[BaseException], ...]:
    import urllib3

    return (urllib3.exceptions.HTTPError, OSError)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]


def _action(verb: str, resource: Resource, name: str | None, namespace: str) -> str:
    words = {"GET": "get" if name else "list", "POST": "create", "LOG": "read the log of", "WATCH": "watch"}
    what = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    where = f" in namespace {namespace}" if resource.is_namespaced else ""
    return f"{words.get(verb, verb.lower())} {what}{f' {name}' if name else ''}{where}"


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
