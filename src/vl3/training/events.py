"""The event file of a stage: one JSON line per event, appended by rank 0 and read by the launcher."""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.system.documents import parse_object
from vl3.system.files import open_to_append, storage_errors

log = logging.getLogger("vl3.training")

EVENTS_NAME = "events.jsonl"
"""Name of a stage's event file, in its folder and under its work URI."""
PROFILE_FOLDER = "profile"
"""Where profiles of steps are below a stage's work URI, and beside its events in the artifact."""
MAX_UNWRITTEN = 1000
"""Number of events that wait in memory for a disk with space, before the stage ends with the disk's error."""
STAGE_FILE = "stage.json"
"""File next to the events of a stage: what was launched, and how it ended."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


_FIELDS: dict[str, dict[str, Callable[[object], bool]]] = {
    "start": {"resumed_from_step": _is_count},
    "metrics": {"step": _is_count, "time": _is_number, "values": _are_numbers},
    "progress": {"done": _is_count, "total": _is_count, "text": _is_text},
    "note": {"text": _is_text},
    "skipped_update": {"step": _is_count},
    "straggler": {"step": _is_count, "rank": _is_count},
    "state": {"state": _is_text, "text": _is_text},
    "checkpoint": {"state": _is_text, "step": _is_count, "time": _is_number},
}
"""The fields that readers of an event use, by its kind. An event without them is noise that happens to be JSON."""


class EventLog:
    """Appends events, from any thread. Without a path (on ranks other than 0) it does nothing.

    A disk that is full for a while does not end days of training: events wait for their turn in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unwritten: list[str] = []
        self._lock = threading.Lock()  # the thread that writes checkpoints has events, too
        if path is not None:
            with storage_errors(path):
                os.close(open_to_append(path))
                _end_broken_line(path)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event in a single write, so that readers see only complete lines.

        Raises:
            StorageError: the file could not be written for the last MAX_UNWRITTEN events.
        """
        if self._path is None:
            return
        line = json.dumps({"type": kind, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            self._unwritten.append(line)
            try:
                self._append(self._path, "".join(self._unwritten))
            except StorageError as error:
                if len(self._unwritten) >= MAX_UNWRITTEN:
                    raise
                if len(self._unwritten) == 1:
                    log.warning("events wait in memory, training goes on: %s", error)
            else:
                self._unwritten.clear()

    def _append(self, path: Path, lines: str) -> None:
        with storage_errors(path, needed_bytes=len(lines)):
            end = path.stat().st_size
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(lines)
            except OSError:
                os.truncate(path, end)  # what a full disk took of them comes again, in the same place
                raise

    def note(self, text: str) -> None:
        """Append a note, a sentence that the user of the run should read."""
        self.write("note", text=text, time=time.time())


def _end_broken_line(path: Path) -> None:
    """A killed writer may have left an incomplete line; end it, so that the next event gets its own line."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")


def parse_event(line: bytes) -> dict[str, Any] | None:
    """The event of a line, with the fields that its kind has; None for anything else, whatever the bytes are."""
    try:
        event = parse_object(line)
    except ValueError:
        return None
    kind = event.get("type")
    if not isinstance(kind, str) or not all(check(event.get(name)) for name, check in _FIELDS.get(kind, {}).items()):
        return None
    return event


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file. What is no event is skipped with a warning: half a line of a killed writer, or noise."""
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        event = parse_event(line)
        if event is not None:
            events.append(event)
        elif line.strip():
            log.warning("%s: a line that is no event is skipped: %.80r", path, line)
    return events


def settled_events(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events with each step only once.

    A killed attempt has usually trained some steps beyond the checkpoint from which the next attempt resumed. Those
    steps were trained again, so the killed attempt's events about them are dropped.

        start at 0, metrics 10, 20, 30, start at 20, metrics 30, 40     the first metrics of step 30 are dropped
    """
    settled: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "start":
            resumed_from = event["resumed_from_step"]
            settled = [former for former in settled if not _is_beyond(former, resumed_from)]
        settled.append(event)
    return settled


def _is_beyond(event: dict[str, Any], step: int) -> bool:
    match event["type"]:
        case "metrics" | "skipped_update" | "straggler":
            return event["step"] > step
        case "progress":
            return event["done"] > step
        case "end":  # published once, found damaged, trained again
            return True
        case _:
            return False
