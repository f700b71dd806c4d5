"""The recipes by name."""

import difflib

from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.recipes.ablation import ablation, ablation_tiny
from vl3.recipes.tiny import tiny
from vl3.recipes.vl3_2b import vl3_2b
from vl3.recipes.vl3_7b import vl3_7b

_RECIPES = {
    "tiny": tiny,
    "vl3_2b": vl3_2b,
    "vl3_7b": vl3_7b,
    "ablation_tiny": ablation_tiny,
    "ablation": ablation,
}


def recipe_names() -> list[str]:
    """Names that get_recipe knows."""
    return list(_RECIPES)


def get_recipe(name: str) -> RunConfig:
    """The configuration of a recipe; of an ablation an AblationConfig, which is a RunConfig too.

    Raises:
        ConfigError: no recipe has this name; the nearest is named.
    """
    if name not in _RECIPES:
        nearest = difflib.get_close_matches(name, _RECIPES, n=1, cutoff=0.0)[0]
        raise ConfigError(f"recipe {name!r} is unknown. The nearest is {nearest!r}; all are {', '.join(_RECIPES)}.")
    return _RECIPES[name]()
