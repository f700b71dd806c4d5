"""The states of a submitted run's tasks, from the server's description of the run. Pure functions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vl3.errors import ConfigError

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Final states of a run."""
_EXECUTOR = re.compile(r"executor(\(\d+\))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskState:
    """One task of a submitted run."""

    name: str
    """Name in the workflow: `train-video`."""
    state: str
    """The server's state; WAITING before it knows the task."""
    pods: tuple[str, ...]
    """Its pods, the latest last."""
    error: str
    """The server's error message."""


def run_parameters(run: Any) -> dict[str, Any]:
    """The workflow parameters of a run; empty for a run of something else."""
    given = (run.runtime_config.parameters or {}) if run.runtime_config else {}
    parameters = given.get("workflow")
    return dict(parameters) if isinstance(parameters, dict) else {}


def task_states(run: Any) -> list[TaskState]:
    """The tasks of a run, in the order of its workflow."""
    details = list(run.run_details.task_details or []) if run.run_details else []
    tasks = ordered_tasks(run.pipeline_spec or {})
    return [_task_state(task.get("taskInfo", {}).get("name", key), key, details) for key, task in tasks]


def pod_of(run: Any, task: str) -> str:
    """The pod whose log is the task's.

    Raises:
        ConfigError: the workflow has no such task, or it has not started.
    """
    states = {state.name: state for state in task_states(run)}
    if task not in states:
        raise ConfigError(f"run {run.display_name} has no task {task!r}. Its tasks: {', '.join(states)}.")
    if not states[task].pods:
        raise ConfigError(f"task {task} of run {run.display_name} has no pod yet ({states[task].state}). Wait for it.")
    return states[task].pods[-1]


def _task_state(name: str, key: str, details: list[Any]) -> TaskState:
    """The state of one task: of several nodes the last one, because a node's retries come after it."""
    mine = [detail for detail in details if detail.display_name in (key, name)]
    pods = tuple(dict.fromkeys(pod for detail in mine for pod in _pods(detail, details)))
    errors = [detail.error.message for detail in mine if detail.error is not None and detail.error.message]
    state = str(mine[-1].state or "PENDING") if mine else "WAITING"
    return TaskState(name=name, state=state, pods=pods, error=errors[-1] if errors else "")


def _pods(detail: Any, details: list[Any]) -> Iterator[str]:
    """Pods of the executors below a task's node.

    A node names its children by Argo's node ids, which end in the same hash as the pods' names: the child
    `run-abc-2893112` is the node whose pod is `run-abc-system-container-impl-2893112`.
    """
    by_hash = {_hash(other.pod_name): other for other in details if other.pod_name}
    for child in detail.child_tasks or []:
        node = by_hash.get(_hash(child.pod_name or ""))
        if node is not None and node is not detail and _EXECUTOR.fullmatch(node.display_name or ""):
            below = list(_pods(node, details))
            yield from below or [node.pod_name]


def _hash(name: str | None) -> str:
    return (name or "").rpartition("-")[2]


def ordered_tasks(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(key in the compiled workflow, task) of every task that runs a container, in order of their dependencies."""
    ir = spec.get("pipeline_spec") or spec
    found: list[tuple[str, dict[str, Any]]] = []

    def walk(dag: dict[str, Any]) -> None:
        for key in _ordered(dag.get("tasks", {})):
            task = dag["tasks"][key]
            component = ir.get("components", {}).get(task["componentRef"]["name"], {})
            if "dag" in component:
                walk(component["dag"])
            else:
                found.append((key, task))

    walk(ir.get("root", {}).get("dag", {}))
    return found


def _ordered(tasks: dict[str, Any]) -> list[str]:
    """The keys, each after those that it depends on: {a: needs b, b: needs c, c} gives c, b, a."""
    done: list[str] = []

    def visit(key: str) -> None:
        if key not in done:
            for other in tasks[key].get("dependentTasks", []):
                visit(other)
            done.append(key)

    for key in tasks:
        visit(key)
    return done
