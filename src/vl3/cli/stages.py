"""`vl3 stages`: the stage table of the recipes."""

import typer

from vl3.recipes.stage_table import stage_page

app = typer.Typer(help="The training stages.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Exists so that typer keeps `vl3 stages table` as two words although it is the only verb."""


@app.command()
def table() -> None:
    """Print the page docs/stages.md, made from the recipes."""
    print(stage_page(), end="")
