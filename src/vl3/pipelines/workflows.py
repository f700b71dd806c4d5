"""The workflows by name: how each is compiled for a recipe, and its tasks. Imports kfp only to compile one."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vl3.config.curation import CURATE, CurationConfig
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.config.part import MODEL_FORMS, NO_STAGE, check_model_uri, check_start, choose_stages
from vl3.config.placement import BUILD
from vl3.config.run import RunConfig
from vl3.config.stages import STARTUP_SECONDS
from vl3.errors import ConfigError
from vl3.recipes.catalog import all_recipe_names, get_any_recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskLimit:
    """How long a task may be silent: one that makes progress is never stopped for its age."""

    stall_seconds: float
    """Time without progress; ten times the task's longest pause if that is longer."""
    setting: str
    """The field of the configuration that sets it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workflow:
    """One workflow."""

    name: str
    """Name on the command line, and of its compiled file."""
    config: type
    """Class of its recipes' configuration."""
    default_recipe: str
    """Recipe of a run that sets none."""
    default_stages: str
    """Stages of a run that sets none (vl3.config.part)."""
    cluster_overrides: tuple[str, ...]
    """Overrides that every run on a cluster gets."""
    check: Callable[[Any, WorkflowParameters], None]
    """Raises ConfigError for parameters that contradict the configuration or that the workflow has no use for."""
    make_pipeline: Callable[[Any, WorkflowParameters], Any]
    """From a configuration and parameters to the pipeline that kfp compiles; imports kfp."""
    task_limits: Callable[[Any, WorkflowParameters], dict[str, TaskLimit]]
    """From the same to its tasks in the order in which they run, with the limit of each in a local run."""

    @property
    def pipeline_name(self) -> str:
        """Name of its Pipeline on a server, under which its versions are found; the compiled workflow's own."""
        return f"vl3-{self.name}"

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes that it can run."""
        return [name for name in all_recipe_names() if isinstance(get_any_recipe(name), self.config)]

    def recipe(self, name: str) -> Any:
        """The configuration of a recipe of this workflow.

        Raises:
            ConfigError: there is no such recipe, or it belongs to another workflow.
        """
        config = get_any_recipe(name)
        if not isinstance(config, self.config):
            raise ConfigError(
                f"recipe {name!r} is not one of the workflow {self.name!r}. Its recipes: {', '.join(self.recipes)}."
            )
        return config


def train_task(stage: str) -> str:
    """Name of the task that trains a stage: `train-vision-adaptation`."""
    return f"train-{stage}".replace("_", "-")


def plan_task(stage: str) -> str:
    """Name of the task that plans a stage: `plan-vision-adaptation`."""
    return f"plan-{stage}".replace("_", "-")


_BEFORE = ("check-prerequisites", "import-start")
_BUILD_TASK = "build-data"
_STAGE_MARGIN_SECONDS = 120.0
"""So that a stage's own limit, whose message says more, takes effect before that of its task."""


def _train_limits(config: RunConfig, parameters: WorkflowParameters) -> dict[str, TaskLimit]:
    other = _task_limit(config)
    before, after = (
        ("check-prerequisites", "import-start", "build-data", "validate-data"),
        ("evaluate", "promote", "report", "finish"),
    )
    chosen = choose_stages(list(config.stages), parameters.stages)
    plans = [plan_task(name) for name in chosen]
    stages = {train_task(name): _stage_limit(config, name) for name in chosen}
    limits = dict.fromkeys((*before, *plans), other) | stages | dict.fromkeys(after, other)
    return limits | {_BUILD_TASK: _build_limit(config)}


def _evaluate_limits(config: RunConfig, _: WorkflowParameters) -> dict[str, TaskLimit]:
    tasks = (
        "check-prerequisites",
        "import-start",
        "build-data",
        "validate-data",
        "evaluate",
        "report-evaluation",
        "finish",
    )
    return dict.fromkeys(tasks, _task_limit(config)) | {_BUILD_TASK: _build_limit(config)}


def _task_limit(config: RunConfig) -> TaskLimit:
    return TaskLimit(stall_seconds=config.launch.task_stall_seconds, setting="launch.task_stall_seconds")


def _build_limit(config: RunConfig) -> TaskLimit:
    """The limit of the step that builds, or that launches a build, which has limits of its own, and watches it."""
    limit = _task_limit(config)
    if config.launch.backend == "local" or BUILD not in config.placements:
        return limit
    seconds = max(STARTUP_SECONDS, limit.stall_seconds) + _STAGE_MARGIN_SECONDS
    return replace(limit, stall_seconds=config.placements[BUILD].queue_timeout_seconds + seconds)


def _stage_limit(config: RunConfig, name: str) -> TaskLimit:
    """The limit of the step that launches a stage and watches it: a last resort, for a launcher that hangs itself."""
    stage = config.stages[name]
    setting = "startup_seconds" if stage.startup_seconds >= stage.stall_seconds else "stall_seconds"
    queued = config.placements[name].queue_timeout_seconds if config.launch.backend == "trainjob" else 0.0
    seconds = queued + max(stage.startup_seconds, stage.stall_seconds) + _STAGE_MARGIN_SECONDS
    return TaskLimit(stall_seconds=seconds, setting=f"stages.{name}.{setting}")


def _check_train(config: RunConfig, parameters: WorkflowParameters) -> None:
    stages = list(config.stages)
    if parameters.model_uri:
        check_model_uri(parameters.model_uri)
    check_start(stages, choose_stages(stages, parameters.stages), parameters.model_uri)


def _train_pipeline(config: RunConfig, parameters: WorkflowParameters) -> Any:
    from vl3.pipelines.train import make_pipeline

    return make_pipeline(choose_stages(list(config.stages), parameters.stages), config.step_pods)


def _check_evaluate(_: RunConfig, parameters: WorkflowParameters) -> None:
    if parameters.stages not in ("", NO_STAGE):
        raise ConfigError(
            f"STAGES={parameters.stages} has no meaning for an evaluation, which trains nothing. Leave it out."
        )
    if not parameters.model_uri:
        raise ConfigError(f"there is no model to evaluate. Name one with MODEL: {MODEL_FORMS}.")
    check_model_uri(parameters.model_uri)


def _evaluate_pipeline(config: RunConfig, _: WorkflowParameters) -> Any:
    from vl3.pipelines.evaluate import make_pipeline

    return make_pipeline(config.step_pods)


def _curate_limits(config: CurationConfig, _: WorkflowParameters) -> dict[str, TaskLimit]:
    limit = TaskLimit(stall_seconds=config.launch.task_stall_seconds, setting="launch.task_stall_seconds")
    tasks = ("check-curation", "import-scorers", "curate-images", "validate-curation", "report-curation", "finish")
    limits = dict.fromkeys(tasks, limit)
    if config.launch.backend != "local" and CURATE in config.placements:
        queued = config.placements[CURATE].queue_timeout_seconds
        seconds = queued + max(STARTUP_SECONDS, limit.stall_seconds) + _STAGE_MARGIN_SECONDS
        limits["curate-images"] = replace(limit, stall_seconds=seconds)
    return limits


def _check_curate(_: CurationConfig, parameters: WorkflowParameters) -> None:
    if parameters.stages not in ("", NO_STAGE) or parameters.model_uri:
        raise ConfigError("a curation trains nothing and starts from no model. Leave out STAGES and FROM.")


def _curate_pipeline(config: CurationConfig, _: WorkflowParameters) -> Any:
    from vl3.pipelines.curate import make_pipeline

    return make_pipeline(config.step_pods)


WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            name="train",
            config=RunConfig,
            default_recipe="tiny",
            default_stages="",
            cluster_overrides=("launch.backend=trainjob",),
            check=_check_train,
            make_pipeline=_train_pipeline,
            task_limits=_train_limits,
        ),
        Workflow(
            name="evaluate",
            config=RunConfig,
            default_recipe="tiny",
            default_stages=NO_STAGE,
            cluster_overrides=("launch.backend=trainjob",),
            check=_check_evaluate,
            make_pipeline=_evaluate_pipeline,
            task_limits=_evaluate_limits,
        ),
        Workflow(
            name="curate",
            config=CurationConfig,
            default_recipe="curate_tiny",
            default_stages=NO_STAGE,
            cluster_overrides=("launch.backend=trainjob",),
            check=_check_curate,
            make_pipeline=_curate_pipeline,
            task_limits=_curate_limits,
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
        ConfigError: the recipe is not one of the workflow's, or an override or another parameter does not fit.
    """
    config = apply_overrides(workflow.recipe(parameters.recipe or workflow.default_recipe), parameters.overrides)
    workflow.check(config, parameters)
    return config
