"""Reading files that other processes append to."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vl3.training.events import parse_event

log = logging.getLogger("vl3.launch")


class EventTail:
    """The events that are appended to a file from now on; an incomplete last line waits until it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.is_file() else 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The events of the new complete lines. A line that is no event is logged and skipped."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole, newline, _ = new.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            event = parse_event(line)
            if event is not None:
                yield event
            elif line.strip():
                log.warning("skipping a line that is no event: %r", line[:200])


def last_lines(path: Path, offset_bytes: int, *, count: int) -> list[str]:
    """The last non-empty lines of a text file after an offset."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(offset_bytes)
        text = file.read().decode("utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]
