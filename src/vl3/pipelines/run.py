"""Run a workflow on this machine: what `vl3 run start` and `make run-pipeline` do.

A thin runner around kfp.local that adds what it lacks: a lock, a log file per task, limits, a record of the run,
progress, clean stopping, and exit codes by error family.
"""

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vl3.config.parameters import WorkflowParameters
from vl3.config.tracking import check_tracking_uri, shared_store
from vl3.errors import ConfigError, StorageError
from vl3.pipelines.local.folder import NAME_RULE, is_name, new_run_folder
from vl3.pipelines.local.lock import run_lock
from vl3.pipelines.local.watch import RunWatch
from vl3.pipelines.workflows import TaskLimit, Workflow, effective_config, get_workflow
from vl3.system.uris import file_uri, sqlite_uri

_INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRun:
    """One run on this machine, checked as far as that is possible before it starts."""

    folder: Path
    workflow: Workflow
    parameters: WorkflowParameters
    """With all addresses: data that was given, otherwise those in the run's folder."""
    limits: dict[str, TaskLimit]
    """Its tasks in order, with the limit of each."""


def check_run(workflow_name: str, run: str, given: WorkflowParameters) -> LocalRun:
    """Check what a run was asked to do, without writing anything.

    Runs beside each other share one tracking store and registry, `runs/mlflow.db`, so that a candidate is compared
    with the champion of an earlier run.

    Args:
        workflow_name: name of the workflow.
        run: name below runs/, or folder; empty uses the name of the recipe.
        given: parameters as given, with URIs for data and artifacts; those left out are in the run's folder.

    Raises:
        ConfigError: the workflow, the recipe, an override, the folder or a parameter's text is wrong.
    """
    workflow = get_workflow(workflow_name)
    texts = (given.recipe, given.stages, given.model_uri, given.artifacts_uri, given.tracking_uri, given.run_id)
    for text in (*texts, *given.overrides):
        if _UNPRINTABLE.search(text):
            raise ConfigError(
                f"{text!r} has control characters or bytes that are no text; a run's record could not hold them. "
                "Write it without them."
            )
    if given.run_id and not is_name(given.run_id):
        raise ConfigError(f"run id {given.run_id!r} cannot be part of URIs and ids. {NAME_RULE}")
    if given.tracking_uri:
        check_tracking_uri(given.tracking_uri)
    recipe = given.recipe or workflow.default_recipe
    given = replace(given, recipe=recipe, stages=given.stages or workflow.default_stages)
    config = effective_config(workflow, given)
    folder = new_run_folder(run or recipe)
    parameters = replace(
        given,
        artifacts_uri=given.artifacts_uri or file_uri(folder / "artifacts"),
        tracking_uri=given.tracking_uri or sqlite_uri(shared_store(folder)),
    )
    return LocalRun(
        folder=folder,
        workflow=workflow,
        parameters=parameters,
        limits=workflow.task_limits(config, parameters),
    )


def start_run(local: LocalRun, prepare: Callable[[], None]) -> int:
    """Run the workflow in its folder, as the only run there; returns the exit code.

    Args:
        local: the run.
        prepare: called when the folder is ours and before the first task, to make what the run needs.

    Raises:
        ConfigError: another run uses the folder.
        StorageError: the folder cannot be written.
    """
    folder = local.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: the run folder cannot be created ({error.strerror}). Use another RUN."
        ) from error
    with run_lock(folder) as temporary:
        prepare()
        watch = RunWatch(folder, local.workflow.name, local.parameters, local.limits, temporary)
        for number in _INTERRUPTING:
            signal.signal(number, lambda received, _: watch.interrupt(received))
        return watch.run()
