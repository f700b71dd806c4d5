"""A pod's log as the API server streams it, read over several requests without losing or doubling a line."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vl3.launch.kube.client import Client
from vl3.launch.kube.watch import hang_up, whole_lines_of

if TYPE_CHECKING:
    import urllib3

_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ?(.*)", re.DOTALL)


class PodLog:
    """The log of one container; each `read` goes on where the last one ended or broke off."""

    def __init__(self, client: Client, pod: str, container: str) -> None:
        self.pod = pod
        self._client = client
        self._container = container
        self._reader = LogReader()
        self._response: urllib3.BaseHTTPResponse | None = None

    def read(self, *, follow: bool, **query: str) -> Iterator[str]:
        """The lines that no earlier call gave, until the stream ends; with `follow` it ends with the container.

        Raises:
            ApiError: the API server refuses: the pod is gone, its container has not started, we have no right.
            ApiUnreachableError: no answer.
            BrokenOffError: the answer broke off.
        """
        asked = {"container": self._container, **query, **self._reader.since()}
        response = self._client.log(self.pod, follow=follow, **asked)
        self._response = response
        try:
            for line in whole_lines_of(response):
                text = self._reader.take(line)
                if text is not None:
                    yield text
        finally:
            self._response = None
            response.close()

    def hang_up(self) -> None:
        """Wake the thread that reads."""
        hang_up(self._response)


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


def _sortable(stamp: str) -> str:
    """A timestamp with all nine digits of its fraction, so that text order is time order.

    `2026-01-31T12:00:05.7Z` gives `2026-01-31T12:00:05.700000000`, which sorts before `...05.710000000`.
    """
    whole, _, fraction = stamp[:-1].partition(".")
    return f"{whole}.{fraction:0<9}"
