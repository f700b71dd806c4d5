"""The status of a submitted run: the server's states, and from the store and the cluster what it does not tell."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from vl3.errors import Vl3Error

if TYPE_CHECKING:
    from vl3.launch.step_pods import StepPod
    from vl3.pipelines.server import Server
    from vl3.pipelines.tasks import TaskState
    from vl3.workflow.failures import TaskFailure

Result = TypeVar("Result")

_STORE_SECONDS = 10.0
"""Longest wait for the store: a person waits, and it may not be reachable from this machine."""


def follow(server: "Server", name: str) -> Iterator[dict[str, Any]]:
    """The status of a submitted run, every few seconds until the run has ended."""
    from vl3.pipelines import submit

    missing: dict[str, str] = {}
    for run in submit.follow(server, submit.find_run(server, name)):
        yield status_of(server, run, missing)


def status_of(server: "Server", run: Any, missing: dict[str, str] | None = None) -> dict[str, Any]:
    """A run as `vl3 run status` shows it.

    Args:
        server: the server that described it.
        run: the server's description.
        missing: what could not be read earlier and why, to be completed; such a source is not tried again.
    """
    from vl3.pipelines.tasks import run_parameters, run_state, task_states

    missing = {} if missing is None else missing
    states, parameters = task_states(run), run_parameters(run)
    failed = {state.name for state in states if state.state == "FAILED"}
    errors: dict[str, str] = {}
    if failed and parameters:
        uri, run_id = str(parameters.get("artifacts_uri")), str(parameters.get("run_id"))
        notes = _try("the errors of failed tasks", lambda: read_failures(uri, run_id), missing)
        errors = {note.task: _first_line(f"{note.family}: {note.message}") for note in notes or () if _is_of(note, run)}
    waits = {state.name for state in states if state.state in ("RUNNING", "PENDING")}
    pods: dict[str, StepPod] = {}
    if waits or failed - set(errors):
        found = _try("the states of pods", lambda: read_pods(run.run_id, server.namespace), missing)
        pods = {pod.task: pod for pod in found or ()}  # the newest attempt is the last
    return {
        "run": run.display_name,
        "state": run_state(run),
        "where": server.link(run.run_id),
        "report": None,
        "tasks": [_task_status(one, errors.get(one.name, ""), pods.get(one.name)) for one in states],
        "remarks": [f"{what} could not be read: {why}" for what, why in missing.items()],
    }


def failure_of(status: dict[str, Any]) -> Vl3Error:
    """The error with which a submitted run ended, for the exit code."""
    run, failed = status["run"], [task for task in status["tasks"] if task["state"] == "FAILED"]
    again = "submitted again, it resumes where it stopped."
    if status["state"] == "CANCELED":
        return Vl3Error(f"run {run} was cancelled ({status['where']}); {again}")
    named = ", ".join(task["task"] + (f" ({task['text']})" if task["text"] else "") for task in failed)
    what = f" in {named}" if named else ""
    return Vl3Error(
        f"run {run} ended as {status['state']}{what}. `vl3 run logs {run} TASK` and {status['where']} show why; {again}"
    )


def read_failures(artifacts_uri: str, run_id: str) -> "list[TaskFailure]":
    """The notes that a run's failed tasks left in the store, the latest first.

    Raises:
        Vl3Error: the store cannot be read from this machine.
    """
    from vl3.store.s3.connection import connection_from_environment
    from vl3.workflow.failures import noted_failures

    s3 = replace(
        connection_from_environment(), request_timeout_seconds=_STORE_SECONDS / 2, deadline_seconds=_STORE_SECONDS
    )
    return noted_failures(artifacts_uri, run_id, s3)


def read_pods(kfp_run_id: str, namespace: str) -> "list[StepPod]":
    """The pods of a run's steps, from the cluster's API.

    Raises:
        Vl3Error: no cluster is configured on this machine, or it does not answer.
    """
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect
    from vl3.launch.step_pods import find_step_pods

    return find_step_pods(Client(connect(namespace or None)), kfp_run_id)


def _task_status(task: "TaskState", error: str, pod: "StepPod | None") -> dict[str, Any]:
    """A task as `vl3 run status` shows it: the server calls one RUNNING whose pod has not started."""
    if task.state == "FAILED":
        return {"task": task.name, "state": "FAILED", "text": error or (pod.reason if pod else "") or task.text}
    if task.state not in ("RUNNING", "PENDING") or pod is None:
        return {"task": task.name, "state": task.state, "text": task.text}
    is_waiting = bool(pod.reason) and pod.phase == "Pending"
    return {"task": task.name, "state": "PENDING" if is_waiting else task.state, "text": pod.reason or task.text}


def _try(what: str, read: Callable[[], Result], missing: dict[str, str]) -> Result | None:
    """What a source says; None if it says nothing, with the reason in `missing`."""
    if what in missing:
        return None
    try:
        return read()
    except Vl3Error as error:
        missing[what] = str(error)
        return None


def _is_of(note: "TaskFailure", run: Any) -> bool:
    """Whether a note is of this attempt: another run with the same id may have left its own."""
    try:
        at = datetime.fromisoformat(note.at).astimezone(UTC)
    except ValueError:
        return False
    if run.created_at is None:
        return False
    is_over = run.finished_at is not None and run.finished_at > run.created_at  # 1970 while it is active
    return bool(run.created_at <= at and (not is_over or at <= run.finished_at))


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
