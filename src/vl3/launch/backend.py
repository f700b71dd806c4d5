"""Chooses how a stage's processes are started: here or on a cluster."""

from collections.abc import Callable
from typing import Any

from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.local import launch_local

OnEvent = Callable[[dict[str, Any]], None]
"""Called in the launching thread for each event of the stage, and as `{"type": "state", ...}` for each new state."""


def launch(job: LaunchJob, on_event: OnEvent) -> LaunchResult:
    """Run a stage to its end on the job's backend.

    However this call ends (return, error, KeyboardInterrupt, SystemExit raised by a signal handler), no process of the
    job is left running.

    Raises:
        Vl3Error: the job failed; the family says who has to act.
    """
    if job.backend == "local":
        return launch_local(job, on_event)
    if job.backend == "rayjob":  # do not load the cluster's client for local processes
        from vl3.launch.rayjob.run import launch_rayjob

        return launch_rayjob(job, on_event)
    from vl3.launch.trainjob.run import launch_trainjob

    return launch_trainjob(job, on_event)
