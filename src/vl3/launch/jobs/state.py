"""The state of an attempt, derived from the TrainJob, Kueue's Workload and the pods by a pure function.

Trainer 2.3 has no condition for running, and its STATE column prints `Suspended` while a resumed job runs. So waiting
is read from `spec.suspend`, its reason from the Workload, and everything later from the pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vl3.launch.kube.objects import (
    Object,
    condition,
    image_of,
    is_being_deleted,
    is_over,
    is_ready,
    is_true,
    one_line,
    phase_of,
    terminated,
    unix_time,
    waiting_reason,
)

WAITING = frozenset({"queued", "preempted"})
"""States without quota."""
RUNNING = frozenset({"starting", "running", "resumed"})
"""States with processes."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The state that the objects show together."""

    state: str
    """queued, preempted, admitted, pulling, starting, running, resumed, complete, failed or deleted."""
    text: str
    """One line for a person."""
    since: float | None = None
    """Unix time (of the cluster) since which it is in this state, if the objects say it."""


def observe(trainjob: Object | None, workload: Object | None, pods: Sequence[Object], *, nodes: int) -> Observation:
    """The state of an attempt.

    Args:
        trainjob: the TrainJob; None if it is gone.
        workload: its Workload of Kueue; None while there is none.
        pods: its pods.
        nodes: number of pods that it should have.
    """
    if trainjob is None or is_being_deleted(trainjob):
        return Observation("deleted", "its TrainJob is gone" if trainjob is None else "its TrainJob is being deleted")
    for kind, state in (("Complete", "complete"), ("Failed", "failed")):
        if is_true(trainjob, kind):
            found = condition(trainjob, kind) or {}
            text = one_line(f"{found.get('reason', '')}: {found.get('message', '')}".strip(": "))
            return Observation(state, text, unix_time(found.get("lastTransitionTime")))
    if trainjob["spec"].get("suspend") or is_true(workload, "Evicted"):  # the suspension follows moments later
        return _waiting(trainjob, workload)
    return _placed(trainjob, workload, pods, nodes)


def _waiting(trainjob: Object, workload: Object | None) -> Observation:
    queue = (workload or {}).get("spec", {}).get("queueName") or ""
    created = unix_time(trainjob["metadata"].get("creationTimestamp"))
    if workload is None:
        return Observation("queued", "suspended; Kueue has not created its Workload yet", created)
    evicted = condition(workload, "Evicted")
    why = _why_waiting(workload)
    if evicted is not None and evicted.get("status") == "True":
        said = _short(evicted)
        more = f"; {why}" if why and said not in why else ""
        return Observation(
            "preempted",
            one_line(f"{evicted.get('reason')}: {said}{more}"),
            unix_time(evicted.get("lastTransitionTime")),
        )
    previous = unix_time(evicted.get("lastTransitionTime")) if evicted is not None else None
    return Observation("queued", one_line(f"in queue {queue}{f': {why}' if why else ''}"), previous or created)


def _why_waiting(workload: Object) -> str:
    """Kueue's reason and message why it has not reserved quota, or not admitted the job, yet."""
    for kind in ("QuotaReserved", "Admitted"):
        found = condition(workload, kind)
        if found is not None and found.get("status") != "True":
            return f"{found.get('reason')}: {_short(found)}"
    return ""


def _short(found: Object) -> str:
    """A condition's message without the queue paths that Kueue appends."""
    return str(found.get("message")).partition("; preemptor path:")[0]


def _placed(trainjob: Object, workload: Object | None, pods: Sequence[Object], nodes: int) -> Observation:
    """The state of a job that is not suspended: how far its pods are.

    Of 4 pods: 2 with a node and 2 made later: `admitted`; all pulling: `pulling`; 3 ready: `starting`, `3 of 4 pods
    ready`; 3 ready and 1 ended: `running`, `3 of 4 pods run`, or `resumed` after an eviction.
    """
    resumed = condition(trainjob, "Suspended") or {}
    since = unix_time(resumed.get("lastTransitionTime")) if resumed.get("status") == "False" else None
    present = [pod for pod in pods if not is_being_deleted(pod)]
    done = sum(is_over(pod) or bool(terminated(pod)) for pod in present)
    ready = sum(is_ready(pod) for pod in present)
    if present and done + ready >= nodes:
        return _running(workload, ready, done, nodes, since)
    stuck = _stuck(present, nodes)
    if stuck is not None:
        return stuck
    if any(phase_of(pod) in ("Running", "Succeeded", "Failed") for pod in present):
        return Observation("starting", f"{done + ready} of {nodes} pods ready", since)
    where = _flavors(workload)
    return Observation("admitted", f"admitted{f' to {where}' if where else ''}; {len(present)} of {nodes} pods created")


def _running(workload: Object | None, ready: int, done: int, nodes: int, since: float | None) -> Observation:
    text = f"{ready} of {nodes} pods run" if ready else f"{done} of {nodes} pods have ended"
    before = condition(workload, "Evicted")
    if before is None:
        return Observation("running", text, since)
    # Kueue keeps the condition with status False after it has admitted the workload again.
    return Observation("resumed", one_line(f"{text}; {_short(before)}"), since)


def _stuck(pods: Sequence[Object], nodes: int) -> Observation | None:
    """The first thing that prevents pods from starting: a node, an image, a container."""
    unplaced = [pod for pod in pods if (condition(pod, "PodScheduled") or {}).get("reason") == "Unschedulable"]
    if unplaced:
        message = (condition(unplaced[0], "PodScheduled") or {}).get("message", "")
        return Observation("admitted", one_line(f"{len(unplaced)} of {nodes} pods find no node: {message}"))
    for pod in pods:
        reason, message = waiting_reason(pod)
        if reason and reason != "ContainerCreating":
            text = f"image {image_of(pod)}: {reason}" if "Image" in reason else reason
            return Observation("pulling", one_line(f"{text}{f': {message}' if message else ''}"))
    creating = sum(waiting_reason(pod)[0] == "ContainerCreating" for pod in pods)
    if creating:
        return Observation("pulling", f"{creating} of {nodes} pods wait for image and volumes ({image_of(pods[0])})")
    return None


def _flavors(workload: Object | None) -> str:
    """Flavours that Kueue assigned."""
    admission = ((workload or {}).get("status") or {}).get("admission") or {}
    names = {
        flavor
        for one in admission.get("podSetAssignments") or ()
        for flavor in (one.get("flavors") or {}).values()
    }  # fmt: skip
    return ", ".join(sorted(names))
