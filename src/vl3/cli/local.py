"""`vl3 run start` and what the other verbs of `vl3 run` say about runs on this machine."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vl3.cli.addresses import SAMPLE, check_data, with_addresses
from vl3.cli.failure import RunEndedError
from vl3.cli.progress import shown_progress
from vl3.config.parameters import WorkflowParameters
from vl3.errors import FAMILIES, ConfigError, Vl3Error
from vl3.pipelines.local.display import progress_text
from vl3.pipelines.local.folder import find_run, local_runs, read_run, report_of
from vl3.pipelines.options import with_parameters
from vl3.pipelines.run import check_run, start_run
from vl3.pipelines.workflows import DEFAULT_WORKFLOW, WORKFLOWS
from vl3.system.uris import file_uri
from vl3.workflow.status import read_status

_POLL_SECONDS = 1.0

Run = Annotated[str, typer.Option("--run", help="Name below runs/, or a folder. Default: the recipe's name.")]


@with_parameters
def start(
    parameters: WorkflowParameters,
    run: Run = "",
    workflow: Annotated[str, typer.Option("--workflow", help=f"One of {', '.join(WORKFLOWS)}.")] = DEFAULT_WORKFLOW,
) -> None:
    """Run the workflow on this machine, on a generated sample if --data is left out. Again, it resumes."""
    given = with_addresses(parameters)
    if parameters.data_uri and not given.data_uri.startswith("s3://"):
        check_data(given.data_uri)
    local = check_run(workflow, run, given)
    code = start_run(local, prepare=(lambda: None) if parameters.data_uri else make_sample)
    if code:
        raise RunEndedError(code)


def make_sample() -> None:
    """Write the sample corpus, unless it is there."""
    from vl3.toy.corpus import write_corpus

    with shown_progress("sample data") as report:
        write_corpus(SAMPLE, seed=0, progress=report)


def known_runs() -> str:
    """The names of the runs below runs/, for a message."""
    return ", ".join(folder.name for folder, _ in local_runs()) or "none"


def require_run(run: str) -> Path:
    """The folder of a run on this machine.

    Raises:
        ConfigError: there is none.
    """
    folder = find_run(run)
    if folder is None:
        raise ConfigError(f"no run {run!r} is on this machine. Runs below runs/: {known_runs()}.")
    return folder


def local_rows() -> list[dict[str, Any]]:
    """The runs on this machine as rows of `vl3 run list`."""
    return [
        {
            "run": folder.name,
            "state": record["state"],
            "recipe": str(record["parameters"].get("recipe", "")),
            "created": record["started_at"][:16].replace("T", " "),
            "where": str(folder.absolute()),
        }
        for folder, record in local_runs()
    ]


def status_of(folder: Path) -> dict[str, Any]:
    """A run on this machine as `vl3 run status` shows it."""
    record = read_run(folder)
    page = report_of(folder)
    return {
        "run": folder.name,
        "run_id": record["run_id"],
        "state": record["state"],
        "where": str(folder),
        "report": file_uri(page) if page else None,
        "error": record.get("error"),
        "tasks": [_task_status(folder, task, record["state"]) for task in record["tasks"]],
    }


def _task_status(folder: Path, task: dict[str, Any], run_state: str) -> dict[str, Any]:
    status = read_status(folder / "status" / f"{task['name']}.json") if "/" not in task["name"] else None
    is_over = run_state == "killed" and task["state"] == "running"
    is_running = task["state"] == "running" and not is_over
    progress = status["progress"] if status and is_running else None
    error = status["error"]["message"] if status and status["error"] else ""
    seconds = task.get("seconds")
    spent = f"{seconds:.1f} s" if isinstance(seconds, int | float) else ""
    return {
        "task": task["name"],
        "state": run_state if is_over else task["state"],
        "seconds": seconds,
        "progress": progress,
        "text": error.partition("\n")[0] or (progress_text(progress) if progress else spent),
    }


def follow(folder: Path) -> Iterator[dict[str, Any]]:
    """The status of a run, every second until the run has ended."""
    while (status := status_of(folder))["state"] == "running":
        yield status
        time.sleep(_POLL_SECONDS)
    yield status


def failure_of(status: dict[str, Any]) -> Vl3Error:
    """The error with which a run on this machine ended, for the exit code."""
    error = status["error"] if isinstance(status["error"], dict) else {}
    family = FAMILIES.get(str(error.get("family")), Vl3Error)
    message = str(error.get("message") or f"run {status['run']} was {status['state']}")
    return family(f"{message} Start the same run again to resume it.")
