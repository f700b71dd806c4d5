"""The event file of a stage: one JSON line for each event, appended by rank 0 and read by the launcher."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vl3.system.files import storage_errors

log = logging.getLogger("vl3.training")

EVENTS_NAME = "events.jsonl"
"""Name of a stage's event file, in its folder and below its work URI."""
STAGE_FILE = "stage.json"
"""File beside the events of a stage: what was launched, and how it went."""


class EventLog:
    """Appends events; without a path (other ranks) it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _end_broken_line(path)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event, in one write, so that a reader sees whole lines.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._path is None:
            return
        line = json.dumps({"type": kind, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
        with storage_errors(self._path, needed_bytes=len(line)), self._path.open("a", encoding="utf-8") as file:
            file.write(line)

    def note(self, text: str) -> None:
        """Say something that a reader of the run should know."""
        self.write("note", text=text, time=time.time())


def _end_broken_line(path: Path) -> None:
    """A killed writer may have left half a line; what follows must not be glued to it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The whole events of a file; a killed writer may have left half a line, which is named in the log."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        elif line.strip():
            log.warning("%s: a broken line is left out: %.80r", path, line)
    return events


def settled_events(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of the training as it counts: each step once.

    An attempt that was killed had gone some steps beyond the checkpoint that the next attempt went on from. Those
    steps were done again, so what the killed attempt said of them is left out.
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
