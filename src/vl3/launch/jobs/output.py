"""Passes on a job's log lines, events and states: to files, the log and the caller."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.launch.job import LaunchJob, StateChange
from vl3.store.objects import open_store
from vl3.system.files import open_to_append, storage_errors
from vl3.training.events import EVENTS_NAME, parse_event

log = logging.getLogger("vl3.launch")

EVENT_PREFIX = "vl3-event "
"""Prefix of the lines in rank 0's log that are events."""


class LaunchOutput:
    """The sinks of one launch; only the launching thread uses them."""

    def __init__(self, job: LaunchJob, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._job = job
        self._on_event = on_event
        self._known = _lines(job.events_path)
        self.states: list[StateChange] = []
        self.last_step = 0
        """Highest training step in any event; it shows whether an attempt made progress."""

    def state(self, state: str, text: str) -> None:
        """Report a change of state."""
        change = StateChange(state=state, text=text, time=time.time())
        self.states.append(change)
        log.info("%s is %s: %s", self._job.name, state, text)
        self._on_event(change.as_event())

    def line(self, text: str) -> dict[str, Any] | None:
        """Handle a line of rank 0's log; returns the event that it is, if it is one."""
        if text.startswith(EVENT_PREFIX):
            return self._event(text.removeprefix(EVENT_PREFIX).strip())
        if self._job.log_path is None:
            log.info("rank 0 | %s", text)
        else:
            self._append_log(text)
        return None

    def tail(self, pod: str, lines: list[str]) -> None:
        """Log the last lines of a pod of a failed job."""
        if not lines:
            return
        for text in (f"last lines of {pod}:", *(f"  {line}" for line in lines)):
            if self._job.log_path is None:
                log.info("%s", text)
            else:
                self._append_log(text)

    def fetch_events(self) -> None:
        """Replace the events that came through the log with the complete record in the store, if there is one."""
        try:
            store = open_store(self._job.work_uri)
            if store.exists(EVENTS_NAME):
                with storage_errors(self._job.events_path):
                    self._job.events_path.parent.mkdir(parents=True, exist_ok=True)
                store.get_file(EVENTS_NAME, self._job.events_path)
        except StorageError as error:  # keep the events that came through the log
            log.warning("the complete record of events could not be read; using those from the log: %s", error)

    def stored_step(self) -> int | None:
        """Highest step of the events in the store, to which the pods copy them; None if the store does not tell."""
        try:
            kept = open_store(self._job.work_uri).read(EVENTS_NAME)
        except StorageError as error:
            log.warning("%s: whether it makes progress cannot be read from the store: %s", self._job.name, error)
            return None
        events = map(parse_event, (kept or b"").splitlines())
        return max((_step(event) for event in events if event is not None), default=0)

    def _event(self, line: str) -> dict[str, Any] | None:
        event = parse_event(line.encode("utf-8", errors="replace"))
        if event is None:
            log.warning("skipping a line that is no event: %r", line[:200])
            return None
        if line not in self._known:  # a restarted launcher reads the log from its beginning
            self._known.add(line)
            _append(self._job.events_path, line)
        self.last_step = max(self.last_step, _step(event))
        self._on_event(event)
        return event

    def _append_log(self, text: str) -> None:
        path = self._job.log_path
        if path is None:
            return
        _append(path, text)


def _append(path: Path, line: str) -> None:
    with storage_errors(path, needed_bytes=len(line)), os.fdopen(open_to_append(path), "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _step(event: dict[str, Any]) -> int:
    """The training step that an event is about; 0 if it is about none."""
    step = event.get("step") or (event.get("done") if event["type"] == "progress" else None)
    return step if isinstance(step, int) else 0


def _lines(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return set(path.read_text(encoding="utf-8", errors="replace").splitlines())
