"""`vl3 recipe`: list recipes, and show one with overrides applied."""

from typing import Annotated

import typer

from vl3.cli.output import AsJson, print_json
from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.effective import stage_view

app = typer.Typer(help="Recipes: the configurations of whole runs.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Typed override; repeat for more than one.")
]


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Print the names of the recipes."""
    names = recipe_names()
    print_json(names) if as_json else print("\n".join(names))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the recipe.")],
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Show only what this stage uses.")] = None,
) -> None:
    """Print the effective configuration of a recipe as JSON."""
    config = apply_overrides(get_recipe(name), overrides or [])
    print_json(to_dict(config) if stage is None else stage_view(config, stage))
