"""The pods of a submitted run's steps, found by their labels: Kubeflow Pipelines does not name them."""

from dataclasses import dataclass

from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import (
    STEP_CONTAINER,
    TASK_LABEL,
    Object,
    condition,
    labels_of,
    name_of,
    one_line,
    phase_of,
    unix_time,
)
from vl3.launch.kube.outages import list_now
from vl3.launch.kube.resources import PODS

RUN_LABEL = "pipeline/runid"
"""Label of all pods of a run, with the server's id of the run."""
_LIMITS = LaunchLimits(api_outage_seconds=10.0)
"""Short, because a person waits for the answer."""
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons of a container that waits for nothing but its turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPod:
    """A pod of a step: one attempt."""

    name: str
    """Its name."""
    task: str
    """Name of its task in the workflow: `train-video`."""
    created: float
    """Unix time (of the cluster) at which it was created."""
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown."""
    reason: str
    """Why it does not run or has failed, in one sentence; empty if nothing is wrong."""
    has_log: bool
    """Whether the step's container has started."""

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended."""
        return self.phase in ("Succeeded", "Failed")


def find_step_pods(client: Client, kfp_run_id: str) -> list[StepPod]:
    """The existing pods of all steps of a run, the newest attempt last; drivers have no task's label.

    Args:
        client: client of the API server, in the run's namespace.
        kfp_run_id: the server's own id of the run.

    Raises:
        ConfigError: we have no right to list pods.
        ClusterError: the API server does not answer.
    """
    pods = list_now(client, PODS, _LIMITS, labelSelector=f"{RUN_LABEL}={kfp_run_id},{TASK_LABEL}")
    return sorted(map(_step_pod, pods), key=lambda pod: pod.created)


def _step_pod(pod: Object) -> StepPod:
    state = _states(pod).get(STEP_CONTAINER, {})
    return StepPod(
        name=name_of(pod),
        task=labels_of(pod)[TASK_LABEL],
        created=unix_time(pod["metadata"].get("creationTimestamp")) or 0.0,
        phase=phase_of(pod),
        reason=_reason(pod),
        has_log="running" in state or "terminated" in state,
    )


def _reason(pod: Object) -> str:
    """The first thing that is wrong: no node, a container that cannot start, an end by the node, a container's end."""
    placed = condition(pod, "PodScheduled") or {}
    if placed.get("status") == "False" and placed.get("message"):
        return one_line(f"it finds no node: {placed['message']}")
    for name, state in _states(pod).items():
        waiting = state.get("waiting") or {}
        if waiting.get("reason", "") not in _STARTING:
            said = f": {waiting['message']}" if waiting.get("message") else ""
            return one_line(f"its container {name} cannot start: {waiting['reason']}{said}")
    return _why_failed(pod) if phase_of(pod) == "Failed" else ""


def _why_failed(pod: Object) -> str:
    """The node's own words if it ended the pod, otherwise the end of the first container that failed."""
    status = pod.get("status") or {}
    if status.get("reason"):
        return one_line(f"its node ended it: {status['reason']}: {status.get('message') or 'no message'}")
    for name, state in _states(pod).items():
        end = state.get("terminated") or {}
        if end.get("exitCode"):
            kind = f" ({end['reason']})" if end.get("reason") not in (None, "Error") else ""
            return f"its container {name} ended with exit code {end['exitCode']}{kind}"
    return ""


def _states(pod: Object) -> dict[str, Object]:
    """The state of each container by its name, those of the initialization first, then the step's own."""
    status = pod.get("status") or {}
    both = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {str(one.get("name")): one.get("state") or {} for one in both}
