"""`vl3 registry`: list model versions, promote one by hand, roll back; MLflow's pages."""

import getpass
import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.output import AsJson, print_table
from vl3.config.parameters import refuse_secret
from vl3.config.tracking import check_tracking_uri, is_server, shared_store
from vl3.errors import ConfigError
from vl3.pipelines.local.folder import run_folder
from vl3.recipes.catalog import get_recipe
from vl3.system.uris import sqlite_uri

if TYPE_CHECKING:
    from vl3.tracking.registry import Registry

_TRAINING_VIEW = "#/experiments?workflowType=machine_learning"
"""Without it MLflow's pages open on traces of language models."""

app = typer.Typer(help="Model versions and the champion.", no_args_is_help=True)

Run = Annotated[
    str, typer.Option("--run", help="A run: a name below runs/, or a folder. The database beside its folder is used.")
]
Uri = Annotated[str, typer.Option("--tracking", envvar="VL3_MLFLOW_URI", help="MLflow tracking store to use instead.")]
Recipe = Annotated[str, typer.Option("--recipe", help="Recipe whose registered model is used.")]
Model = Annotated[str, typer.Option("--model", help="Name of the registered model instead of the recipe's.")]


@app.command("list")
def list_versions(
    run: Run = "tiny",
    tracking_uri: Uri = "",
    recipe: Recipe = "tiny",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Print all versions, newest first, with their aliases and the decision of the gates."""
    from vl3.tracking.versions import version_table

    registry = _open(run, tracking_uri, recipe, model)
    rows = registry.list_versions()
    table = [asdict(row) for row in rows] if as_json else version_table(rows)
    print_table(table, as_json=as_json, empty=f"{registry.model} has no version yet")


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    run: Run = "tiny",
    tracking_uri: Uri = "",
    recipe: Recipe = "tiny",
    model: Model = "",
) -> None:
    """Make a version champion, if the evidence in its tags passes every gate (exit code 5 if not)."""
    registry = _open(run, tracking_uri, recipe, model)
    former = registry.set_champion(version, holder=_holder())
    print(f"{registry.model}: champion is v{version} (before: {f'v{former}' if former else 'none'})")


@app.command()
def rollback(run: Run = "tiny", tracking_uri: Uri = "", recipe: Recipe = "tiny", model: Model = "") -> None:
    """Return the alias `champion` to the version that had it before."""
    registry = _open(run, tracking_uri, recipe, model)
    left, now = registry.rollback(holder=_holder())
    print(f"{registry.model}: champion is v{now} again (before: v{left})")


@app.command()
def ui(
    run: Run = "tiny",
    tracking_uri: Uri = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; default: a free one from 5000 on.")] = 0,
) -> None:
    """Serve MLflow's pages of runs and models on this machine only, until Ctrl-C."""
    uri = _tracking_uri(run, tracking_uri)
    if is_server(uri):
        print(f"MLflow runs at {uri} already: open it in a browser")
        return
    set_mlflow_environment()
    from vl3.tracking.pages import served

    print(f"starting MLflow's pages on {uri} ...", flush=True)
    with served(uri, port) as (address, server):
        print(f"MLflow: {address}/{_TRAINING_VIEW} (Ctrl-C ends it)", flush=True)
        server.communicate()


def _open(run: str, tracking_uri: str, recipe: str, model: str) -> "Registry":
    """The registry that the options name.

    Raises:
        ConfigError: there is no database yet, or the model's name cannot be one.
    """
    from vl3.config.checks import require_name

    name = model or get_recipe(recipe).promotion.registered_model
    require_name("--model", name)
    uri = _tracking_uri(run, tracking_uri)
    set_mlflow_environment()
    from vl3.tracking.registry import Registry

    return Registry(uri, name)


def set_mlflow_environment() -> None:
    """Set what MLflow reads when it is imported, unless the caller's environment says otherwise."""
    from vl3.tracking.environment import MLFLOW_ENVIRONMENT

    for variable, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _tracking_uri(run: str, tracking_uri: str) -> str:
    if tracking_uri:
        refuse_secret("--tracking", tracking_uri, is_address=True)
        check_tracking_uri(tracking_uri)
        return tracking_uri
    folder = run_folder(run)
    database, own = shared_store(folder), folder / "mlflow.db"
    if not database.is_file():
        older = (
            f" {folder} has one of its own from an older vl3: --tracking {sqlite_uri(own)}." if own.is_file() else ""
        )
        raise ConfigError(
            f"no run has been tracked yet: there is no {database}. Start one with `make run-pipeline`, or name another "
            f"store with --tracking.{older}"
        )
    return sqlite_uri(database)


def _holder() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
