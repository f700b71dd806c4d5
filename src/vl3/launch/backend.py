"""The choice of how a stage's processes are started."""

from collections.abc import Callable
from typing import Any

from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.local import launch_local

OnEvent = Callable[[dict[str, Any]], None]
"""Gets each event of the stage, and each change of its state as `{"type": "state", ...}`, in the launching thread."""


def launch(job: LaunchJob, on_event: OnEvent) -> LaunchResult:
    """Run a stage to its end on the backend that the job names.

    However this call ends (return, error, KeyboardInterrupt, SystemExit raised by a signal handler), nothing of the
    job is left running.

    Raises:
        Vl3Error: the job failed; the family says who has to act.
    """
    if job.backend == "local":
        return launch_local(job, on_event)
    from vl3.launch.trainjob.run import launch_trainjob  # the cluster's client is not loaded for local processes

    return launch_trainjob(job, on_event)
