"""The steps' access to MLflow: one tracker for the workflow run."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.recipes.catalog import get_any_recipe
from vl3.store.uris import join_uri
from vl3.system.provenance import provenance
from vl3.system.secrets import masked
from vl3.tracking.client import patiently
from vl3.tracking.machine import NEXT_STEP
from vl3.tracking.params import flatten
from vl3.tracking.runs import Tracker
from vl3.tracking.source import source_tags
from vl3.tracking.words import ChangedSetting, Results, changes, describe_end, describe_failure, describe_start
from vl3.tracking.writer import DESCRIPTION_TAG

if TYPE_CHECKING:
    from vl3.tracking.step_run import RunNotes
    from vl3.workflow.step import StepRequest

_STARTED = re.compile(r"-(\d{8})-(\d{4})\d\d-[0-9a-f]{4}")


def open_tracker(request: "StepRequest[Any]") -> Tracker:
    """The tracking client of this workflow run; nothing is contacted before its first use."""
    return Tracker(
        request.tracking_uri,
        f"vl3-{request.config.name}",
        request.run_id,
        readable_name(request.run_id),
        injected=request.injected,
        template=request.tracking_template,
        leftovers_uri=leftovers_uri(request),
    )


def readable_name(run_id: str) -> str:
    """The name of a run for people: `tiny-20261128-231405-ab12` is `tiny 2026-11-28 23:14`; other ids stay."""
    found = _STARTED.search(run_id)
    if found is None or found.end() != len(run_id):
        return run_id
    started = datetime.strptime(found[1] + found[2], "%Y%m%d%H%M").replace(tzinfo=UTC)
    return f"{run_id[: found.start()]} {started:%Y-%m-%d %H:%M}"


def leftovers_uri(request: "StepRequest[Any]") -> str:
    """Where notes that MLflow could not take are kept: in the run's folder, or beside its artifacts."""
    if request.run_folder is not None:
        return (request.run_folder / "untracked").absolute().as_uri()
    return join_uri(request.artifacts_uri, "untracked", request.run_id)


def dataset_name(request: "StepRequest[Any]") -> str:
    """The data's last folder, as the name of the dataset: `file:///build/data/tiny` is `tiny`."""
    return request.data_uri.rstrip("/").rpartition("/")[2] or "dataset"


def open_parent_run(request: "StepRequest[Any]") -> None:
    """Find or create the workflow's parent run and log its configuration and tags. Waits for the answers.

    Raises:
        ClusterError: the tracking store cannot be reached.
        StorageError: its database cannot be written.
        ConfigError: MLflow does not support the URI.
    """
    patiently(lambda: _write_start(request))


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
    """End the workflow's run as FINISHED, FAILED or KILLED; tags say more.

    No other step is at work by now, so the run of a step that is still open is that of a killed one.
    """
    with open_tracker(request).notes(request.task) as notes:
        notes.set_tags(tags)
        if status != "FINISHED":
            failure = describe_failure(status, tags["vl3.failed_task"], tags["vl3.error"])
            notes.describe(f"{failure}\n\n{_start(request)}")
        notes.finish_steps("KILLED")
        notes.finish(status)


def note_results(request: "StepRequest[Any]", notes: "RunNotes", results: Results) -> None:
    """Note on the workflow's run what it has to show: scores, verdict, model version."""
    scores = {"accuracy/mean": results.mean, **{f"accuracy/{name}": one for name, one in results.categories.items()}}
    notes.log_metrics([(NEXT_STEP, {name: value for name, value in scores.items() if value is not None})])
    version = {} if results.version is None else {"model version": f"{results.model} v{results.version}"}
    notes.set_tags({"verdict": results.state, **version})
    notes.describe(describe_end(_start(request), results))


def _write_start(request: "StepRequest[Any]") -> None:
    run, changed = open_tracker(request).workflow, _changed(request)
    run.set_tags(
        {
            "recipe": request.config.name,
            "overrides": ", ".join(f"{one.setting}={one.run}" for one in changed) or "none",
            "vl3.data_uri": request.data_uri,
            "vl3.artifacts_uri": request.artifacts_uri,
            DESCRIPTION_TAG: _start(request),
            **source_of(request),
        }
    )
    config = to_dict(request.config)
    run.log_params({f"changed.{one.setting}": one.run for one in changed} | flatten(config))


def _changed(request: "StepRequest[Any]") -> list[ChangedSetting]:
    name = request.recipe or request.config.name
    recipe = apply_overrides(get_any_recipe(name), ())  # in the form that overrides give
    return changes(to_dict(recipe), to_dict(request.config))


def _start(request: "StepRequest[Any]") -> str:
    return describe_start(request.config.name, request.data_uri, _changed(request))
