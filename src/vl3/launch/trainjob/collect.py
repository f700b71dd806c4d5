"""What is left of runs on the cluster: cancelled, cleared away. Trainer has no time to live of its own yet."""

import logging
import time

from vl3.launch.trainjob.client import Client
from vl3.launch.trainjob.connection import connect
from vl3.launch.trainjob.limits import LaunchLimits
from vl3.launch.trainjob.names import selector
from vl3.launch.trainjob.objects import Object, condition, is_true, name_of, unix_time
from vl3.launch.trainjob.patience import answered, patiently
from vl3.launch.trainjob.removal import remove
from vl3.launch.trainjob.resources import TRAINJOBS

log = logging.getLogger("vl3.launch")


def cancel_run(run_id: str, *, client: Client | None = None) -> list[str]:
    """Delete all TrainJobs of a run, wait until their pods are gone; returns the names.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    return answered(lambda: _remove_all(api, limits, _find(api, limits, run_id)))


def collect_run(run_id: str, *, client: Client | None = None) -> list[str]:
    """Clear away what a run that has ended left on the cluster; returns the names of the TrainJobs.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    return cancel_run(run_id, client=client)


def collect(
    older_than_seconds: float, *, run_id: str | None = None, is_rehearsal: bool = False, client: Client | None = None
) -> list[str]:
    """Delete the TrainJobs of any run that ended longer ago; returns their names.

    The safety net for runs whose exit handler did not come to its end. Never a JobSet alone: Trainer would make it
    again and run a failed job anew.

    Args:
        older_than_seconds: time since a job's end.
        run_id: only jobs of this run; None for all runs.
        is_rehearsal: only name what would be deleted.
        client: user of the API server; None connects.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    old = [job for job in answered(lambda: _find(api, limits, run_id)) if _ended_before(job, older_than_seconds)]
    if is_rehearsal:
        return [name_of(job) for job in old]
    return answered(lambda: _remove_all(api, limits, old))


def _find(client: Client, limits: LaunchLimits, run_id: str | None) -> list[Object]:
    answer = patiently(lambda: client.list(TRAINJOBS, labelSelector=selector(run_id)), client, limits)
    return sorted(answer.get("items") or (), key=name_of)


def _remove_all(client: Client, limits: LaunchLimits, jobs: list[Object]) -> list[str]:
    for job in jobs:
        log.info("%s", remove(client, job, limits))
    return [name_of(job) for job in jobs]


def _ended_before(job: Object, seconds: float) -> bool:
    ends = [condition(job, kind) or {} for kind in ("Complete", "Failed") if is_true(job, kind)]
    ended_at = unix_time(ends[0].get("lastTransitionTime")) if ends else None
    return ended_at is not None and time.time() - ended_at >= seconds
