"""`vl3 recipe`: list recipes, and show one with overrides applied."""

import json
from typing import Annotated

import typer

from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.effective import stage_view

app = typer.Typer(help="Recipes: the configurations of whole runs.", no_args_is_help=True)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Typed override; repeat for more than one.")
]


@app.command("list")
def list_recipes() -> None:
    """Print the names of the recipes."""
    for name in recipe_names():
        print(name)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the recipe.")],
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Show only what this stage uses.")] = None,
) -> None:
    """Print the effective configuration of a recipe as JSON."""
    config = apply_overrides(get_recipe(name), overrides or [])
    print(json.dumps(to_dict(config) if stage is None else stage_view(config, stage), indent=2))
