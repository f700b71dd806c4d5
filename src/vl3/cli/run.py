"""`vl3 run`: the workflow on a Kubeflow Pipelines server. A command imports kfp only when it needs the server."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl3.cli.tables import aligned
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ClusterError, Vl3Error
from vl3.pipelines.options import with_parameters
from vl3.pipelines.submission import make_submission
from vl3.pipelines.workflows import DEFAULT_WORKFLOW, WORKFLOWS

if TYPE_CHECKING:
    from vl3.pipelines.server import Server

app = typer.Typer(help="Runs of the workflow on Kubeflow Pipelines.", no_args_is_help=True)

Endpoint = Annotated[
    str, typer.Option("--endpoint", envvar="VL3_KFP_ENDPOINT", help="Address of the Kubeflow Pipelines server.")
]
Namespace = Annotated[
    str, typer.Option("--namespace", envvar="VL3_KFP_NAMESPACE", help="Namespace, on a multi-user server.")
]
_ANY_RUN = "Folder of a run, its name below runs/, or the id of a submitted one."
Run = Annotated[str, typer.Argument(help="Run id, or the server's own id of a run.")]


@app.command()
@with_parameters
def submit(
    parameters: WorkflowParameters,
    workflow: Annotated[str, typer.Option("--workflow", help=f"One of {', '.join(WORKFLOWS)}.")] = DEFAULT_WORKFLOW,
    account: Annotated[
        str, typer.Option("--service-account", help="Service account of the pods; default: the server's.")
    ] = "",
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Submit a run. The same command again resumes a failed run and does not touch an active one."""
    submission = make_submission(workflow, parameters)
    server = _server(endpoint, namespace)
    from vl3.pipelines import submit as submitting

    run, digest = submitting.submit(server, submission, account=account)
    if digest:
        print(f"submitted run {submission.run_id} (workflow {digest[:10]}): {server.link(run.run_id)}")
    else:
        print(f"run {submission.run_id} is active ({run.state}), not submitted again: {server.link(run.run_id)}")


@app.command("list")
def list_runs(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of runs to search.")] = 50,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print the runs of this workflow, newest first."""
    server = _server(endpoint, namespace)
    from vl3.pipelines.submit import our_runs
    from vl3.pipelines.tasks import run_parameters

    rows: list[tuple[str, ...]] = [("RUN", "STATE", "RECIPE", "CREATED", "ID")]
    for run in our_runs(server, limit=limit):
        created = f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else ""
        parameters = run_parameters(run)
        rows.append((parameters["run_id"], str(run.state), parameters.get("recipe", ""), created, run.run_id))
    print("no run of this workflow yet" if len(rows) == 1 else aligned(rows))


@app.command()
def status(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the run until it has ended.")] = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print the states of a run and its tasks. With --follow the exit code is 0 only if the run succeeded."""
    server = _server(endpoint, namespace)
    from vl3.pipelines import submit as submitting
    from vl3.pipelines.tasks import task_states

    found = submitting.find_run(server, run)
    if not follow:
        rows: list[tuple[str, ...]] = [(task.name, task.state, task.error) for task in task_states(found)]
        print(f"run {found.display_name}: {found.state}  {server.link(found.run_id)}\n{aligned(rows)}")
        return
    shown: dict[str, str] = {}
    for now in submitting.follow(server, found):
        for name, state in {**{task.name: task.state for task in task_states(now)}, "run": now.state}.items():
            if shown.get(name, "WAITING") != state:
                print(f"{name}: {state}", flush=True)
                shown[name] = state
        found = now
    if found.state != "SUCCEEDED":
        raise _failure(server, found)


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help=_ANY_RUN)],
    task: Annotated[str, typer.Argument(help="Task of the workflow. Default: all.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with every difference.")] = False,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Print why each task would run or be reused if the run were started again with this checkout's code."""
    from vl3.pipelines import explain as explaining

    previews = explaining.explain(
        run, task, lambda: _server(endpoint, namespace), pins_file=os.environ.get("VL3_TRAINER_REQUIREMENTS", "")
    )
    if as_json:
        print(json.dumps([explaining.as_json(preview) for preview in previews], indent=1, ensure_ascii=False))
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
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
        print(json.dumps({**comparison, "page": str(out)}, indent=1, ensure_ascii=False))
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
    """Print the log of a task."""
    server = _server(endpoint, namespace)
    from vl3.pipelines.submit import find_run, task_log

    for line in task_log(server, find_run(server, run), task, follow=follow):
        print(line, flush=follow)


@app.command()
def cancel(
    run: Run,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the run's end.")] = 300.0,
    endpoint: Endpoint = "",
    namespace: Namespace = "",
) -> None:
    """Stop a run, wait until it has ended, and delete its TrainJobs."""
    server = _server(endpoint, namespace)
    from vl3.pipelines import submit as submitting
    from vl3.pipelines.tasks import run_parameters

    found, was_active = submitting.cancel(server, submitting.find_run(server, run), timeout_seconds=timeout)
    if not was_active:
        print(f"run {found.display_name} has already ended ({found.state}); nothing to cancel")
        return
    print(
        f"run {found.display_name} has ended ({found.state}). Its launchers were asked to free their GPUs.", flush=True
    )
    _free(str(run_parameters(found).get("run_id") or found.display_name), namespace)


def _free(run_id: str, namespace: str) -> None:
    """Make sure that no TrainJob is left: a killed launcher may have had no time to delete its own.

    Raises:
        ClusterError: the cluster could not be checked.
    """
    try:
        freed = cancel_jobs(run_id, namespace or None)
    except Vl3Error as error:
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
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect
    from vl3.launch.trainjob.collect import cancel_run

    return cancel_run(run_id, client=Client(connect(namespace)))


def _failure(server: "Server", run: Any) -> Vl3Error:
    from vl3.pipelines.submit import failed_tasks

    failed = [state.name + (f" ({state.error})" if state.error else "") for state in failed_tasks(run)]
    what = f" in {', '.join(failed)}" if failed else ""
    return Vl3Error(
        f"run {run.display_name} ended as {run.state}{what}. `vl3 run logs {run.display_name} TASK` and "
        f"{server.link(run.run_id)} show why; submitted again, it resumes where it stopped."
    )


def _server(endpoint: str, namespace: str) -> "Server":
    from vl3.pipelines.server import Server

    return Server(endpoint, namespace, os.environ)
