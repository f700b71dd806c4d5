"""A recipe of three stages: Python imports this file in every process that has its folder on the path.

Its rows are the first three of tiny, so its weights must be those of tiny's first three stages.
"""

from dataclasses import replace

from vl3.config.run import RunConfig
from vl3.recipes import catalog

ROWS = {"looking": "vision_adaptation", "reading_2": "alignment", "talking": "multitask"}


def three() -> RunConfig:
    """The recipe."""
    tiny = catalog.get_recipe("tiny")
    return replace(
        tiny,
        name="three",
        stages={name: tiny.stages[like] for name, like in ROWS.items()},
        placements={name: tiny.placements[like] for name, like in ROWS.items()},
        promotion=replace(tiny.promotion, registered_model="vl3-three"),
    )


catalog._RECIPES["three"] = three
