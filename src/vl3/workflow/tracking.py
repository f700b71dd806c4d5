"""The steps' access to MLflow: one tracker for the workflow run."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.config.parameters import WorkflowParameters
from vl3.system.provenance import provenance
from vl3.system.secrets import masked
from vl3.tracking.runs import Tracker
from vl3.tracking.source import source_tags

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
            **source_of(request),
        }
    )
    run.log_config(to_dict(request.config))
    return run


def source_of(request: "StepRequest[Any]") -> dict[str, str]:
    """Tags with what ran; on a cluster the command is the one that submits the run, and not that of this pod."""
    if request.run_folder is not None:
        return source_tags(provenance())
    return source_tags({**provenance(), "command": submit_command(request)}, is_cluster=True)


def submit_command(parameters: WorkflowParameters) -> str:
    """The command that submits a run with these parameters: `vl3 run submit --recipe tiny --set seed=1`."""
    words = ["vl3", "run", "submit"]
    for one in fields(WorkflowParameters):
        value = getattr(parameters, one.name)
        for text in (value,) if isinstance(value, str) else value:
            words += [one.metadata["option"], masked(text)] if text else []
    return shlex.join(words)


def finish_parent_run(request: "StepRequest[Any]", status: str, tags: Mapping[str, str]) -> None:
    """End the workflow's run as FINISHED, FAILED or KILLED; tags say more."""
    tracker = open_tracker(request)
    tracker.workflow.set_tags(tags)
    tracker.finish(status)
