"""The effective configuration of every stage of every recipe: a change of a recipe shows as a difference."""

from typing import Any

import pytest

from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.effective import stage_view

ROWS = [(name, stage) for name in recipe_names() for stage in get_recipe(name).stages]


@pytest.mark.parametrize(("name", "stage"), ROWS)
def test_stage_configuration_is_the_reviewed_one(golden: Any, name: str, stage: str) -> None:
    config = get_recipe(name)
    golden(f"recipes/{name}/stage{config.stage_number(stage)}_{stage}.json", stage_view(config, stage))
