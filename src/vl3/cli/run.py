"""`vl3 run`: the workflow, on this machine or on a Kubeflow Pipelines server; kfp is imported only for the server."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl3.cli import local, submitted
from vl3.cli.output import AsJson, print_json, print_table
from vl3.cli.tables import aligned, printable
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.pipelines.local.folder import find_run, report_of
from vl3.pipelines.options import with_parameters
from vl3.pipelines.submission import make_submission
from vl3.pipelines.workflows import DEFAULT_WORKFLOW, WORKFLOWS
from vl3.store.uris import split_s3
from vl3.system.uris import file_uri

if TYPE_CHECKING:
    from vl3.pipelines.server import Server

app = typer.Typer(help="Runs of the workflow: on this machine and on Kubeflow Pipelines.", no_args_is_help=True)
app.command("start")(local.start)

Endpoint = Annotated[
    str, typer.Option("--endpoint", envvar="VL3_KFP_ENDPOINT", help="Address of the Kubeflow Pipelines server.")
]
Namespace = Annotated[
    str, typer.Option("--namespace", envvar="VL3_KFP_NAMESPACE", help="Namespace, on a multi-user server.")
]
_ANY_RUN = "Folder of a run, its name below runs/, or the id of a submitted one."
Run = Annotated[str, typer.Argument(help="Run id, or the server's own id of a run.")]
AnyRun = Annotated[str, typer.Argument(help=_ANY_RUN)]


class Version(StrEnum):
    """Which copy of the workflow a submitted run has."""

    UPLOADED = "uploaded"
    GIT = "git"


@app.command()
@with_parameters
def submit(
    parameters: WorkflowParameters,
    workflow: Annotated[str, typer.Option("--workflow", help=f"One of {', '.join(WORKFLOWS)}.")] = DEFAULT_WORKFLOW,
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of the pods; default: the server's.")
    ] = "",
    version: Annotated[
        Version,
        typer.Option("--version", help="Upload the workflow with the run, or run the server's version from git."),
    ] = Version.UPLOADED,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Submit a run. The same command again resumes a failed run and does not touch an active one."""
    submission = make_submission(workflow, parameters)
    for uri in (submission.parameters.data_uri, submission.parameters.artifacts_uri):
        split_s3(uri)  # refuses a bucket or a key that no store would accept
    server = _server(endpoint, namespace)
    from vl3.pipelines import submit as submitting
    from vl3.pipelines.compile import version_name

    is_from_git = version is Version.GIT
    run, digest = submitting.submit(server, submission, account=account, is_from_git=is_from_git)
    if digest:
        name = version_name(submission.workflow, digest)
        source = f"pipeline version {name} from git" if is_from_git else f"workflow {digest[:10]} uploaded with the run"
        print(f"submitted run {submission.run_id} ({source}): {server.link(run.run_id)}")
    else:
        print(f"run {submission.run_id} is active ({run.state}), not submitted again: {server.link(run.run_id)}")


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of submitted runs to search.")] = 50,
    as_json: AsJson = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print the runs below runs/ and, if an endpoint is set, the submitted ones; of each the newest first."""
    rows = local.local_rows()
    if endpoint:
        rows += _submitted_rows(_server(endpoint, namespace), limit)
    print_table(rows, as_json=as_json, empty="no run of this workflow yet")


def _submitted_rows(server: "Server", limit: int) -> list[dict[str, Any]]:
    from vl3.pipelines.submit import our_runs
    from vl3.pipelines.tasks import run_parameters, run_state

    return [
        {
            "run": (parameters := run_parameters(run))["run_id"],
            "state": run_state(run),
            "recipe": parameters.get("recipe", ""),
            "created": f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else "",
            "where": server.link(run.run_id),
        }
        for run in our_runs(server, limit=limit)
    ]


@app.command()
def status(
    run: AnyRun,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Follow the run until it has ended.")] = False,
    as_json: AsJson = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print the states of a run and its tasks. With --follow the exit code is 0 only if the run succeeded."""
    folder = find_run(run)
    if folder is None and not endpoint:
        local.require_run(run)
    states = local.follow(folder) if folder is not None else submitted.follow(_server(endpoint, namespace), run)
    if not is_followed:
        _print_status(next(states), as_json=as_json)
        return
    shown: dict[str, tuple[str, bool]] = {}
    now: dict[str, Any] = {}
    for now in states:
        if not as_json:
            _print_changes(now, shown)
    if as_json:
        print_json(now)
    if now["state"].upper() != "SUCCEEDED":
        raise local.failure_of(now) if folder is not None else submitted.failure_of(now)


def _print_status(now: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(now)
        return
    rows = [(task["task"], task["state"], task["text"]) for task in now["tasks"]]
    print(f"run {now['run']}: {now['state']}  {now['where']}")
    print(aligned(rows)) if rows else None
    for remark in now.get("remarks", ()):
        print(f"note: {printable(remark)}")
    if now["report"]:
        print(f"report: {now['report']}")


def _print_changes(now: dict[str, Any], shown: dict[str, tuple[str, bool]]) -> None:
    """Print the states that are not shown yet, why a pod waits, and what could not be read.

    A reason is printed once: that of a missing image changes to and fro between two.
    """
    for remark in now.get("remarks", ()):
        if remark not in shown:
            print(f"note: {printable(remark)}", flush=True)
            shown[remark] = ("", True)
    for task in (*now["tasks"], {"task": "run", "state": now["state"], "text": ""}):
        why = task["text"] if task["state"] == "PENDING" else ""
        change = (task["state"].upper(), bool(why))
        if shown.get(task["task"], ("WAITING", False)) != change:
            print(f"{task['task']}: {task['state']}" + (f" ({printable(why)})" if why else ""), flush=True)
            shown[task["task"]] = change


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Folder of a run on this machine, or its name below runs/.")] = "tiny",
    as_json: AsJson = False,
) -> None:
    """Print the address of a run's report."""
    page = report_of(local.require_run(run))
    if page is None:
        raise ConfigError(
            f"run {run!r} has no report yet. `vl3 run status` shows its tasks; start it again to finish it."
        )
    print_json({"run": run, "report": file_uri(page)}) if as_json else print(file_uri(page))


@app.command()
def explain(
    run: AnyRun,
    task: Annotated[str, typer.Argument(help="Task of the workflow. Default: all.")] = "",
    as_json: AsJson = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print why each task would run or be reused if the run were started again with this checkout's code."""
    from vl3.cli.registry import set_mlflow_environment
    from vl3.pipelines import explain as explaining

    set_mlflow_environment()  # the key of an evaluation has the champion
    previews = explaining.explain(
        run, task, lambda: _server(endpoint, namespace), pins_file=os.environ.get("VL3_TRAINER_REQUIREMENTS", "")
    )
    if as_json:
        print_json([explaining.as_json(preview) for preview in previews])
        return
    rows: list[tuple[str, ...]] = []
    for preview in previews:
        rows.append((preview.task, preview.line))
        rows += [("", f"warning: {preview.warning}")] if preview.warning else []
    print(aligned(rows))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help=_ANY_RUN)],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The other run; differences are its minus the first.")],
    out: Annotated[Path, typer.Option("--out", help="File for the page.")] = Path("build/compare.html"),
    as_json: AsJson = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Compare two finished runs: settings, loss, and which differences in accuracy are beyond chance."""
    from vl3.cli.compare import comparison_text, finished_run
    from vl3.report.compare import compare_runs, write_comparison

    connect = (lambda: _server(endpoint, namespace)) if endpoint else None
    comparison = compare_runs(finished_run(first, connect), finished_run(second, connect))
    write_comparison(comparison, out)
    if as_json:
        print_json({**comparison, "page": str(out)})
        return
    print(f"{comparison_text(comparison)}\n\n{out}: the same as a page")


@app.command()
def logs(
    run: Run,
    task: Annotated[str, typer.Argument(help="Task of the workflow: train-video, validate-data, ...")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log while the task runs.")] = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print the log of a task's latest attempt, from its pod or, if that is gone, from the server's archive."""
    server = _server(endpoint, namespace)
    from vl3.cli.step_logs import log_lines

    for line in log_lines(server, run, task, namespace or None, follow=follow):
        print(line, flush=follow)


@app.command()
def cancel(
    run: Run,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the run's end.")] = 300.0,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Stop a run, wait until it has ended, and make sure that its GPUs are free."""
    server = _server(endpoint, namespace)
    from vl3.pipelines import submit as submitting
    from vl3.pipelines.tasks import run_parameters, run_state, task_states

    found, was_active = submitting.cancel(server, submitting.find_run(server, run), timeout_seconds=timeout)
    if not was_active:
        print(f"run {found.display_name} has already ended ({run_state(found)}); nothing to cancel")
        return
    last = next((task.state for task in task_states(found) if task.name == "finish"), "unknown")
    said = "has freed its GPUs" if last == "SUCCEEDED" else f"did not end well ({last})"
    print(f"run {found.display_name} has ended ({run_state(found)}). Its exit handler {said}.", flush=True)
    run_id = str(run_parameters(found).get("run_id") or found.display_name)
    _free(run_id, namespace, is_freed=last == "SUCCEEDED")


def _free(run_id: str, namespace: str, *, is_freed: bool) -> None:
    """Make sure that no TrainJob is left.

    Args:
        run_id: the run.
        namespace: its namespace; empty for the kubeconfig's.
        is_freed: whether the exit handler has deleted them: then it is no failure that we cannot look.

    Raises:
        ClusterError: the cluster could not be checked, and the exit handler has not done it.
    """
    try:
        freed = cancel_jobs(run_id, namespace or None)
    except Vl3Error as error:
        if is_freed:
            print(f"note: this was not checked from here: {printable(str(error))}")
            return
        raise ClusterError(
            f"run {run_id} has ended, but it could not be checked whether its TrainJobs are gone: {error} The "
            "namespace's collector deletes them later; to check now: kubectl get trainjobs."
        ) from error
    print(f"deleted {', '.join(freed)}; its GPUs are free" if freed else "it has no TrainJobs left; its GPUs are free")


def cancel_jobs(run_id: str, namespace: str | None) -> list[str]:
    """Delete a run's TrainJobs and wait until their pods are gone; returns the names.

    Raises:
        ClusterError: pods are left, or the API server does not answer.
    """
    from vl3.launch.collect import cancel_run
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect

    return cancel_run(run_id, client=Client(connect(namespace)))


def _server(endpoint: str, namespace: str) -> "Server":
    from vl3.pipelines.server import Server

    return Server(endpoint, namespace, os.environ)
