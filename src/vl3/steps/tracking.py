"""How the steps reach MLflow: one tracker for the workflow run, one registry for its model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vl3.config.codec import digest, to_dict
from vl3.config.stages import Stage
from vl3.recipes.effective import stage_view
from vl3.steps.step import StepRequest
from vl3.store.reference import Reference
from vl3.tracking.registry import Registry
from vl3.tracking.runs import Tracker

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun


def open_tracker(request: StepRequest) -> Tracker:
    """The tracking client of this workflow run; nothing is contacted before its first use."""
    return Tracker(
        request.tracking_uri,
        f"vl3-{request.config.name}",
        request.run_id,
        request.run_id,
        injected=request.injected,
        template=request.tracking_template,
    )


def open_parent_run(request: StepRequest) -> "StepRun":
    """Find or make the workflow's parent run and write on it what the workflow was asked to do.

    Raises:
        ClusterError: the tracking store cannot be reached.
        StorageError: its database cannot be written.
        ConfigError: the URI is not one that MLflow serves.
    """
    run = open_tracker(request).workflow
    run.set_tags(
        {
            "vl3.recipe": request.config.name,
            "vl3.data_uri": request.data_uri,
            "vl3.artifacts_uri": request.artifacts_uri,
        }
    )
    run.log_config(to_dict(request.config))
    return run


def finish_parent_run(request: StepRequest, status: str, tags: Mapping[str, str]) -> None:
    """End the workflow's run as FINISHED, FAILED or KILLED; tags say more."""
    tracker = open_tracker(request)
    tracker.workflow.set_tags(tags)
    tracker.finish(status)


def open_registry(request: StepRequest) -> Registry:
    """The versions of the recipe's registered model."""
    uri = request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri
    return Registry(uri, request.config.promotion.registered_model, template=request.tracking_template)


def register_checkpoint(
    request: StepRequest, stage: Stage, checkpoint: Reference, dataset: Reference, mlflow_run_id: str | None = None
) -> int:
    """Register a stage's checkpoint as a candidate; one that is registered keeps its version. Returns the version."""
    return open_registry(request).register_candidate(
        checkpoint.uri,
        stage=stage.value,
        checkpoint_sha256=checkpoint.sha256,
        dataset_digest=dataset.sha256,
        config_digest=digest(stage_view(request.config, stage)),
        mlflow_run_id=mlflow_run_id,
        step=request.config.stages[stage].steps,
        tags={"vl3.run_id": request.run_id},
    )
