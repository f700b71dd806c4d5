"""Notes about failed tasks, kept in the store until the next attempt at the run begins.

On a cluster nothing else says how a task ended: Kubeflow Pipelines gives its exit handler a state without the task's
name or its error, and sends `vl3 run status` no error at all. A note also avoids useless retries: a task whose error a
retry cannot solve fails again at once.
"""

import logging
import tempfile
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from vl3.errors import FAMILIES, Vl3Error
from vl3.store.objects import open_store
from vl3.store.s3.connection import S3Connection
from vl3.store.uris import join_uri
from vl3.system.clock import now
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json
from vl3.workflow.status import read_status

log = logging.getLogger("vl3.step")

FIRST_TASK = "check-prerequisites"
"""First task of every attempt at a run, which is never reused."""
LAST_TASK = "finish"
"""Task that reports the failure of another."""
_FINAL_FAMILIES = ("ConfigError", "DataError", "GateError")
"""Families whose errors recur until the recipe or the data is changed."""
_FAMILIES = (*FAMILIES, Vl3Error.__name__)
_MAX_MESSAGE_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFailure:
    """How a task failed."""

    task: str
    """Name of the task in the workflow."""
    family: str
    """Family of the error (vl3.errors)."""
    message: str
    """Its message."""
    at: str
    """When, ISO 8601 in UTC."""


def note_failure(artifacts_uri: str, run_id: str, *, task: str, family: str, message: str) -> None:
    """Write a note that a task failed; it replaces an earlier note of the same task.

    Raises:
        Vl3Error: the store cannot be written.
    """
    failure = TaskFailure(task=task, family=family, message=message[:_MAX_MESSAGE_CHARACTERS], at=now())
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "failure.json"
        atomic_write_json(path, asdict(failure))
        open_store(_notes_uri(artifacts_uri, run_id)).put_file(path, f"{task}.json")


def refuse_blind_retry(artifacts_uri: str, run_id: str, task: str) -> None:
    """Fail at once if this task has failed before in this attempt at the run, with an error that a retry cannot solve.

    The first task of the workflow starts a new attempt and deletes the notes of earlier ones.

    Raises:
        Vl3Error: the earlier error again.
    """
    if task == FIRST_TASK:
        try:
            drop_notes(artifacts_uri, run_id)
        except Vl3Error as error:  # this task checks the store itself, and reports all problems together
            log.warning("cannot delete the notes of an earlier attempt: %s", error)
        return
    data = open_store(_notes_uri(artifacts_uri, run_id)).read(f"{task}.json")
    failure = None if data is None else _parse(data)
    if failure is not None and failure.family in _FINAL_FAMILIES:
        raise FAMILIES[failure.family](failure.message)


def noted_failures(artifacts_uri: str, run_id: str, s3: S3Connection | None = None) -> list[TaskFailure]:
    """The notes of a run, the latest first, without those of the exit handler, which is running again.

    Args:
        artifacts_uri: where the run keeps its artifacts.
        run_id: the run.
        s3: how to reach the service; None for the environment's.

    Raises:
        Vl3Error: the store cannot be read.
    """
    store = open_store(_notes_uri(artifacts_uri, run_id), s3)
    contents = [store.read(key) for key in store.list() if key != f"{LAST_TASK}.json"]
    notes = [failure for data in contents if data is not None and (failure := _parse(data)) is not None]
    return sorted(notes, key=lambda failure: failure.at, reverse=True)


def drop_notes(artifacts_uri: str, run_id: str) -> None:
    """Delete the notes: a new attempt at the run starts."""
    store = open_store(_notes_uri(artifacts_uri, run_id))
    for key in store.list():
        store.delete(key)


def local_failure(run_folder: Path) -> TaskFailure | None:
    """The failed task with a local runner, from the status files; one that is still `running` was killed."""
    found = [read_status(path) for path in sorted((run_folder / "status").glob("*.json"))]
    statuses = [status for status in found if status is not None]
    for status in statuses:
        if status["state"] == "failed":
            error, at = status["error"], status["ended_at"] or now()
            return TaskFailure(task=status["task"], family=error["family"], message=error["message"], at=at)
    for status in statuses:
        if status["state"] == "running" and status["task"] != LAST_TASK:
            message = "the task ended without a status: its process was killed, and who did it is not known"
            return TaskFailure(task=status["task"], family=Vl3Error.__name__, message=message, at=now())
    return None


def _notes_uri(artifacts_uri: str, run_id: str) -> str:
    return join_uri(artifacts_uri, "runs", run_id, "failures")


def _parse(data: bytes) -> TaskFailure | None:
    """A note; None if the bytes are anything else."""
    try:
        failure = TaskFailure(**parse_object(data))
    except (ValueError, TypeError):
        return None
    is_note = all(isinstance(text, str) for text in astuple(failure)) and failure.family in _FAMILIES
    return failure if is_note else None
