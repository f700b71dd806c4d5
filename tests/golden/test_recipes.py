"""The effective configuration of every stage of every recipe: a change of a recipe shows as a difference."""

from typing import Any

import pytest

from vl3.config.stages import Stage
from vl3.recipes.catalog import get_recipe, recipe_names
from vl3.recipes.effective import stage_view


@pytest.mark.parametrize("stage", list(Stage), ids=lambda stage: stage.value)
@pytest.mark.parametrize("name", recipe_names())
def test_stage_configuration_is_the_reviewed_one(golden: Any, name: str, stage: Stage) -> None:
    golden(f"recipes/{name}/stage{stage.number}_{stage.value}.json", stage_view(get_recipe(name), stage))
