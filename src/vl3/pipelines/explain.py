"""`vl3 run explain`: why each task of a run would run or be reused, for runs on this machine and submitted ones."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError
from vl3.pipelines.local.folder import RECORD, find_run
from vl3.pipelines.local.record import read_former
from vl3.pipelines.wiring import read_wiring
from vl3.pipelines.workflows import Workflow, get_workflow
from vl3.workflow.code import read_pins
from vl3.workflow.preview import TaskPreview, preview_run

if TYPE_CHECKING:
    from vl3.pipelines.server import Server

_TRAINER = Path(__file__).parents[3] / "images" / "trainer" / "requirements.txt"
"""Versions in the image in which a submitted run trains its stages; only a checkout has the file."""


def explain(run: str, task: str, connect: Callable[[], "Server"], *, pins_file: str) -> list[TaskPreview]:
    """Whether each task of a run would run or be reused if the run were started again now.

    Args:
        run: folder of a run, its name below runs/, or the id of a submitted one.
        task: the requested task; empty for all.
        connect: connects to the server of submitted runs.
        pins_file: the trainer image's requirements file, from VL3_TRAINER_REQUIREMENTS; empty uses the libraries
            installed here for a run on this machine, and the checkout's file for a submitted one.

    Raises:
        Vl3Error: there is no such run or task, or the server does not answer.
    """
    local = _local_run(run)
    workflow, parameters = local or _submitted_run(run, connect())
    wiring = read_wiring(_compiled(workflow, parameters))
    previews = preview_run(wiring, parameters, library_pins=_pins(pins_file, is_local=local is not None))
    if task and task not in (one.task for one in previews):
        names = ", ".join(one.task for one in previews)
        raise ConfigError(f"run {run} has no task {task!r}. Its tasks: {names}.")
    return [one for one in previews if task in ("", one.task)]


def _pins(pins_file: str, *, is_local: bool) -> dict[str, str]:
    """The versions in the image that trains a submitted run; none for a run on this machine, which trains with its own.

    Raises:
        ConfigError: they are not known here.
    """
    if pins_file:
        return read_pins(Path(pins_file))
    if is_local:
        return {}
    if not _TRAINER.is_file():
        raise ConfigError(
            "the library versions of the trainer image are not known outside of a checkout, and with those of this "
            "machine every stage would seem to have changed. Set VL3_TRAINER_REQUIREMENTS to that image's "
            "images/trainer/requirements.txt."
        )
    return read_pins(_TRAINER)


def as_json(preview: TaskPreview) -> dict[str, Any]:
    """A preview as JSON data; each difference is [then, now]."""
    found = preview.differences
    groups = ("config", "inputs", "modules", "libraries")
    return {
        "task": preview.task,
        "reused": preview.is_reused,
        "reason": preview.reason,
        "warning": preview.warning,
        "differences": {name: getattr(found, name) for name in groups} if found else None,
    }


def _local_run(run: str) -> tuple[Workflow, WorkflowParameters] | None:
    """Workflow and parameters of a run on this machine, from its run.json; None if there is no such run."""
    folder = find_run(run)
    if folder is None:
        return None
    record = read_former(folder / RECORD)
    given = record.get("parameters")
    asked = {**given, "run_id": record["run_id"]} if isinstance(given, dict) else given
    return get_workflow(str(record.get("workflow"))), WorkflowParameters.from_dict(asked)


def _submitted_run(run: str, server: "Server") -> tuple[Workflow, WorkflowParameters]:
    from vl3.pipelines import submit
    from vl3.pipelines.tasks import run_parameters

    found = submit.find_run(server, run)
    spec = found.pipeline_spec or {}
    name = (spec.get("pipeline_spec") or spec).get("pipelineInfo", {}).get("name", "")
    return get_workflow(name.removeprefix("vl3-")), WorkflowParameters.from_dict(run_parameters(found))


def _compiled(workflow: Workflow, parameters: WorkflowParameters) -> dict[str, Any]:
    """The workflow as it would be compiled now."""
    from vl3.pipelines.compile import compile_workflow, read_documents

    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "workflow.yaml"
        compile_workflow(workflow, parameters, path)
        return read_documents(path)[0]
