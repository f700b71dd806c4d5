"""The steps' access to MLflow: one tracker for the workflow run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.tracking.runs import Tracker

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun
    from vl3.workflow.step import StepRequest


def open_tracker(request: "StepRequest[Any]") -> Tracker:
    """The tracking client of this workflow run; nothing is contacted before its first use."""
    return Tracker(
        request.tracking_uri,
        f"vl3-{request.config.name}",
        request.run_id,
        request.run_id,
        injected=request.injected,
        template=request.tracking_template,
    )


def open_parent_run(request: "StepRequest[Any]") -> "StepRun":
    """Find or create the workflow's parent run and log its configuration and tags.

    Raises:
        ClusterError: the tracking store cannot be reached.
        StorageError: its database cannot be written.
        ConfigError: MLflow does not support the URI.
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


def finish_parent_run(request: "StepRequest[Any]", status: str, tags: Mapping[str, str]) -> None:
    """End the workflow's run as FINISHED, FAILED or KILLED; tags say more."""
    tracker = open_tracker(request)
    tracker.workflow.set_tags(tags)
    tracker.finish(status)
