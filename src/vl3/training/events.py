"""The event file of a stage: one JSON line per event, appended by rank 0 and read by the launcher."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vl3.system.files import storage_errors

log = logging.getLogger("vl3.training")

EVENTS_NAME = "events.jsonl"
"""Name of a stage's event file, in its folder and under its work URI."""
STAGE_FILE = "stage.json"
"""File next to the events of a stage: what was launched, and how it ended."""


class EventLog:
    """Appends events. Without a path (on ranks other than 0) it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _end_broken_line(path)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event in a single write, so that readers see only complete lines.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._path is None:
            return
        line = json.dumps({"type": kind, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
        with storage_errors(self._path, needed_bytes=len(line)), self._path.open("a", encoding="utf-8") as file:
            file.write(line)

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


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a file. An incomplete line, left by a killed writer, is skipped with a warning."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        elif line.strip():
            log.warning("%s: an incomplete line is skipped: %.80r", path, line)
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
        case "metrics":
            return event["step"] > step
        case "progress":
            return event["done"] > step
        case "end":  # published once, found damaged, trained again
            return True
        case _:
            return False
