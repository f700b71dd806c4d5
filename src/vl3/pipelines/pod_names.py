"""The name of a task's pod, where the pod itself cannot be asked: derived from the server's description of the run.

The server names no pods, but the nodes of Argo's graph that have a parent, by `<workflow>-<hash>`. A node's hash is the
32-bit FNV-1a hash of its name, and its name is its way through the graph (Argo Workflows, workflow/util/pod_name.go).
So a way is right if the server knows a node with its hash:

    vl3-train-qgqgl(0).root(0).exit-handler-1(0).validate-data(0).executor(0)   the way; (0) is the first try
    vl3-train-qgqgl-3123863392                                                   its node, a child of another
    vl3-train-qgqgl-metadata-1-5-retry-system-container-impl-3123863392          its pod

The words in between are the template's name, which the server derives from the task's retries, labels and annotations
(Kubeflow Pipelines 2.17, argocompiler/container.go). A server that calls it otherwise has no pod of this name.
"""

from collections.abc import Iterator
from itertools import count, takewhile
from typing import Any

_EXIT_TASK = "ALL_UPSTREAM_TASKS_COMPLETED"
"""How the IR marks a task that runs after another one whatever its end: an exit handler."""


def pod_name(run: Any, task: str) -> str:
    """Name of the pod of a task's latest attempt; empty if the run has no node of it, as before its start."""
    spec = run.pipeline_spec or {}
    details = (run.run_details.task_details or []) if run.run_details else []
    nodes = {str(child.pod_name) for detail in details for child in detail.child_tasks or () if child.pod_name}
    found = next((one for one in _ways(spec.get("pipeline_spec") or spec) if _display_name(*one) == task), None)
    if found is None or not nodes:
        return ""
    way, settings = found
    workflow = min(nodes).rpartition("-")[0]
    node = _latest_try(workflow, workflow, nodes)
    for key in (*way, "executor"):
        node = _latest_try(workflow, f"{node}.{key}", nodes)
    hashed = _hash(node)
    return f"{workflow}-{_template(spec, settings)}-{hashed}" if f"{workflow}-{hashed}" in nodes else ""


def _latest_try(workflow: str, node: str, nodes: set[str]) -> str:
    """A node's latest try that the server knows, the node itself if it has none: `a.b` gives `a.b(1)` or `a.b`."""
    tries = takewhile(lambda name: f"{workflow}-{_hash(name)}" in nodes, (f"{node}({number})" for number in count()))
    return [node, *tries][-1]


def _ways(ir: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The way to every task that runs a container, and the task: ("root", "exit-handler-1", "validate-data"), {...}."""

    def walk(way: tuple[str, ...], component: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
        for key, task in component["dag"].get("tasks", {}).items():
            below = ir.get("components", {}).get(task["componentRef"]["name"], {})
            if "dag" in below:
                yield from walk((*way, key), below)
            elif task.get("triggerPolicy", {}).get("strategy") == _EXIT_TASK:
                yield (*way, f"{task['dependentTasks'][0]}.onExit", key), task
            else:
                yield (*way, key), task

    if "dag" in ir.get("root", {}):
        yield from walk(("root",), ir["root"])


def _display_name(way: tuple[str, ...], task: dict[str, Any]) -> str:
    return str(task.get("taskInfo", {}).get("name", way[-1]))


def _template(spec: dict[str, Any], task: dict[str, Any]) -> str:
    """`metadata-1-5-retry-system-container-impl`: a task with one annotation, five labels and retries."""
    name = "retry-system-container-impl" if "retryPolicy" in task else "system-container-impl"
    component = (spec.get("pipeline_spec") or spec).get("components", {}).get(task["componentRef"]["name"], {})
    platform = (spec.get("platform_spec") or {}).get("platforms", {}).get("kubernetes", {})
    settings = platform.get("deploymentSpec", {}).get("executors", {}).get(component.get("executorLabel"), {})
    metadata = settings.get("podMetadata")
    if metadata is None:
        return name
    return f"metadata-{len(metadata.get('annotations', {}))}-{len(metadata.get('labels', {}))}-{name}"


def _hash(name: str) -> int:
    """FNV-1a in 32 bits: start with 2166136261; for each byte, xor it in, then multiply by 16777619."""
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value
