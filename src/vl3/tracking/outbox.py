"""Calls that a thread of its own sends to MLflow one after the other, so that whoever makes them never waits.

A call is plain data, so that what could not be sent can be kept in a file and sent by a later process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vl3.errors import ClusterError, ConfigError, StorageError
from vl3.system.retry import BackOff, Pauses, StoppedError

log = logging.getLogger(__name__)

SERVER_PATIENCE_SECONDS = 30.0
"""Longest wait at the end for the next call to a server; as long as calls are sent, the rest is waited for."""
FILE_PATIENCE_SECONDS = 300.0
"""The same for a database file, which does not hang: only the machine may be slow."""
_DOWN_SHARE = 1 / 15
"""The share of that patience for a store that failed already, or has not answered for so long."""
_TRIES, _ALL_TRIES = 3, 6
_MAX_WAITING = 2000
_PAUSES = Pauses(first_seconds=0.5, longest_seconds=5.0)


@dataclass(slots=True)
class Call:
    """One call, which may be repeated."""

    target: str
    """Which run: `step` or `workflow`."""
    name: str
    """Method of the target."""
    arguments: Mapping[str, Any]
    """Its arguments, JSON-ready."""
    tries: int = field(default=0, compare=False)
    """How often it has failed."""


class Outbox:
    """Sends calls in order.

    A call that fails three times is set aside, so that one bad call does not hold up the others; when another one has
    been sent, the store answers again, and what was set aside is tried up to three times more.

        calls 1 to 4, the store is down during 1 and 2 and refuses 3 for good: sent 4, 1, 2; left 3

    Args:
        send: sends one call; ClusterError or StorageError means that it may succeed later, ConfigError that it cannot.
        patience_seconds: longest wait for the next call to be sent, at the end.
    """

    def __init__(self, send: Callable[[Call], None], *, patience_seconds: float = SERVER_PATIENCE_SECONDS) -> None:
        self._send = send
        self._patience_seconds = patience_seconds
        self._calls: deque[Call] = deque()
        self._aside: list[Call] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._back_off = BackOff(_PAUSES, self._stop)
        self._is_down = False
        self._busy_since: float | None = None
        self._sent_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="vl3-tracking", daemon=True)
        self._thread.start()

    def put(self, call: Call, *, may_drop: bool = False) -> None:
        """Add a call; one that the caller repeats at the end anyway may be dropped when too many wait."""
        with self._changed:
            if may_drop and len(self._calls) + len(self._aside) >= _MAX_WAITING:
                return
            self._calls.append(call)
            self._changed.notify_all()

    def close(self) -> list[Call]:
        """Wait until everything is sent, but never longer for the next call than the patience lasts.

        Returns:
            The calls that were not sent, in order. The first of them may still arrive.
        """
        wait_seconds = self._patience_seconds
        with self._changed:
            if self._is_down or (self._busy_since and time.monotonic() - self._busy_since > wait_seconds):
                wait_seconds *= _DOWN_SHARE
            self._sent_at = time.monotonic()
            while self._calls and self._thread.is_alive():
                left_seconds = self._sent_at + wait_seconds - time.monotonic()
                if left_seconds <= 0:
                    break
                self._changed.wait(min(left_seconds, 0.5))
            self._stop.set()
            self._changed.notify_all()
            return [*self._aside, *self._calls]

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                self._send(call)
            except ConfigError as error:
                log.warning("%s is left out of MLflow: %s", call.name, error)
                self._note_sent()
            except (ClusterError, StorageError) as error:
                self._note_failed(call, error)
                try:
                    self._back_off.wait()
                except StoppedError:
                    return
            else:
                self._note_sent()

    def _next(self) -> Call | None:
        """The first call, which stays in the queue until it is sent; None after the end."""
        with self._changed:
            while not self._calls and not self._stop.is_set():
                self._changed.wait()
            if self._stop.is_set():
                return None
            self._busy_since = time.monotonic()
            return self._calls[0]

    def _note_sent(self) -> None:
        with self._changed:
            self._is_down, self._busy_since, self._sent_at = False, None, time.monotonic()
            self._back_off.reset()
            self._calls.popleft()
            again = [call for call in self._aside if call.tries < _ALL_TRIES]
            self._aside = [call for call in self._aside if call.tries >= _ALL_TRIES]
            self._calls.extend(again)
            self._changed.notify_all()

    def _note_failed(self, call: Call, error: Exception) -> None:
        with self._changed:
            call.tries += 1
            if not self._is_down:
                log.warning(
                    "MLflow could not be reached for %s; the work goes on, it is tried again: %s", call.name, error
                )
            self._is_down, self._busy_since = True, None
            if call.tries % _TRIES == 0:
                self._aside.append(self._calls.popleft())
            self._changed.notify_all()
