"""Cancels runs and deletes what they left on the cluster; Trainer itself has no TTL for its jobs yet."""

import logging
import time

from vl3.launch.jobs.kinds import JobKind
from vl3.launch.jobs.names import LAUNCHER_ANNOTATION, selector
from vl3.launch.jobs.removal import remove
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.connection import connect
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, annotations_of, condition, is_over, is_true, name_of, unix_time
from vl3.launch.kube.outages import NoSuchApiError, outage_as_error, until_answered
from vl3.launch.kube.resources import PODS
from vl3.launch.rayjob.kind import RAYJOB
from vl3.launch.trainjob.kind import TRAINJOB

log = logging.getLogger("vl3.launch")

KINDS = (TRAINJOB, RAYJOB)
ORPHAN_SECONDS = 900.0
"""Time after a launcher's end in which a retry of its step may adopt its job."""


def cancel_run(run_id: str, *, client: Client | None = None) -> list[str]:
    """Delete all jobs of a run and wait until their pods are gone; returns the names.

    Raises:
        ClusterError: pods are left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    return outage_as_error(lambda: _remove_all(api, limits, _find(api, limits, run_id)))


def collect(
    older_than_seconds: float, *, run_id: str | None = None, is_rehearsal: bool = False, client: Client | None = None
) -> list[str]:
    """Delete jobs that ended longer ago, and running ones that no launcher follows; returns their names.

    The safety net for runs whose exit handler did not finish, and for launchers that were killed before they could
    delete their job. It never deletes only a JobSet: Trainer would recreate it and run a failed job again.

    Args:
        older_than_seconds: time since a job's end.
        run_id: only jobs of this run; None for all runs.
        is_rehearsal: only return what would be deleted.
        client: client of the API server; None connects.

    Raises:
        ClusterError: pods are left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    jobs = outage_as_error(lambda: _find(api, limits, run_id))
    old = [one for one in jobs if _ended_before(one[1], older_than_seconds) or _is_orphan(api, limits, one[1])]
    if is_rehearsal:
        return [name_of(job) for _, job in old]
    return outage_as_error(lambda: _remove_all(api, limits, old))


def _find(client: Client, limits: LaunchLimits, run_id: str | None) -> list[tuple[JobKind, Object]]:
    """Our jobs, seen as their kind says."""
    found: list[tuple[JobKind, Object]] = []
    for kind in KINDS:
        found += [(kind, kind.view(job)) for job in _list(client, kind, limits, run_id)]
    return sorted(found, key=lambda one: name_of(one[1]))


def _list(client: Client, kind: JobKind, limits: LaunchLimits, run_id: str | None) -> list[Object]:
    try:
        answer = until_answered(lambda: client.list(kind.resource, labelSelector=selector(run_id)), client, limits)
    except NoSuchApiError:
        if kind is TRAINJOB:
            raise
        return []  # a cluster on which nothing is built by Ray
    return list(answer.get("items") or ())


def _remove_all(client: Client, limits: LaunchLimits, jobs: list[tuple[JobKind, Object]]) -> list[str]:
    for kind, job in jobs:
        log.info("%s", remove(client, kind, job, limits))
    return [name_of(job) for _, job in jobs]


def _is_orphan(client: Client, limits: LaunchLimits, job: Object) -> bool:
    """Whether a job still runs although its launcher's pod has ended, and no retry of the step has adopted it."""
    pod_name = annotations_of(job).get(LAUNCHER_ANNOTATION)
    if not pod_name or is_true(job, "Complete") or is_true(job, "Failed"):
        return False
    try:
        pod = outage_as_error(lambda: until_answered(lambda: client.get(PODS, pod_name), client, limits))
    except ApiError as error:
        if error.status != 404:
            raise
        since = unix_time(job["metadata"].get("creationTimestamp"))
    else:
        if not is_over(pod):
            return False
        since = max(filter(None, map(_container_end, pod["status"].get("containerStatuses") or ())), default=0.0)
    return since is not None and time.time() - since >= ORPHAN_SECONDS


def _container_end(status: Object) -> float | None:
    return unix_time(((status.get("state") or {}).get("terminated") or {}).get("finishedAt"))


def _ended_before(job: Object, seconds: float) -> bool:
    ends = [condition(job, kind) or {} for kind in ("Complete", "Failed") if is_true(job, kind)]
    ended_at = unix_time(ends[0].get("lastTransitionTime")) if ends else None
    return ended_at is not None and time.time() - ended_at >= seconds
