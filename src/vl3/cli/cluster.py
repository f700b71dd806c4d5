"""`vl3 cluster`: check whether a cluster can run a recipe, list our jobs on it, and delete old ones."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.output import AsJson, aligned_rows, print_json, print_table
from vl3.cli.recipe import Overrides
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_any_recipe

if TYPE_CHECKING:
    from vl3.launch.kube.client import Client
    from vl3.launch.listing import ListedJob

app = typer.Typer(help="The Kubernetes cluster: check it, list jobs, delete old ones.", no_args_is_help=True)

Namespace = Annotated[
    str | None, typer.Option(help="Namespace of the jobs. Default: the kubeconfig's, or vl3.", show_default=False)
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: the current one.")]
Run = Annotated[str | None, typer.Option("--run", metavar="ID", help="Only the jobs of this run.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command()
def check(
    recipe: Annotated[str, typer.Option(help="Recipe whose placements and step pods are checked.")] = "tiny",
    overrides: Overrides = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """Check whether the cluster can run a recipe, and list everything that is missing. Changes nothing."""
    from vl3.config.run import RunConfig
    from vl3.launch.check.cluster import inspect_cluster
    from vl3.launch.check.findings import combined
    from vl3.planning.fit import check_fit

    config = apply_overrides(get_any_recipe(recipe), overrides or [])
    report = inspect_cluster(config.placements, namespace, context, step_pods=config.step_sizes)
    if isinstance(config, RunConfig):
        fit = check_fit(config, config.stages)
        report = replace(report, problems=(*report.problems, *fit.problems), notes=(*report.notes, *fit.notes))
    if as_json:
        problems = [f"{type(problem).__name__}: {problem}" for problem in report.problems]
        print_json({**asdict(replace(report, problems=())), "problems": problems})
    else:
        print(f"{report.server} (Kubernetes {report.version}), namespace {report.namespace}")
        print(aligned_rows([asdict(row) for row in report.rows]))
        for note in report.notes:
            print(f"note: {note}")
    if report.problems:
        raise combined(report.problems, "problems of the cluster, listed above, prevent the run")
    if not as_json:
        print("ok")


@app.command()
def jobs(run: Run = None, namespace: Namespace = None, context: Context = None, as_json: AsJson = False) -> None:
    """Print the TrainJobs of vl3 in a namespace with their state, oldest first."""
    from vl3.launch.listing import list_jobs

    client = _client(namespace, context)
    found = list_jobs(client, run)
    table = [asdict(job) for job in found] if as_json else _table(found)
    print_table(table, as_json=as_json, empty=f"no TrainJob of vl3 in namespace {client.namespace}")


@app.command()
def gc(
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Time since a job's end: 7d, 12h, 30m, 0s.")],
    run: Run = None,
    is_rehearsal: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Delete TrainJobs of vl3 that ended some time ago, with their pods, and running ones without a launcher."""
    from vl3.launch.collect import collect

    seconds, client = seconds_of(older_than), _client(namespace, context)
    names = collect(seconds, run_id=run, is_rehearsal=is_rehearsal, client=client)
    for name in names:
        print(name)
    done = "would be deleted" if is_rehearsal else "deleted"
    print(f"{len(names)} TrainJob{'' if len(names) == 1 else 's'} {done} in namespace {client.namespace}")


def _table(found: Sequence["ListedJob"]) -> list[dict[str, str]]:
    return [
        {
            "job": job.name,
            "run": job.run_id,
            "stage": job.stage,
            "attempt": job.attempt,
            "state": job.state,
            "age": age(job.age_seconds),
            "": job.text,
        }
        for job in found
    ]


def _client(namespace: str | None, context: str | None) -> "Client":
    from vl3.launch.check.reach import server_version
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect

    connection = connect(namespace, context=context)
    server_version(connection)  # reports within seconds that there is no server
    return Client(connection)


def seconds_of(text: str) -> float:
    """The seconds of `7d`, `12h`, `30m` or `90s`.

    Raises:
        ConfigError: it has another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ConfigError(f"--older-than {text!r} is not a time. Write a number and s, m, h or d: 7d, 12h, 30m.")
    return float(match[1]) * _UNITS[match[2]]


def age(seconds: float) -> str:
    """A time in its largest unit, rounded down: 7260 s is `2h`, 59 s is `59s`."""
    unit = next((name for name, size in reversed(_UNITS.items()) if seconds >= size), "s")
    return f"{int(seconds // _UNITS[unit])}{unit}"
