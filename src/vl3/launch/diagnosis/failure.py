"""What is wrong with an attempt, derived from its objects by pure functions."""

import json
import re
from collections.abc import Sequence

from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import AttemptFailure, Cause
from vl3.launch.kube.objects import (
    Object,
    condition,
    container_status,
    image_of,
    is_being_deleted,
    is_over,
    is_true,
    kind_of,
    name_of,
    node_of,
    one_line,
    phase_of,
    rank_of,
    terminated,
    unix_time,
    waiting_reason,
)

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_NO_SUCH_IMAGE = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|forbidden|InvalidImageName|invalid reference|"
    r"is not present with pull policy of Never|couldn't parse image",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection (refused|reset)|TLS handshake|deadline exceeded|EOF|\b50[0234]\b|"
    r"too many requests|\b429\b|no route to host|network is unreachable",
    re.IGNORECASE,
)
_NEVER_FITS = re.compile(r"maximum capacity|no flavors? .*(exist|found)|is not covered|unavailable in ClusterQueue")
_MOST_TELLING = (
    causes.NODE_LOST,
    causes.EVICTED,
    causes.OUT_OF_MEMORY,
    causes.SHM_FULL,
    causes.CANNOT_START,
    causes.CONFIG,
    causes.DATA,
    causes.STORAGE,
    causes.CLUSTER,
    causes.CRASH,
    causes.STOPPED,
)
"""The most likely root cause first: a lost node or a kill is never a consequence of another pod's failure; a crash may
be a peer's broken connection, and a stop was requested."""


def find_trouble(
    trainjob: Object | None, workload: Object | None, pods: Sequence[Object], lost: Sequence[Object] = ()
) -> AttemptFailure | None:
    """A problem that blocks an attempt and may not resolve itself; it counts if it lasts (Cause.patience).

    Args:
        trainjob: the TrainJob.
        workload: its Workload of Kueue.
        pods: its pods.
        lost: pods that disappeared since the job was admitted, as last seen.
    """
    if trainjob is None or is_being_deleted(trainjob) or is_true(trainjob, "Failed") or is_true(trainjob, "Complete"):
        return None
    if trainjob["spec"].get("suspend"):
        return _queue_trouble(trainjob, workload)
    for pod in pods:
        disruption = None if is_over(pod) or not is_being_deleted(pod) else _disruption(pod)
        if disruption is not None and disruption[0] is causes.NODE_LOST:
            return AttemptFailure(causes.NODE_SILENT, f"{disruption[1]} and does not end", name_of(pod))
    if int(trainjob["spec"].get("trainer", {}).get("numNodes") or 1) > 1:
        for pod in lost:
            if not is_over(pod):  # the others wait for it, and its replacement waits for them: a deadlock
                text = f"pod {name_of(pod)} (node rank {rank_of(pod)}) was deleted while the job ran"
                return AttemptFailure(causes.POD_REPLACED, text, name_of(pod))
    present = [pod for pod in pods if not is_being_deleted(pod)]
    if not present:
        return AttemptFailure(causes.NO_PODS, f"{_named(trainjob)} was admitted and has no pods")
    for find in (_unschedulable, _image_trouble, _container_trouble):
        trouble = find(present)
        if trouble is not None:
            return trouble
    return None


def classify(trainjob: Object, pods: Sequence[Object]) -> AttemptFailure:
    """Why a TrainJob has failed: the most telling cause of all pods, among equal ones the earliest.

    Rank 0 crashed at 12:00:07 because rank 3 was OOMKilled at 12:00:05: out_of_memory of rank 3. Ranks 1 and 2 crashed
    at 12:00:04 and 12:00:03: crash of rank 2.

    Args:
        trainjob: the failed TrainJob.
        pods: its pods as last seen, including those that have disappeared.
    """
    failed = condition(trainjob, "Failed") or {}
    message = one_line(f"{failed.get('reason', '')}: {failed.get('message', '')}")
    if failed.get("reason") == "DeadlineExceeded":
        return AttemptFailure(causes.DEADLINE, f"{_named(trainjob)} exceeded its activeDeadlineSeconds")
    if failed.get("reason") == "TrainingRuntimeNotSupported":
        return AttemptFailure(causes.UNSUPPORTED, f"{_named(trainjob)}: {message}")
    found = [failure for pod in pods if (failure := _of_pod(pod)) is not None]
    if not found:
        text = f"{_named(trainjob)} failed ({message}) and its pods were deleted before their status was read"
        return AttemptFailure(causes.VANISHED, text)
    return min(found, key=lambda one: (_MOST_TELLING.index(one[0].cause), one[1]))[0]


def _named(job: Object) -> str:
    return f"{kind_of(job)} {name_of(job)}"


def _queue_trouble(trainjob: Object, workload: Object | None) -> AttemptFailure | None:
    reserved = condition(workload, "QuotaReserved")
    if reserved is None or reserved.get("status") == "True":
        return None
    message = one_line(str(reserved.get("message")))
    queue = (workload or {}).get("spec", {}).get("queueName")
    if reserved.get("reason") == "Inadmissible" and re.search(r"LocalQueue .* doesn't exist", message):
        return AttemptFailure(causes.QUEUE_MISSING, f"{_named(trainjob)} cannot be queued: {message}")
    if _NEVER_FITS.search(message):
        text = f"{_named(trainjob)} requests more from queue {queue} than its quota can ever give: {message}"
        return AttemptFailure(causes.QUOTA_NEVER, text)
    return None


def _unschedulable(pods: Sequence[Object]) -> AttemptFailure | None:
    for pod in pods:
        found = condition(pod, "PodScheduled") or {}
        if found.get("status") == "False" and found.get("reason") == "Unschedulable":
            text = f"pod {name_of(pod)} was admitted and finds no node: {one_line(str(found.get('message')))}"
            return AttemptFailure(causes.UNSCHEDULABLE, text, name_of(pod))
    return None


def _image_trouble(pods: Sequence[Object]) -> AttemptFailure | None:
    """A problem with an image; a missing image is reported before a slow pull."""
    slow: AttemptFailure | None = None
    for pod in pods:
        reason, message = waiting_reason(pod)
        where = f"pod {name_of(pod)} on node {node_of(pod) or '?'}"
        if reason in _IMAGE_REASONS:
            text = f"{where} cannot get image {image_of(pod)} ({reason}: {one_line(message)})"
            return AttemptFailure(_image_cause(reason, message), text, name_of(pod))
        if reason == "ContainerCreating" and slow is None:
            text = f"{where} is still waiting for its image {image_of(pod)} and volumes"
            slow = AttemptFailure(causes.IMAGE_SLOW, text, name_of(pod))
        if slow is None and node_of(pod) and not is_over(pod) and not container_status(pod):
            slow = AttemptFailure(causes.IMAGE_SLOW, f"{where} got no status from that node's kubelet", name_of(pod))
    return slow


def _image_cause(reason: str, message: str) -> Cause:
    if reason in ("InvalidImageName", "ErrImageNeverPull"):
        return causes.IMAGE_MISSING
    if _NO_SUCH_IMAGE.search(message) and not _UNREACHABLE.search(message):
        return causes.IMAGE_MISSING
    return causes.IMAGE_UNREACHABLE


def _container_trouble(pods: Sequence[Object]) -> AttemptFailure | None:
    for pod in pods:
        reason, message = waiting_reason(pod)
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            text = f"pod {name_of(pod)}: its container cannot be created ({reason}: {one_line(message)})"
            return AttemptFailure(causes.BAD_CONTAINER, text, name_of(pod))
    return None


def _of_pod(pod: Object) -> tuple[AttemptFailure, tuple[float, int]] | None:
    """What ended a pod, with (end time, rank) as the order; None if it did not fail."""
    end = terminated(pod)
    disruption = _disruption(pod)
    order = (unix_time(end.get("finishedAt")) or float("inf"), rank_of(pod))
    if disruption is not None:
        return AttemptFailure(*disruption, name_of(pod)), order
    if not is_over(pod) or phase_of(pod) == "Succeeded":
        return None
    where = f"pod {name_of(pod)} (node rank {rank_of(pod)}, on {node_of(pod) or 'no node'})"
    status = pod.get("status") or {}
    if not end:
        said = one_line(f"{status.get('reason', '')}: {status.get('message', '')}")
        return AttemptFailure(causes.EVICTED, f"{where} was refused or ended by its node ({said})", name_of(pod)), order
    cause, text = _of_container(end)
    return AttemptFailure(cause, f"{where} {text}", name_of(pod)), order


def _disruption(pod: Object) -> tuple[Cause, str] | None:
    """Cause and text if the platform, not the training, ended a pod."""
    where = f"pod {name_of(pod)} on node {node_of(pod) or '?'}"
    status = pod.get("status") or {}
    found = condition(pod, "DisruptionTarget") or {}
    said = one_line(f"{found.get('reason')}: {found.get('message')}")
    if found.get("status") == "True":
        is_lost = found.get("reason") in ("DeletionByTaintManager", "DeletionByPodGC")
        return (causes.NODE_LOST if is_lost else causes.EVICTED), f"{where} was ended by the platform ({said})"
    message = one_line(str(status.get("message") or ""))
    if status.get("reason") == "Evicted":
        is_volume = "EmptyDir volume" in message or "ephemeral local storage" in message
        return (causes.SHM_FULL if is_volume else causes.EVICTED), f"{where} was evicted by its node ({message})"
    if status.get("reason") in ("NodeLost", "NodeShutdown", "Shutdown", "Terminated"):
        return causes.NODE_LOST, f"{where} ended with its node ({status['reason']}: {message})"
    return None


def _of_container(end: Object) -> tuple[Cause, str]:
    code = int(end.get("exitCode") or 0)
    recorded = _recorded(str(end.get("message") or ""))
    if end.get("reason") == "OOMKilled":
        return causes.OUT_OF_MEMORY, "was killed because it ran out of memory (OOMKilled)"
    if end.get("reason") in ("StartError", "ContainerCannotRun"):
        return causes.CANNOT_START, f"could not be started ({end['reason']}: {one_line(str(end.get('message')))})"
    if recorded is not None:
        family, message = recorded
        # An unexpected end (1) and a kill (137) are recorded as ClusterError, too.
        is_crash = family == "ClusterError" and causes.OF_EXIT_CODE.get(code) is not causes.CLUSTER
        return (causes.CRASH if is_crash else causes.OF_FAMILY[family]), f"ended with exit code {code}: {message}"
    if code in causes.OF_EXIT_CODE:
        return causes.OF_EXIT_CODE[code], f"ended with exit code {code}"
    if code == 137:  # the kubelet has set the reason OOMKilled if the kernel's killer of the pod's cgroup did it
        said = "; who sent it is not known: the kubelet reports no OOMKilled"
        return causes.CRASH, f"ended with exit code {code} (signal 9{said})"
    signal = f" (signal {code - 128})" if 128 < code < 160 else ""
    return causes.CRASH, f"ended with exit code {code}{signal}"


def _recorded(message: str) -> tuple[str, str] | None:
    """Family and message that the training wrote as its termination message; None if there is none."""
    try:
        data = json.loads(message)
        return (data["family"], str(data["message"])) if data["family"] in causes.OF_FAMILY else None
    except (ValueError, KeyError, TypeError):
        return None
