"""Runs a stage as TrainJobs."""

from collections.abc import Callable
from typing import Any

from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.jobs.run import launch_job
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.trainjob.kind import TRAINJOB


def launch_trainjob(
    job: LaunchJob,
    on_event: Callable[[dict[str, Any]], None],
    *,
    limits: LaunchLimits | None = None,
    client: Client | None = None,
) -> LaunchResult:
    """Run a stage as TrainJobs until one is complete; see launch_job."""
    return launch_job(job, TRAINJOB, on_event, limits=limits, client=client)
