"""Follows the objects of one kind: lists them once, then watches with one long request after another."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vl3.errors import Vl3Error
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.outages import LostTouchError, Outage, may_pass, raise_refusal
from vl3.launch.kube.resources import Resource
from vl3.system.retry import BackOff, StoppedError

if TYPE_CHECKING:
    import urllib3

log = logging.getLogger("vl3.launch")

GONE = 410
_MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Change:
    """What a watcher saw."""

    kind: str
    """`synced` with all objects, `changed` or `deleted` with one, `failed` with an error."""
    resource: Resource
    """What the objects are."""
    objects: tuple[dict[str, Any], ...] = ()
    """The objects."""
    error: Exception | None = None
    """Why the watch ended for good."""


class ExpiredError(Exception):
    """The server does not keep the version to resume from any more; the objects have to be listed again."""


class BrokenOffError(ApiUnreachableError):
    """A stream ended before its end."""


class ResourceWatcher(threading.Thread):
    """A thread that reports every change of the objects that a query selects."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        query: dict[str, str],
        tell: Callable[[Change], None],
        limits: LaunchLimits,
    ) -> None:
        super().__init__(name=f"watch-{resource.plural}", daemon=True)
        self._client = client
        self._resource = resource
        self._query = query
        self._tell = tell
        self._limits = limits
        self._stop_request = threading.Event()
        self._response: urllib3.BaseHTTPResponse | None = None

    def stop(self) -> None:
        """End the thread soon; ignore what it still reports."""
        self._stop_request.set()
        hang_up(self._response)

    def run(self) -> None:
        """Watch until stopped."""
        try:
            self._follow()
        except StoppedError:
            pass
        except (Vl3Error, LostTouchError) as error:
            self._tell(Change("failed", self._resource, error=error))
        except Exception as error:  # noqa: BLE001 - a thread's error has to reach the launch
            self._tell(Change("failed", self._resource, error=error))

    def _follow(self) -> None:
        back_off = BackOff(self._limits.pauses, self._stop_request)
        outage = Outage(self._limits, self._client)
        version: str | None = None
        while not self._stop_request.is_set():
            try:
                if version is None:
                    version = self._list()
                    outage.over()
                started, since = time.monotonic(), version
                for reached in self._watch(since):
                    outage.over()
                    if reached != version:
                        version = reached
                        back_off.reset()
                if version == since and time.monotonic() - started < 1.0:
                    back_off.wait()  # do not hammer a server that hangs up at once
            except ExpiredError:
                log.info("listing %s again: the version to resume from has expired", self._resource.plural)
                version = None
                back_off.wait()
            except ApiUnreachableError as error:
                outage.note(error)
                back_off.wait()
            except ApiError as error:
                self._weigh(error, outage)
                back_off.wait(error.retry_after_seconds)

    def _weigh(self, error: ApiError, outage: Outage) -> None:
        if not may_pass(error, self._client, self._limits):
            raise_refusal(error, self._client)
            raise error
        outage.note(error)

    def _list(self) -> str:
        answer = self._client.list(self._resource, **self._query)
        self._tell(Change("synced", self._resource, tuple(answer.get("items") or ())))
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> Iterator[str]:
        """Report changes until the server ends the request or the connection breaks; yields the versions reached."""
        try:
            response = self._client.watch(
                self._resource, version=version, seconds=self._limits.watch_seconds, **self._query
            )
        except ApiError as error:
            if error.status == GONE:
                raise ExpiredError from error
            raise
        self._response = response
        try:
            if self._stop_request.is_set():  # stop() came before there was a response to hang up
                return
            yield version
            for line in lines_of(response):
                event = _event(line)
                if event is None:
                    return
                yield self._take(event)
        finally:
            self._response = None
            response.close()

    def _take(self, event: dict[str, Any]) -> str:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == GONE:
                raise ExpiredError
            raise ApiError(int(item.get("code") or 500), json.dumps(item).encode(), None, f"watch {self._resource}")
        if kind != "BOOKMARK":
            self._tell(Change("deleted" if kind == "DELETED" else "changed", self._resource, (item,)))
        return str(item["metadata"]["resourceVersion"])


def lines_of(response: "urllib3.BaseHTTPResponse") -> Iterator[bytes]:
    """Complete lines of a stream as they arrive; a broken connection ends them.

    The chunks "ab NEWLINE c" and "d NEWLINE" give the lines "ab" and "cd".
    """
    try:
        yield from whole_lines_of(response)
    except BrokenOffError as error:
        log.debug("%s", error)


def whole_lines_of(response: "urllib3.BaseHTTPResponse") -> Iterator[bytes]:
    """The same, for a caller who has to know whether the stream was whole.

    Raises:
        BrokenOffError: the connection broke; the line that it cut is left out.
    """
    import urllib3

    rest = b""
    chunks = response.stream(None)
    while True:
        try:
            chunk = next(chunks, None)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:  # the last two: hung up
            raise BrokenOffError(f"a stream broke off: {error}") from error
        if chunk is None:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE_BYTES:
            raise BrokenOffError(f"a stream has a line of more than {_MAX_LINE_BYTES} bytes")
    if rest:
        yield rest


def hang_up(response: "urllib3.BaseHTTPResponse | None") -> None:
    """Wake the thread that reads a stream."""
    if response is None:
        return
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended already
        response.shutdown()


def _event(line: bytes) -> dict[str, Any] | None:
    """One event; None for an incomplete line of a broken connection."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("object"), dict) and "type" in event else None
