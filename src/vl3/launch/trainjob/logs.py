"""Pods' logs: rank 0's while it is written, and the last lines of every rank after a failure.

A log that cannot be read never fails a job.
"""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import CONTAINER, Object, name_of, phase_of, rank_of
from vl3.launch.kube.watch import hang_up, lines_of

if TYPE_CHECKING:
    import urllib3

log = logging.getLogger("vl3.launch")

_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a pod wrote."""

    pod: str
    """Name of the pod."""
    text: str
    """The line."""


class LogReader:
    """Takes the lines of one log over several requests, each line once.

    The API accepts a start time in whole seconds, so a new request begins with lines that are known. They are dropped
    by their timestamps: those before the last one, and as many with the last one as were taken before.

        first request   12:00:05.1 a   12:00:05.7 b   12:00:05.7 c      then the connection breaks
        second request, sinceTime=12:00:05Z
                        05.1 a is older than 05.7, b and c are the two known of 05.7, 12:00:05.7 d is new
    """

    def __init__(self) -> None:
        self._last = ""
        self._count = 0
        self._skip = 0

    def since(self) -> dict[str, str]:
        """The query that continues from here; must be called before each request."""
        self._skip = self._count
        return {"sinceTime": f"{self._last[:19]}Z"} if self._last else {}

    def take(self, line: bytes) -> str | None:
        """The text of a line, or None if it was taken before."""
        match = _STAMPED.fullmatch(line)
        if match is None:
            return line.decode("utf-8", errors="replace")
        stamp, text = _sortable(match[1].decode()), match[2].decode("utf-8", errors="replace")
        if stamp < self._last:
            return None
        if stamp == self._last:
            if self._skip > 0:
                self._skip -= 1
                return None
            self._count += 1
        else:
            self._last, self._count, self._skip = stamp, 1, 0
        return text


class LogFollower(threading.Thread):
    """A thread that passes on each line of a pod's log until the pod has ended."""

    def __init__(self, client: Client, pod: str, tell: Callable[[LogLine], None], limits: LaunchLimits) -> None:
        super().__init__(name=f"log-{pod}", daemon=True)
        self.pod = pod
        self._client = client
        self._tell = tell
        self._limits = limits
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._response: urllib3.BaseHTTPResponse | None = None

    def pod_ended(self) -> None:
        """The pod has ended: let the thread read the rest of the log and end."""
        self._ended.set()
        self._wake.set()

    def finish(self, seconds: float) -> None:
        """Wait for the rest of the log, then end the thread."""
        self.pod_ended()
        self.join(seconds)
        hang_up(self._response)

    def run(self) -> None:
        """Follow until the pod has ended."""
        reader, silent = LogReader(), 0
        while True:
            is_last = self._ended.is_set()
            is_read, lines = self._read(reader)
            if is_last or (self._ended.is_set() and is_read):
                return
            silent = 1 if lines else silent + 1
            self._wake.wait(self._limits.log_pauses.after(silent))

    def _read(self, reader: LogReader) -> tuple[bool, int]:
        """Read one stream to its end; returns whether there was one, and its number of new lines."""
        lines = 0
        try:
            response = self._client.log(self.pod, follow=True, container=CONTAINER, **reader.since())
        except (ApiError, ApiUnreachableError) as error:
            log.debug("the log of %s cannot be read now: %s", self.pod, error)
            return False, 0
        self._response = response
        try:
            for line in lines_of(response):
                text = reader.take(line)
                if text is not None:
                    lines += 1
                    self._tell(LogLine(self.pod, text))
        finally:
            self._response = None
            response.close()
        return True, lines


def last_lines(client: Client, pods: Sequence[Object], limits: LaunchLimits) -> dict[str, list[str]]:
    """The last lines of each pod that has any, by name, at most limits.log_tail_pods pods in order."""
    tails: dict[str, list[str]] = {}
    for pod in [one for one in pods if phase_of(one) in ("Running", "Succeeded", "Failed")][: limits.log_tail_pods]:
        reader = LogReader()
        try:
            response = client.log(name_of(pod), follow=False, container=CONTAINER, tailLines=str(limits.log_tail_lines))
        except (ApiError, ApiUnreachableError) as error:
            log.info("node rank %d: no log of pod %s (%s)", rank_of(pod), name_of(pod), error)
            continue
        try:
            taken = [reader.take(line) for line in lines_of(response)]
            tails[name_of(pod)] = [text for text in taken if text and not text.startswith("vl3-event ")]
        finally:
            response.close()
    return tails


def _sortable(stamp: str) -> str:
    """A timestamp with all nine digits of its fraction, so that text order is time order.

    `2026-01-31T12:00:05.7Z` gives `2026-01-31T12:00:05.700000000`, which sorts before `...05.710000000`.
    """
    whole, _, fraction = stamp[:-1].partition(".")
    return f"{whole}.{fraction:0<9}"
