"""The live status of a task: a small file that the runner (or a person) reads while the step runs."""

import os
import time
from pathlib import Path
from typing import Any

from vl3.system.clock import is_time, now
from vl3.system.files import atomic_write_json, read_record
from vl3.system.progress import TimeLeft

_PROGRESS_INTERVAL_SECONDS = 0.5
_STATES = ("running", "done", "reused", "failed")


class StatusFile:
    """`status/<task>.json`; with no run folder (on a cluster) nothing is written."""

    def __init__(self, run_folder: Path | None, task: str) -> None:
        self._path = run_folder / "status" / f"{task}.json" if run_folder else None
        self._written_at = 0.0
        self._pace = TimeLeft()
        self._data: dict[str, Any] = {
            "task": task,
            "state": "running",
            "started_at": now(),
            "ended_at": None,
            "pid": os.getpid(),
            "progress": None,
            "error": None,
        }
        self._write()

    def progress(self, done: int, total: int, text: str) -> None:
        """Record the step's progress; written at most twice a second."""
        left_seconds = self._pace.left_seconds(done, total)
        self._data["progress"] = {"done": done, "total": total, "left_seconds": left_seconds, "text": text}
        if time.monotonic() - self._written_at >= _PROGRESS_INTERVAL_SECONDS:
            self._write()

    def finish(self, state: str, *, error: dict[str, str] | None = None) -> None:
        """Write the last state: `done`, `reused` or `failed` (with family and message)."""
        self._data |= {"state": state, "ended_at": now(), "error": error}
        self._write()

    @property
    def is_kept(self) -> bool:
        """Whether the status is written to a file."""
        return self._path is not None

    @property
    def is_finished_well(self) -> bool:
        """Whether the step has ended without an error."""
        return self._data["state"] in ("done", "reused")

    def _write(self) -> None:
        if self._path is not None:
            atomic_write_json(self._path, self._data)
            self._written_at = time.monotonic()


def read_status(path: Path) -> dict[str, Any] | None:
    """A task's status, or None if the file is missing, truncated or not a status.

    Every field is present and has its type. `ended_at` may be None.
    """
    data = read_record(path)
    return {"ended_at": None, "error": None, "progress": None} | data if _is_status(data) else None


def _is_status(data: dict[str, Any]) -> bool:
    error, progress = data.get("error"), data.get("progress")
    return (
        isinstance(data.get("task"), str)
        and data.get("state") in _STATES
        and is_time(data.get("started_at"))
        and (data.get("ended_at") is None or is_time(data["ended_at"]))
        and (_is_error(error) if data["state"] == "failed" else error is None)
        and (progress is None or _is_progress(progress))
    )


def _is_error(error: Any) -> bool:
    return isinstance(error, dict) and all(isinstance(error.get(name), str) for name in ("family", "message"))


def _is_progress(progress: Any) -> bool:
    if not isinstance(progress, dict) or not isinstance(progress.get("text"), str):
        return False
    counts, left_seconds = (progress.get("done"), progress.get("total")), progress.get("left_seconds")
    if left_seconds is not None and not (_is_number(left_seconds) and 0 <= left_seconds < 2**63):
        return False
    return all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**63 for count in counts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
