"""Makes every run of the recipe tiny short: Python imports this file in each process that has its folder on the path.

So the documentation's commands can be run as they are written, in seconds.
"""

from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.recipes import catalog

_whole = catalog._RECIPES["tiny"]


def short() -> RunConfig:
    """Tiny with four steps a stage and four questions a category."""
    whole = _whole()
    steps = [f"stages.{stage}.steps=4" for stage in whole.stages]
    return apply_overrides(whole, [*steps, "engine.log_every_steps=2", "evaluation.samples_per_task=4"])


catalog._RECIPES["tiny"] = short
