"""Reads Kubernetes objects as the API server sends them: plain dictionaries in which any field may be missing."""

from datetime import datetime
from decimal import Decimal
from typing import Any

Object = dict[str, Any]

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
CONTAINER = "node"
"""Name of the container that trains."""
STEP_CONTAINER = "main"
"""Name of the container in which Argo runs a step, beside helpers of its own."""
_LOST_NODE_SECONDS = 120
"""How long a pod of a lost node may take to end, in case the node comes back."""
TASK_LABEL = "vl3.dev/task"
"""Label of a step's pod with its task's name."""


def name_of(item: Object) -> str:
    """Name of an object."""
    return str(item["metadata"]["name"])


def kind_of(job: Object) -> str:
    """Kind of a job; a list's items do not say it, and are TrainJobs."""
    return str(job.get("kind") or "TrainJob")


def uid_of(item: Object) -> str:
    """Identity of an object, which is never reused."""
    return str(item["metadata"]["uid"])


def annotations_of(item: Object) -> dict[str, str]:
    """Annotations of an object."""
    return item["metadata"].get("annotations") or {}


def labels_of(item: Object) -> dict[str, str]:
    """Labels of an object."""
    return item["metadata"].get("labels") or {}


def is_being_deleted(item: Object) -> bool:
    """Whether the object's deletion was requested."""
    return "deletionTimestamp" in item["metadata"]


def condition(item: Object | None, kind: str) -> Object | None:
    """The condition of a type, whatever its status."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), None)


def is_true(item: Object | None, kind: str) -> bool:
    """Whether a condition of the type is there and true."""
    found = condition(item, kind)
    return found is not None and found.get("status") == "True"


def parse_quantity(text: str | int | float) -> Decimal:
    """The value of a Kubernetes quantity: `500m` is 0.5, `2Gi` is 2147483648. ValueError if it is not a quantity."""
    from kubernetes.utils.quantity import parse_quantity as parse

    value: Decimal = parse(text)
    return value


def unix_time(text: str | None) -> float | None:
    """Unix time of a Kubernetes timestamp."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def phase_of(pod: Object) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_over(pod: Object) -> bool:
    """Whether all containers of a pod have ended, so that it uses no resources any more."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_unreachable(pod: Object, now: float) -> bool:
    """Whether a pod is overdue on a node that the cluster considers lost: its end cannot be confirmed.

    Deleted at 10:00 with a grace period of half an hour, deletionTimestamp is 10:30; nobody is waited for after 10:02.
    """
    due = unix_time(pod["metadata"].get("deletionTimestamp"))
    disruption = condition(pod, "DisruptionTarget") or {}
    if due is None or disruption.get("reason") != "DeletionByTaintManager":
        return False
    grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
    return now > due - grace + min(grace, _LOST_NODE_SECONDS)


def rank_of(pod: Object) -> int:
    """Node rank of a pod: its completion index."""
    index = labels_of(pod).get(COMPLETION_INDEX) or annotations_of(pod).get(COMPLETION_INDEX)
    return int(index) if index and index.isdigit() else 0


def node_of(pod: Object) -> str:
    """Node on which a pod runs; empty before it is scheduled."""
    return str(pod["spec"].get("nodeName") or "")


def container_status(pod: Object) -> Object:
    """Status of the container that trains; empty before there is one."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((one for one in statuses if one.get("name") == CONTAINER), statuses[0] if statuses else {})


def waiting_reason(pod: Object) -> tuple[str, str]:
    """Reason and message of a container that does not run yet."""
    waiting = (container_status(pod).get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason") or ""), str(waiting.get("message") or "")


def terminated(pod: Object) -> Object:
    """How the container ended; empty while it runs."""
    return (container_status(pod).get("state") or {}).get("terminated") or {}


def image_of(pod: Object) -> str:
    """Image of the container that trains."""
    containers = pod["spec"].get("containers") or ()
    chosen = next((one for one in containers if one.get("name") == CONTAINER), containers[0] if containers else {})
    return str(chosen.get("image") or "?")


def running_image(pod: Object) -> str:
    """Digest of the image that trains or runs a step, as the pod's node says: `ghcr.io/vl3/trainer@sha256:...`.

    Empty before it runs. Some runtimes put a scheme in front of it.
    """
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ours: Object = next((one for one in statuses if one.get("name") in (CONTAINER, STEP_CONTAINER)), {})
    return str(ours.get("imageID") or "").rpartition("://")[2]


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and not being deleted."""
    return phase_of(pod) == "Running" and is_true(pod, "Ready") and not is_being_deleted(pod)


def one_line(text: str, limit: int = 400) -> str:
    """A message on one line, shortened to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
