"""Submits the workflow to a Kubeflow Pipelines server, and finds, follows and cancels its runs."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from vl3.errors import ClusterError, ConfigError
from vl3.pipelines.compile import compile_workflow, ir_digest
from vl3.pipelines.pod_names import pod_name
from vl3.pipelines.server import Server
from vl3.pipelines.submission import Submission
from vl3.pipelines.tasks import ENDED, run_parameters, task_states
from vl3.pipelines.versions import require_version

_POLL_SECONDS = 5.0


def submit(server: Server, submission: Submission, *, account: str = "", is_from_git: bool = False) -> tuple[Any, str]:
    """Submit a run, unless one with its id is active.

    Args:
        server: where it shall run.
        submission: the run.
        account: service account of its pods; empty: the server's.
        is_from_git: run the server's pipeline version with this content, instead of uploading the workflow.

    Returns:
        The server's run, and the digest of the submitted workflow; empty if an active run was found.

    Raises:
        ConfigError: the server has no version from git with this content.
    """
    active = [run for run in _runs_of(server, submission.run_id) if run.state not in ENDED]
    if active:
        return active[-1], ""
    with tempfile.TemporaryDirectory() as temporary:
        ir = Path(temporary) / "workflow.yaml"
        compile_workflow(submission.workflow, submission.parameters, ir)
        digest = ir_digest(ir)
        run = server.submit(
            require_version(server, submission, digest) if is_from_git else ir,
            name=submission.run_id,
            experiment=submission.experiment,
            parameters={"workflow": submission.parameters.to_dict()},
            account=account,
        )
        return run, digest


def our_runs(server: Server, *, limit: int) -> list[Any]:
    """Runs of this workflow, newest first."""
    return [run for run in server.runs(limit=limit) if run_parameters(run).get("run_id")]


def find_run(server: Server, name: str) -> Any:
    """The latest run with this run id, or the run with this id of the server; with all its tasks.

    Raises:
        ConfigError: there is none.
    """
    if _is_uuid(name):
        return server.run(name)
    runs = _runs_of(server, name)
    if not runs:
        raise ConfigError(f"run {name!r} is not known to {server.endpoint}. `vl3 run list` shows its runs.")
    return server.run(runs[0].run_id)


def follow(server: Server, run: Any) -> Iterator[Any]:
    """The run's current state, every few seconds until it has ended."""
    yield run
    while run.state not in ENDED:
        time.sleep(_POLL_SECONDS)
        run = server.run(run.run_id)
        yield run


def cancel(server: Server, run: Any, *, timeout_seconds: float) -> tuple[Any, bool]:
    """Stop a run and wait until the server reports its end.

    Returns:
        The run, and whether it was active.

    Raises:
        ClusterError: it has not ended in time.
    """
    if run.state in ENDED:
        return run, False
    server.terminate(run.run_id)
    deadline = time.monotonic() + timeout_seconds
    for now in follow(server, server.run(run.run_id)):
        run = now
        if time.monotonic() > deadline and run.state not in ENDED:
            raise ClusterError(
                f"run {run.display_name} is still {run.state} {timeout_seconds:.0f} s after it was cancelled; its pods "
                f"may still use their nodes. Check {server.link(run.run_id)}, then cancel again."
            )
    return run, True


def is_ended(run: Any, task: str) -> bool:
    """Whether a task has ended for good, so that no retry makes another pod.

    Raises:
        ConfigError: the workflow has no such task.
    """
    return run.state in ENDED or _state_of(run, task) in ENDED


def archived_log(server: Server, run: Any, task: str) -> Iterator[str]:
    """Lines of the log of a task's latest attempt, as far as the server itself has it.

    Raises:
        ConfigError: the workflow has no such task, or it has not started; or the server refuses.
        ClusterError: the server has no log of its pod, or cannot be reached.
    """
    state = _state_of(run, task)
    pod = pod_name(run, task)
    if not pod:
        raise ConfigError(
            f"task {task} of run {run.display_name} has no log: it has not started ({state}). `vl3 run logs --follow` "
            "waits for it."
        )
    return server.log(run.run_id, pod)


def _state_of(run: Any, task: str) -> str:
    states = {state.name: state.state for state in task_states(run)}
    if task not in states:
        raise ConfigError(
            f"run {run.display_name} has no task {task!r}. Its tasks: {', '.join(states) or 'not known'}."
        )
    return states[task]


def _runs_of(server: Server, run_id: str) -> list[Any]:
    """Runs with this run id, newest first. Searched by name, then filtered by the parameter, which counts."""
    return [run for run in server.runs(run_id) if run_parameters(run).get("run_id") == run_id]


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
