"""Which task of a compiled workflow takes which output of which other task, read from the compiled file."""

from collections.abc import Iterator
from typing import Any

from vl3.pipelines.tasks import ordered_tasks
from vl3.workflow.preview import TaskWiring


def read_wiring(ir: dict[str, Any]) -> list[TaskWiring]:
    """The tasks that run a step, each after those whose outputs it takes.

    Args:
        ir: the first document of a compiled workflow.
    """
    names = {key: task["taskInfo"]["name"] for key, task, _ in _tasks(ir)}
    return [
        TaskWiring(
            name=names[key],
            step=_step(ir, component),
            part=_part(task),
            inputs={
                name: (names[made["producerTask"]], made["outputArtifactKey"])
                for name, source in task.get("inputs", {}).get("artifacts", {}).items()
                for made in [source["taskOutputArtifact"]]
            },
        )
        for key, task, component in _tasks(ir)
    ]


def _tasks(ir: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Key, task and component of each task that runs a container."""
    for key, task in ordered_tasks(ir):
        yield key, task, ir["components"][task["componentRef"]["name"]]


def _step(ir: dict[str, Any], component: dict[str, Any]) -> str:
    """The step's module: a component's function has its name."""
    arguments = ir["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["args"]
    return arguments[arguments.index("--function_to_execute") + 1]


def _part(task: dict[str, Any]) -> str:
    """The constant that the workflow passes to the task: the stage, for training. The rest are run parameters."""
    given = task.get("inputs", {}).get("parameters", {}).values()
    return next((one["runtimeValue"]["constant"] for one in given if "runtimeValue" in one), "")
