"""Deleting a TrainJob so that nothing of it runs on, and knowing when that is so."""

import dataclasses
import logging
import time
from dataclasses import dataclass

from vl3.errors import ClusterError, ConfigError
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, is_over, is_unreachable, name_of, node_of, uid_of
from vl3.launch.kube.outages import LostTouchError, until_answered
from vl3.launch.kube.resources import PODS, TRAINJOBS
from vl3.launch.trainjob.names import pod_selector

log = logging.getLogger("vl3.launch")

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Removal:
    """What a deletion did."""

    name: str
    """The TrainJob."""
    seconds: float
    """Time until none of them used anything any more."""

    def __str__(self) -> str:
        """One line for a log."""
        return f"TrainJob {self.name} is deleted, none of its pods runs, its GPUs are free (after {self.seconds:.1f} s)"


def remove(client: Client, trainjob: Object, limits: LaunchLimits) -> Removal:
    """Delete a TrainJob and wait until its pods are gone.

    The TrainJob goes first and at once: Trainer would make a JobSet again that is deleted while its TrainJob still
    stands, as in a foreground deletion. The garbage collector then takes JobSet, Job and pods; the pods' grace is
    shortened, because nobody will use a further checkpoint at once.

    Raises:
        ClusterError: pods are left after limits.cancel_seconds.
        LostTouchError: the API server does not answer.
    """
    limits = dataclasses.replace(limits, api_outage_seconds=limits.cancel_seconds)
    name, started = name_of(trainjob), time.monotonic()
    selector = pod_selector(name)
    delete_job(client, name, uid_of(trainjob), limits)  # before all else: there may be no time for more
    if running_pods(client, selector, limits):
        _shorten_grace(client, selector, limits)
    wait_until_gone(client, selector, limits, seconds=limits.cancel_seconds, what=f"TrainJob {name} is deleted")
    return Removal(name, time.monotonic() - started)


def delete_job(client: Client, name: str, uid: str, limits: LaunchLimits) -> bool:
    """Delete one very TrainJob; whether it was still there."""
    try:
        until_answered(lambda: client.delete(TRAINJOBS, name, uid=uid), client, limits)
    except ApiError as error:
        if error.status in (404, 409):  # gone, or another one has the name now
            return False
        raise ClusterError(f"TrainJob {name} cannot be deleted: {error.message}. Delete it by kubectl.") from error
    return True


def running_pods(client: Client, selector: str, limits: LaunchLimits) -> list[Object]:
    """Pods of a selector whose containers have not ended, without those on lost nodes, which nobody can end."""
    answer = until_answered(lambda: client.list(PODS, labelSelector=selector), client, limits)
    return [pod for pod in answer.get("items") or () if not is_over(pod) and not is_unreachable(pod, time.time())]


def wait_until_gone(client: Client, selector: str, limits: LaunchLimits, *, seconds: float, what: str) -> None:
    """Wait until no pod of a selector runs any more.

    Raises:
        ClusterError: some still do at the end of the time.
    """
    deadline = time.monotonic() + seconds
    while left := running_pods(client, selector, limits):
        if time.monotonic() >= deadline:
            names = ", ".join(f"{name_of(pod)} on {node_of(pod) or 'no node'}" for pod in left[:5])
            raise ClusterError(
                f"{what}, yet after {seconds:.0f} s {len(left)} of its pods have not ended ({names}). Their GPUs are "
                "not free. If the node is lost, delete the Node object; else `kubectl delete pod --force` them."
            )
        time.sleep(_POLL_SECONDS)


def _shorten_grace(client: Client, selector: str, limits: LaunchLimits) -> None:
    """Let pods that are on their way out go soon; without the right to it they take the runtime's whole grace."""
    try:
        until_answered(
            lambda: client.delete_all(PODS, grace_seconds=limits.cancel_grace_seconds, labelSelector=selector),
            client,
            limits,
        )
    except (ApiError, ConfigError, LostTouchError) as error:
        log.warning("the pods take their whole grace period: %s", error)
