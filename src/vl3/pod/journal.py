"""The events of a stage that pods train: printed for whoever follows the log, and kept in the store."""

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
from vl3.training.events import EVENTS_NAME

log = logging.getLogger("vl3.pod")

EVENT_PREFIX = "vl3-event "
"""What a line of the pod's output begins with that is an event."""
_UPLOAD_SECONDS = 30.0


class EventJournal:
    """Follows the event file of rank 0 and keeps a copy at `<work_uri>/events.jsonl`.

    Uploads run in a thread of their own, so that a slow store delays neither the log nor a signal. A failed upload is
    tried again at the next turn.

    Attributes:
        lost: why the last upload, at the end, failed; None if it did not.
    """

    def __init__(
        self,
        path: Path,
        work_uri: str,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        """Take up what former attempts left in the store.

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
        """Pass on and upload what is left."""
        self._ending.set()
        self._wake.set()
        self.poll()
        self._uploader.join()
        try:
            self._upload()
        except StorageError as storage_error:  # what ended the workers is to be said first
            self.lost = storage_error

    def poll(self) -> None:
        """Pass the whole lines that are new to `on_event`."""
        for event in self._new_events():
            self._on_event(event)
            if event["type"] == "progress" and event["done"] == event["total"]:
                self.upload_soon()  # the weights are published next, and a lost pod must not take the curve with it

    def upload_soon(self) -> None:
        """Upload now rather than at the next turn."""
        self._wake.set()

    def _new_events(self) -> Iterator[dict[str, Any]]:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                log.warning("an event line is not JSON: %r", line[:200])
                continue
            yield event

    def _keep_uploading(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(timeout=_UPLOAD_SECONDS)
            self._wake.clear()
            if self._ending.is_set():
                return
            try:
                self._upload()
            except StorageError as error:
                log.warning("the events are uploaded later: %s", error)

    def _upload(self) -> None:
        """Put a copy as it is at this moment, if it has grown: the file may grow while it is put."""
        if not self._path.is_file() or self._path.stat().st_size == self._uploaded:
            return
        with tempfile.TemporaryDirectory(prefix="vl3-events-") as folder:
            copy = Path(folder) / EVENTS_NAME
            with storage_errors(copy):
                shutil.copyfile(self._path, copy)
            self._store.put_file(copy, EVENTS_NAME)
            self._uploaded = copy.stat().st_size


def event_line(event: dict[str, Any]) -> str:
    """The line of the pod's output that says an event."""
    return EVENT_PREFIX + json.dumps(event, ensure_ascii=False)
