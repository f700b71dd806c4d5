"""The workflows by name: how each is compiled for a recipe, and its tasks. Imports kfp only to compile one."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe, recipe_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """One workflow."""

    name: str
    """Name on the command line, and of its compiled file."""
    config: type
    """Class of its recipes' configuration."""
    default_recipe: str
    """Recipe of a run that sets none."""
    cluster_overrides: tuple[str, ...]
    """Overrides that every run on a cluster gets."""
    make_pipeline: Callable[[Any], Any]
    """From a configuration to the pipeline that kfp compiles; imports kfp."""
    task_limits_seconds: Callable[[Any], dict[str, float]]
    """From a configuration to its tasks in the order in which they run, with the time limit of each in a local run."""

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes that it can run."""
        return [name for name in recipe_names() if isinstance(get_recipe(name), self.config)]

    def recipe(self, name: str) -> Any:
        """The configuration of a recipe of this workflow.

        Raises:
            ConfigError: there is no such recipe, or it belongs to another workflow.
        """
        config = get_recipe(name)
        if not isinstance(config, self.config):
            raise ConfigError(
                f"recipe {name!r} is not one of the workflow {self.name!r}. Its recipes: {', '.join(self.recipes)}."
            )
        return config


def train_task(stage: str) -> str:
    """Name of the task that trains a stage: `train-vision-adaptation`."""
    return f"train-{stage}".replace("_", "-")


_STAGE_MARGIN_SECONDS = 120.0
"""So that a stage's own limit takes effect before that of its task."""


def _train_limits_seconds(config: RunConfig) -> dict[str, float]:
    stages = {train_task(name): stage.timeout_seconds + _STAGE_MARGIN_SECONDS for name, stage in config.stages.items()}
    before = {"check-prerequisites": 600.0, "validate-data": 7200.0}
    return before | stages | {"evaluate": 7200.0, "promote": 600.0, "report": 600.0, "finish": 600.0}


def _train_pipeline(config: RunConfig) -> Any:
    from vl3.pipelines.train import make_pipeline

    return make_pipeline(list(config.stages))


WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            name="train",
            config=RunConfig,
            default_recipe="tiny",
            cluster_overrides=("launch.backend=trainjob",),
            make_pipeline=_train_pipeline,
            task_limits_seconds=_train_limits_seconds,
        ),
    )
}
"""Every workflow by its name."""

DEFAULT_WORKFLOW = "train"


def get_workflow(name: str) -> Workflow:
    """The workflow with a name.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in WORKFLOWS:
        nearest = difflib.get_close_matches(name, WORKFLOWS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"workflow {name!r} is unknown. The nearest is {nearest!r}; all are {', '.join(WORKFLOWS)}.")
    return WORKFLOWS[name]


def effective_config(workflow: Workflow, parameters: WorkflowParameters) -> Any:
    """The configuration of a run: its recipe with its overrides.

    Raises:
        ConfigError: the recipe is not one of the workflow's, or an override does not fit.
    """
    return apply_overrides(workflow.recipe(parameters.recipe or workflow.default_recipe), parameters.overrides)
