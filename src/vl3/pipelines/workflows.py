"""The workflows by name: how each is compiled for a recipe, and its tasks. Imports kfp only to compile one."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vl3.config.ablation import AblationConfig
from vl3.config.curation import CurationConfig
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.config.part import MODEL_FORMS, NO_STAGE, check_model_uri, check_start, choose_stages
from vl3.config.placement import BUILD, CURATE, EVALUATION
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
        """Names of the recipes that it can run: an ablation is no training run, though it has all that one has."""
        return [name for name in all_recipe_names() if type(get_any_recipe(name)) is self.config]

    def recipe(self, name: str) -> Any:
        """The configuration of a recipe of this workflow.

        Raises:
            ConfigError: there is no such recipe, or it belongs to another workflow.
        """
        config = get_any_recipe(name)
        if type(config) is not self.config:
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
_EVALUATION_TASK = "evaluate"
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
    return limits | {_BUILD_TASK: _job_limit(config, BUILD), _EVALUATION_TASK: _job_limit(config, EVALUATION)}


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
    jobs = {_BUILD_TASK: _job_limit(config, BUILD), _EVALUATION_TASK: _job_limit(config, EVALUATION)}
    return dict.fromkeys(tasks, _task_limit(config)) | jobs


def _ablation_limits(config: AblationConfig, _: WorkflowParameters) -> dict[str, TaskLimit]:
    other, arms = _task_limit(config), list(config.arms)
    stages = {arm: config.arm(arm) for arm in arms}
    before = ("check-prerequisites", *(f"import-{arm}" for arm in arms), _BUILD_TASK, "validate-data")
    plans = [plan_task(stage) for run in stages.values() for stage in run.stages]
    limits = dict.fromkeys((*before, *plans), other)
    for arm, run in stages.items():
        limits |= {train_task(stage): _stage_limit(run, stage) for stage in run.stages}
        limits[f"evaluate-{arm}"] = _job_limit(config, EVALUATION)
    return limits | {"compare-arms": other, "finish": other, _BUILD_TASK: _job_limit(config, BUILD)}


def _task_limit(config: RunConfig | CurationConfig) -> TaskLimit:
    return TaskLimit(stall_seconds=config.launch.task_stall_seconds, setting="launch.task_stall_seconds")


def _job_limit(config: RunConfig | CurationConfig, placement: str) -> TaskLimit:
    """The limit of a step that builds or evaluates, or that launches a job for it, which has limits of its own."""
    limit = _task_limit(config)
    if config.launch.backend == "local" or placement not in config.placements:
        return limit
    seconds = max(STARTUP_SECONDS, limit.stall_seconds) + _STAGE_MARGIN_SECONDS
    return replace(limit, stall_seconds=config.placements[placement].queue_timeout_seconds + seconds)


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


def _check_ablation(_: AblationConfig, parameters: WorkflowParameters) -> None:
    if parameters.stages:
        raise ConfigError(
            f"STAGES={parameters.stages} has no meaning for an ablation, which trains all stages of every arm. Leave "
            "it out; what is finished is reused."
        )
    if parameters.model_uri:
        raise ConfigError(
            "an ablation starts from the encoder of each arm and the recipe's decoder, not from a whole model. Leave "
            "out FROM, or set arms.NAME.vision_base and model.language_base."
        )


def _ablation_pipeline(config: AblationConfig, _: WorkflowParameters) -> Any:
    from vl3.pipelines.ablation import make_pipeline

    return make_pipeline(config)


def _curate_limits(config: CurationConfig, _: WorkflowParameters) -> dict[str, TaskLimit]:
    tasks = (
        "check-curation",
        "import-scorers",
        "curate-images",
        "curate-videos",
        "validate-curation",
        "report-curation",
        "finish",
    )
    return dict.fromkeys(tasks, _task_limit(config)) | {"curate-images": _job_limit(config, CURATE)}


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
            name="ablation",
            config=AblationConfig,
            default_recipe="ablation_tiny",
            default_stages="",
            cluster_overrides=("launch.backend=trainjob",),
            check=_check_ablation,
            make_pipeline=_ablation_pipeline,
            task_limits=_ablation_limits,
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
