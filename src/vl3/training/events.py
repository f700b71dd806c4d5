"""The event file of a stage: one JSON line for each event, appended by rank 0 and read by the launcher."""

import json
import time
from pathlib import Path
from typing import Any

from vl3.store.writing import storage_errors


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
