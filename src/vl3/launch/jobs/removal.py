"""Deletes a job and waits until none of its pods runs any more."""

import dataclasses
import logging
import time
from dataclasses import dataclass

from vl3.errors import ClusterError, ConfigError
from vl3.launch.jobs.kinds import JobKind
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, is_over, is_unreachable, name_of, node_of, uid_of
from vl3.launch.kube.outages import LostTouchError, until_answered
from vl3.launch.kube.resources import PODS

log = logging.getLogger("vl3.launch")

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Removal:
    """The result of a deletion."""

    job: str
    """Kind and name of the job."""
    seconds: float
    """Time until all its pods had ended."""

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.job} is deleted; its pods have ended and its GPUs are free after {self.seconds:.1f} s"


def remove(client: Client, kind: JobKind, job: Object, limits: LaunchLimits) -> Removal:
    """Delete a job and wait until its pods are gone.

    The job is deleted first, in the background: Trainer would recreate a JobSet that disappears while its
    TrainJob still exists, as in a foreground deletion. The garbage collector then deletes JobSet, Job and pods. The
    pods' grace period is shortened, because one more checkpoint is of no use soon and the GPUs are wanted.

    Raises:
        ClusterError: pods are left after limits.cancel_seconds.
        LostTouchError: the API server does not answer.
    """
    limits = dataclasses.replace(limits, api_outage_seconds=limits.cancel_seconds)
    name, started = name_of(job), time.monotonic()
    selector = kind.pods_of(name)
    delete_job(client, kind, name, uid_of(job), limits)  # first of all: we may be killed at any moment
    if kind.has_long_grace and running_pods(client, selector, limits):
        _shorten_grace(client, selector, limits)
    wait_until_gone(client, selector, limits, seconds=limits.cancel_seconds, what=f"{kind.name} {name} is deleted")
    return Removal(f"{kind.name} {name}", time.monotonic() - started)


def delete_job(client: Client, kind: JobKind, name: str, uid: str, limits: LaunchLimits) -> bool:
    """Delete the job with this name and uid; returns whether it still existed."""
    try:
        until_answered(lambda: client.delete(kind.resource, name, uid=uid), client, limits)
    except ApiError as error:
        if error.status in (404, 409):  # gone, or another one has the name now
            return False
        raise ClusterError(f"{kind.name} {name} cannot be deleted: {error.message}. Delete it with kubectl.") from error
    return True


def running_pods(client: Client, selector: str, limits: LaunchLimits) -> list[Object]:
    """Pods of a selector whose containers have not ended, except those on lost nodes, which cannot be ended."""
    answer = until_answered(lambda: client.list(PODS, labelSelector=selector), client, limits)
    return [pod for pod in answer.get("items") or () if not is_over(pod) and not is_unreachable(pod, time.time())]


def wait_until_gone(client: Client, selector: str, limits: LaunchLimits, *, seconds: float, what: str) -> None:
    """Wait until no pod of a selector runs any more.

    Raises:
        ClusterError: some still run after the timeout.
    """
    deadline = time.monotonic() + seconds
    while left := running_pods(client, selector, limits):
        if time.monotonic() >= deadline:
            names = ", ".join(f"{name_of(pod)} on {node_of(pod) or 'no node'}" for pod in left[:5])
            raise ClusterError(
                f"{what}, but after {seconds:.0f} s {len(left)} of its pods have not ended ({names}). Their GPUs are "
                "not free. If the node is lost, delete the Node object; otherwise `kubectl delete pod --force` them."
            )
        time.sleep(_POLL_SECONDS)


def _shorten_grace(client: Client, selector: str, limits: LaunchLimits) -> None:
    """Shorten the grace period of the pods; without the right to do so they keep the runtime's."""
    try:
        until_answered(
            lambda: client.delete_all(PODS, grace_seconds=limits.cancel_grace_seconds, labelSelector=selector),
            client,
            limits,
        )
    except (ApiError, ConfigError, LostTouchError) as error:
        log.warning("the pods keep their full grace period: %s", error)
