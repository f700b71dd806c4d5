"""What is left of runs on the cluster: listed, cancelled, cleared away. Trainer has no time to live of its own yet."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from vl3.launch.trainjob.client import Client
from vl3.launch.trainjob.connection import connect
from vl3.launch.trainjob.limits import LaunchLimits
from vl3.launch.trainjob.names import RUN_ID_ANNOTATION, STAGE_LABEL, selector
from vl3.launch.trainjob.objects import (
    Object,
    annotations_of,
    condition,
    is_being_deleted,
    is_true,
    labels_of,
    name_of,
    unix_time,
)
from vl3.launch.trainjob.patience import LostTouchError, patiently
from vl3.launch.trainjob.removal import remove
from vl3.launch.trainjob.resources import TRAINJOBS

log = logging.getLogger("vl3.launch")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A TrainJob of ours."""

    name: str
    """Name of the TrainJob."""
    run_id: str
    """The workflow run."""
    stage: str
    """The stage."""
    state: str
    """suspended, active, complete, failed or deleted."""
    created_at: str
    """Time of its creation."""


def jobs_of_run(run_id: str, *, client: Client | None = None) -> list[JobSummary]:
    """The TrainJobs of a run that are on the cluster, by name.

    Raises:
        Vl3Error: the cluster cannot be asked.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    return [_summary(job) for job in _answered(lambda: _find(api, limits, run_id))]


def cancel_run(run_id: str, *, client: Client | None = None) -> list[str]:
    """Delete all TrainJobs of a run, wait until their pods are gone; returns the names.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    return _answered(lambda: _remove_all(api, limits, _find(api, limits, run_id)))


def collect_run(run_id: str, *, client: Client | None = None) -> list[str]:
    """Clear away what a run that has ended left on the cluster; returns the names of the TrainJobs.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    return cancel_run(run_id, client=client)


def collect(older_than_seconds: float, *, client: Client | None = None) -> list[str]:
    """Delete the TrainJobs of any run that ended longer ago; returns their names.

    The safety net for runs whose exit handler did not come to its end. Never a JobSet alone: Trainer would make it
    again and run a failed job anew.

    Raises:
        ClusterError: something is left, or the API server does not answer.
    """
    api, limits = client or Client(connect()), LaunchLimits()
    old = [job for job in _answered(lambda: _find(api, limits, None)) if _ended_before(job, older_than_seconds)]
    return _answered(lambda: _remove_all(api, limits, old))


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


def _summary(job: Object) -> JobSummary:
    if is_being_deleted(job):
        state = "deleted"
    elif is_true(job, "Complete"):
        state = "complete"
    elif is_true(job, "Failed"):
        state = "failed"
    else:
        state = "suspended" if job["spec"].get("suspend") else "active"
    return JobSummary(
        name=name_of(job),
        run_id=annotations_of(job).get(RUN_ID_ANNOTATION, ""),
        stage=labels_of(job).get(STAGE_LABEL, ""),
        state=state,
        created_at=str(job["metadata"].get("creationTimestamp", "")),
    )


def _answered(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except LostTouchError as error:
        raise error.error from error
