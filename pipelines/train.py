"""The training workflow: prerequisites, data, four stages, evaluation, promotion, report, last word. Wiring only."""

from typing import Any

from kfp import dsl

from components.check_prerequisites import check_prerequisites
from components.evaluate import evaluate
from components.finish import finish
from components.promote import promote
from components.report import report
from components.train_stage import train_stage
from components.validate_data import validate_data
from pipelines.pod_settings import apply_pod_settings
from vl3.config.stages import Stage


def task_names() -> list[str]:
    """Names of the workflow's tasks, in the order in which they run."""
    stages = (f"train-{stage.value}".replace("_", "-") for stage in Stage)
    return ["check-prerequisites", "validate-data", *stages, "evaluate", "promote", "report", "finish"]


def named(task: Any, name: str) -> Any:
    """Give a task its name and its pod; leave caching to the steps' own keys: KFP's would trust results unverified."""
    task.set_display_name(name)
    task.set_caching_options(False)
    return apply_pod_settings(task, name)


@dsl.pipeline(name="vl3-train", description="Trains, evaluates and promotes a VideoLLaMA3-style model.")
def train(recipe: str, overrides: list, data_uri: str, artifacts_uri: str, tracking_uri: str, run_id: str) -> None:
    """Chain the steps.

    Args:
        recipe: name of the recipe.
        overrides: typed overrides, each `path.to.field=value`.
        data_uri: folder with annotations and media.
        artifacts_uri: root of everything that steps publish.
        tracking_uri: MLflow tracking store.
        run_id: identity of this workflow run; restarts of one run share it.
    """
    workflow: dict[str, Any] = {
        "recipe": recipe,
        "overrides": overrides,
        "data_uri": data_uri,
        "artifacts_uri": artifacts_uri,
        "tracking_uri": tracking_uri,
        "run_id": run_id,
    }
    last = named(finish(**workflow), "finish")
    with dsl.ExitHandler(last, name="workflow"):
        start = named(check_prerequisites(**workflow), "check-prerequisites").outputs["start"]
        data = named(validate_data(**workflow, start=start), "validate-data").outputs
        weights, checkpoints, trainings = start, {}, {}
        for stage in Stage:
            task = train_stage(**workflow, stage=stage.value, initial=weights, dataset=data["dataset"])
            named(task, f"train-{stage.value}".replace("_", "-"))
            weights = checkpoints[stage.value] = task.outputs["checkpoint"]
            trainings[stage.value] = task.outputs["training"]
        scores = evaluate(**workflow, start=start, dataset=data["dataset"], **checkpoints)
        evaluation = named(scores, "evaluate").outputs["evaluation"]
        decision = promote(**workflow, **data, checkpoint=weights, evaluation=evaluation)
        promotion = named(decision, "promote").outputs["promotion"]
        page = report(**workflow, start=start, **data, **trainings, evaluation=evaluation, promotion=promotion)
        named(page, "report")
