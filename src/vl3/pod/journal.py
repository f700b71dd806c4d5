"""The events of a stage that runs in pods: printed to the log, which the launcher follows, and kept in the store."""

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vl3.errors import StorageError
from vl3.store.objects import open_store
from vl3.system.files import atomic_write_bytes, storage_errors
from vl3.training.events import EVENTS_NAME, parse_event

log = logging.getLogger("vl3.pod")

EVENT_PREFIX = "vl3-event "
"""Prefix of the lines in the pod's output that are events."""
_UPLOAD_SECONDS = 30.0


class EventJournal:
    """Follows the event file of rank 0 and keeps a copy at `<work_uri>/events.jsonl`.

    Uploads run in their own thread, so that a slow store delays neither the log nor a signal. A failed upload is
    retried at the next interval.

    Attributes:
        lost: why the final upload failed; None if it did not.
    """

    def __init__(
        self,
        path: Path,
        work_uri: str,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        """Continue the events that earlier attempts left in the store.

        Raises:
            StorageError: the store cannot be read.
        """
        self.lost: StorageError | None = None
        self._path = path
        self._store = open_store(work_uri)
        self._on_event = on_event
        former = self._store.read(EVENTS_NAME)
        if former is not None:
            atomic_write_bytes(path, former)
        self._offset = self._uploaded = path.stat().st_size if path.is_file() else 0
        self._wake, self._ending = threading.Event(), threading.Event()
        self._uploader = threading.Thread(target=self._keep_uploading, name="event-journal", daemon=True)

    def __enter__(self) -> Self:
        self._uploader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Pass on and upload the remaining events."""
        self._ending.set()
        self._wake.set()
        self.poll()
        self._uploader.join()
        try:
            self._upload()
        except StorageError as storage_error:  # must not hide the error that ended the workers
            self.lost = storage_error

    def poll(self) -> None:
        """Pass the events of new complete lines to `on_event`."""
        for event in self._new_events():
            self._on_event(event)
            if event["type"] == "progress" and event["done"] == event["total"]:
                self.upload_soon()  # before the weights are published: a lost pod must not lose the curve

    def upload_soon(self) -> None:
        """Upload now instead of at the next interval."""
        self._wake.set()

    def _new_events(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            event = parse_event(line)
            if event is not None:
                yield event
            elif line.strip():
                log.warning("skipping a line that is no event: %r", line[:200])

    def _keep_uploading(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(timeout=_UPLOAD_SECONDS)
            self._wake.clear()
            if self._ending.is_set():
                return
            try:
                self._upload()
            except StorageError as error:
                log.warning("could not upload the events; retrying later: %s", error)

    def _upload(self) -> None:
        """Upload a snapshot of the file if it has grown: the file itself may grow during the upload."""
        if not self._path.is_file() or self._path.stat().st_size == self._uploaded:
            return
        with tempfile.TemporaryDirectory(prefix="vl3-events-") as folder:
            copy = Path(folder) / EVENTS_NAME
            with storage_errors(copy):
                shutil.copyfile(self._path, copy)
            self._store.put_file(copy, EVENTS_NAME)
            self._uploaded = copy.stat().st_size


def event_line(event: dict[str, Any]) -> str:
    """The line of the pod's output for an event."""
    return EVENT_PREFIX + json.dumps(event, ensure_ascii=False)
