"""`vl3 registry`: list model versions, promote one by hand, roll back."""

import getpass
import os
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.output import AsJson, print_table
from vl3.errors import ConfigError
from vl3.pipelines.local.folder import run_folder
from vl3.recipes.catalog import get_recipe
from vl3.system.uris import sqlite_uri

if TYPE_CHECKING:
    from vl3.tracking.registry import Registry

app = typer.Typer(help="Model versions and the champion.", no_args_is_help=True)

Run = Annotated[
    str, typer.Option("--run", help="Run whose tracking database is used: a name below runs/, or a folder.")
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
    from vl3.tracking.registry import version_table

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


def _open(run: str, tracking_uri: str, recipe: str, model: str) -> "Registry":
    """The registry that the options name.

    Raises:
        ConfigError: the run has no tracking database, or the model's name cannot be one.
    """
    from vl3.config.checks import require_name
    from vl3.tracking.environment import MLFLOW_ENVIRONMENT
    from vl3.tracking.registry import Registry

    for variable, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    name = model or get_recipe(recipe).promotion.registered_model
    require_name("--model", name)
    return Registry(tracking_uri or _database_uri(run), name)


def _database_uri(run: str) -> str:
    database = run_folder(run) / "mlflow.db"
    if not database.is_file():
        known = ", ".join(sorted(path.parent.name for path in Path("runs").glob("*/mlflow.db"))) or "none"
        raise ConfigError(
            f"run {run!r} has no tracking database {database}. Set --run to one that has ({known}), or set --tracking."
        )
    return sqlite_uri(database)


def _holder() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
