"""Preview of a run: whether each task's finished result would be reused, and why the task would run if not."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vl3.config.parameters import WorkflowParameters
from vl3.errors import Vl3Error
from vl3.store.reference import Reference
from vl3.workflow.explain import Differences, judge
from vl3.workflow.record import StepRecord, finished_records, record_uri
from vl3.workflow.step import Step, StepRequest, find_finished, key_parts, make_request


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskWiring:
    """One task of a compiled workflow."""

    name: str
    """Name of the task: `train-video`."""
    step: str
    """Module below vl3.steps."""
    part: str
    """Which of several tasks of the same step; empty for a step with only one task."""
    inputs: dict[str, tuple[str, str]]
    """Input -> the task that makes it and the name of that task's output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskPreview:
    """What would happen to one task."""

    task: str
    """Its name."""
    is_reused: bool
    """Whether its finished result would be reused."""
    reason: str
    """Why, in one line."""
    warning: str = ""
    """What to consider before running it."""
    differences: Differences | None = None
    """From the newest finished one, if the task would run because of them."""

    @property
    def line(self) -> str:
        """`would run: config steps 200 -> 300`."""
        return f"{'reused' if self.is_reused else 'would run'}: {self.reason}"


def preview_run(
    tasks: Sequence[TaskWiring], parameters: WorkflowParameters, *, library_pins: Mapping[str, str]
) -> list[TaskPreview]:
    """What a run with these parameters would do if it were started now, with this checkout's code and libraries.

    Args:
        tasks: its workflow, each task after those whose outputs it takes.
        parameters: of the run.
        library_pins: versions in the image that trains the stages, if it is another one.

    Raises:
        ConfigError: there is no such recipe, or an override does not fit.
    """

    def find_step(name: str) -> Step[Any]:
        return importlib.import_module(f"vl3.steps.{name}").STEP

    def request_for(task: TaskWiring, inputs: dict[str, Reference]) -> StepRequest[Any]:
        return make_request(parameters, task=task.name, part=task.part, inputs=inputs, library_pins=dict(library_pins))

    return preview(tasks, find_step, request_for)


def preview(
    tasks: Sequence[TaskWiring],
    find_step: Callable[[str], Step[Any]],
    request_for: Callable[[TaskWiring, dict[str, Reference]], StepRequest[Any]],
) -> list[TaskPreview]:
    """What a run would do, task by task, without running or writing anything.

    Args:
        tasks: the workflow, each task after those whose outputs it takes.
        find_step: the step of a module below vl3.steps.
        request_for: the request of a task with these inputs.
    """
    outputs: dict[str, dict[str, Reference]] = {}
    found = []
    for task in tasks:
        missing = [maker for maker, output in task.inputs.values() if output not in outputs.get(maker, {})]
        if missing:
            found.append(_runs(task, f"waits for the output of {', '.join(dict.fromkeys(missing))}"))
            continue
        inputs = {name: outputs[maker][output] for name, (maker, output) in task.inputs.items()}
        try:
            shown, record = _look(task, find_step(task.step), request_for(task, inputs))
        except Vl3Error as error:
            shown, record = _runs(task, f"cannot be determined: {error}"), None
        found.append(shown)
        if record is not None:
            outputs[task.name] = record.outputs
    return found


def _look(task: TaskWiring, step: Step[Any], request: StepRequest[Any]) -> tuple[TaskPreview, StepRecord | None]:
    """The preview of a task whose inputs are known, and the record whose outputs the next tasks would get."""
    parts = key_parts(step, request)
    record, is_whole = find_finished(record_uri(request.artifacts_uri, request.task, parts.key(request.task)))
    whole = record if is_whole else None
    if not step.reusable:  # with the same key it makes the same output again
        return _runs(task, "it does so in every run"), whole
    if record is not None and whole is not None:
        return TaskPreview(task=task.name, is_reused=True, reason=f"finished {record.created_at[:16]}"), whole
    finished = finished_records(request.artifacts_uri, request.task)
    verdict = judge(parts, [record] if record else finished, cost=step.cost)
    preview = TaskPreview(
        task=task.name,
        is_reused=False,
        reason=verdict.reason,
        warning=verdict.warning,
        differences=verdict.differences,
    )
    return preview, None


def _runs(task: TaskWiring, reason: str) -> TaskPreview:
    return TaskPreview(task=task.name, is_reused=False, reason=reason)
