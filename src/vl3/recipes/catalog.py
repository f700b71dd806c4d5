"""The recipes by name."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from vl3.config.curation import CurationConfig
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.recipes.ablation import ablation, ablation_tiny
from vl3.recipes.curate_tiny import curate_tiny
from vl3.recipes.tiny import tiny
from vl3.recipes.video_synthesis import video_synthesis
from vl3.recipes.vl3_2b import vl3_2b
from vl3.recipes.vl3_7b import vl3_7b
from vl3.recipes.vl3_syn7m import laion_ocr, vl3_syn7m

_RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "vl3_2b": vl3_2b,
    "vl3_7b": vl3_7b,
    "ablation_tiny": ablation_tiny,
    "ablation": ablation,
}
_CURATIONS: dict[str, Callable[[], CurationConfig]] = {
    "curate_tiny": curate_tiny,
    "vl3_syn7m": vl3_syn7m,
    "laion_ocr": laion_ocr,
    "video_synthesis": video_synthesis,
}


def recipe_names() -> list[str]:
    """Names that get_recipe knows."""
    return list(_RECIPES)


def get_recipe(name: str) -> RunConfig:
    """The configuration of a recipe that trains or evaluates: of an ablation an AblationConfig, which is one too.

    Raises:
        ConfigError: no recipe has this name; the nearest is named.
    """
    return _made(name, _RECIPES)


def all_recipe_names() -> list[str]:
    """Names that get_any_recipe knows: recipes of every workflow."""
    return [*_RECIPES, *_CURATIONS]


def get_any_recipe(name: str) -> Any:
    """The configuration of a recipe of any workflow, of that workflow's class.

    Raises:
        ConfigError: no recipe has this name; the nearest is named.
    """
    return _made(name, {**_RECIPES, **_CURATIONS})


def _made(name: str, recipes: Mapping[str, Callable[[], Any]]) -> Any:
    if name not in recipes:
        nearest = difflib.get_close_matches(name, recipes, n=1, cutoff=0.0)[0]
        raise ConfigError(f"recipe {name!r} is unknown. The nearest is {nearest!r}; all are {', '.join(recipes)}.")
    return recipes[name]()
