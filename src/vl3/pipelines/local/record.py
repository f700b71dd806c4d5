"""The record of a run, `run.json`: its parameters, the state and time of each task, what ran."""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vl3.config.parameters import WorkflowParameters
from vl3.system.clock import now
from vl3.system.files import atomic_write_json, read_record
from vl3.system.provenance import provenance


def seconds_between(start: str, end: str) -> float:
    """Seconds between two ISO times."""
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


REQUEST = Path("kfp", "request.json")
"""In a run's folder: the workflow and its parameters, for the process that runs it."""


class RunRecord:
    """`run.json` of a run folder, updated while it runs."""

    def __init__(self, path: Path, *, workflow: str, parameters: WorkflowParameters, tasks: list[str]) -> None:
        self._path = path
        asked = {name: value for name, value in parameters.to_dict().items() if name != "run_id"}
        former = read_former(path)
        known = former or _read_request(path.parent / REQUEST)
        self.data: dict[str, Any] = {
            "run_id": parameters.run_id or _run_id(known, workflow, asked, path.parent.name),
            "workflow": workflow,
            "state": "running",
            "pid": os.getpid(),
            "started_at": now(),
            "ended_at": None,
            "seconds": None,
            "overhead_seconds": None,
            "peak_memory_bytes": None,
            "exit_code": None,
            "error": None,
            "parameters": asked,
            "tasks": [{"name": name, "state": "waiting", "seconds": None, "reused": False} for name in tasks],
            **provenance(),
            "earlier_attempts": _earlier(former),
        }

    @property
    def run_id(self) -> str:
        """Identity of the run; a restart with the same parameters keeps it."""
        return self.data["run_id"]

    def update_task(self, status: dict[str, Any]) -> None:
        """Copy a task's status file into the record."""
        task = next((task for task in self.data["tasks"] if task["name"] == status["task"]), None)
        if task is None:
            return
        ended_at = status["ended_at"]
        task |= {
            "state": status["state"],
            "started_at": status["started_at"],
            "ended_at": ended_at,
            "seconds": seconds_between(status["started_at"], ended_at or now()),
            "reused": status["state"] == "reused",
        }

    def finish(self, *, state: str, exit_code: int, error: dict[str, Any] | None, peak_memory_bytes: int) -> None:
        """Write the final state; `overhead_seconds` is the time that no step was running."""
        ended_at = now()
        for task in self.data["tasks"]:
            if task["state"] == "running":
                task["state"] = state
        seconds = seconds_between(self.data["started_at"], ended_at)
        inside = sum(task["seconds"] or 0.0 for task in self.data["tasks"])
        self.data |= {
            "state": state,
            "ended_at": ended_at,
            "seconds": seconds,
            "overhead_seconds": round(seconds - inside, 3),
            "peak_memory_bytes": peak_memory_bytes,
            "exit_code": exit_code,
            "error": error,
        }
        self.write()

    def write(self) -> None:
        """Write the record atomically.

        Raises:
            StorageError: the folder cannot be written.
        """
        atomic_write_json(self._path, self.data)


def read_former(path: Path) -> dict[str, Any]:
    """The record of an earlier attempt; empty if the file is missing, truncated or not a record of a run."""
    former = read_record(path)
    run_id, earlier = former.get("run_id"), former.get("earlier_attempts")
    is_whole = (
        isinstance(run_id, str)
        and run_id.isprintable()
        and "/" not in run_id  # it names folders
        and isinstance(earlier, list)
        and all(isinstance(attempt, dict) for attempt in earlier)
    )
    return former if is_whole else {}


def _read_request(path: Path) -> dict[str, Any]:
    """What the last attempt was asked to do, in the form of a record: the id is not lost with a damaged record.

    Its MLflow run would stay open for ever otherwise.
    """
    request = read_record(path)
    parameters = request.get("parameters")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("run_id"), str):
        return {}
    asked = {name: value for name, value in parameters.items() if name != "run_id"}
    return {"run_id": parameters["run_id"], "workflow": request.get("workflow"), "parameters": asked}


def _run_id(known: dict[str, Any], workflow: str, asked: dict[str, Any], name: str) -> str:
    """The id of the attempt that is started again, or a new one.

    The end of a run deletes what its id names on a cluster, so only an id that this folder gives is taken over.
    """
    is_same = (known.get("workflow"), known.get("parameters")) == (workflow, asked)
    if is_same and re.fullmatch(re.escape(name) + r"-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", known["run_id"]):
        return known["run_id"]
    # Not only the time: two machines may start a run with the same name in the same second, on one cluster.
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _earlier(former: dict[str, Any]) -> list[dict[str, Any]]:
    if not former:
        return []
    kept = ("run_id", "state", "started_at", "seconds", "exit_code", "error", "commit", "tree", "command")
    attempt = {key: former.get(key) for key in kept}
    if attempt["state"] == "running":
        attempt["state"] = "killed"
    return [*former["earlier_attempts"], attempt]
