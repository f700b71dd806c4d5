"""The states of a submitted run and of its tasks, from the server's description of the run. Pure functions.

The server's words are not always what a person would say (tests/kfp/recorded): a cancelled run ends as FAILED, and a
task that never ran has no state, or stays PENDING.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
"""Final states of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskState:
    """One task of a submitted run."""

    name: str
    """Name in the workflow: `train-video`."""
    state: str
    """WAITING (for others), PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED, or SKIPPED: it will not run."""
    text: str
    """What the server's description says beyond that."""


def run_parameters(run: Any) -> dict[str, Any]:
    """The workflow parameters of a run; empty for a run of something else."""
    given = (run.runtime_config.parameters or {}) if run.runtime_config else {}
    parameters = given.get("workflow")
    return dict(parameters) if isinstance(parameters, dict) else {}


def run_state(run: Any) -> str:
    """The state of a run; CANCELED for one that was cancelled, which the server calls FAILED."""
    return "CANCELED" if run.state == "FAILED" and _cancelled_at(run) is not None else str(run.state)


def task_states(run: Any) -> list[TaskState]:
    """The tasks of a run, in the order of its workflow."""
    details = (run.run_details.task_details or []) if run.run_details else []
    nodes = {str(detail.display_name): detail for detail in details if detail is not None}
    return [
        _task_state(task.get("taskInfo", {}).get("name", key), key, nodes, run)
        for key, task in ordered_tasks(run.pipeline_spec or {})
    ]


def _task_state(name: str, key: str, nodes: dict[str, Any], run: Any) -> TaskState:
    """The state of one task, from the node that is called like its key in the IR.

    `train-stage-2` is the task; `train-stage-2(0)` is its first try, `train-stage-2-driver` what prepares its pod.
    """
    node, driver, text = nodes.get(key), nodes.get(f"{key}-driver"), ""
    if driver is not None and driver.state == "FAILED":
        node, text = driver, "its driver failed, the pod in which Kubeflow Pipelines prepares it"
    state = "WAITING" if node is None else node.state or "SKIPPED"
    is_over, cancelled_at = run.state in ENDED, _cancelled_at(run)
    if cancelled_at is not None and _was_at_work(node, cancelled_at) and (is_over or state == "FAILED"):
        state, text = "CANCELED", ""
    elif is_over and state in ("WAITING", "PENDING"):
        state = "SKIPPED"
    return TaskState(name=name, state=state, text=text)


def _cancelled_at(run: Any) -> datetime | None:
    """When the run was cancelled; None if it was not, or has been retried since.

    PENDING, RUNNING, CANCELING, FAILED: at the third; PENDING, RUNNING, CANCELING, FAILED, RUNNING, FAILED: None.
    """
    active = [entry for entry in run.state_history or () if entry is not None and entry.state not in ENDED]
    return active[-1].update_time if active and active[-1].state == "CANCELING" else None


def _was_at_work(node: Any, moment: datetime) -> bool:
    """Whether a node had begun and did not end well; the end of one at work is in the year 1."""
    if node is None or node.state not in ("RUNNING", "FAILED") or node.start_time is None or node.start_time >= moment:
        return False
    return node.end_time is None or node.end_time < node.start_time or node.end_time >= moment


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
