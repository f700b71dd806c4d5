"""How long the launcher waits for what, and how it spaces its requests."""

from dataclasses import dataclass

from vl3.system.retry import Pauses

_PAUSES = Pauses(first_seconds=0.5, longest_seconds=10.0)
_LOG_PAUSES = Pauses(first_seconds=1.0, longest_seconds=120.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchLimits:
    """Patience of the launcher, apart from what a placement and a stage set."""

    api_outage_seconds: float = 600.0
    """Time without any answer of the API server after which the launch fails; the TrainJob goes on."""
    settling_seconds: float = 120.0
    """Time after an outage for which a refusal of the API server is not believed: its rights and CRDs load late."""
    image_pull_seconds: float = 1800.0
    """Time that a pod may take to get its image."""
    image_certain_seconds: float = 30.0
    """Time for which a registry must keep saying that an image does not exist or is denied."""
    container_config_seconds: float = 20.0
    """Time for which a container must be impossible to make: a Secret may be on its way."""
    quota_certain_seconds: float = 10.0
    """Time for which Kueue must keep saying that a quota or a queue can never serve."""
    lost_node_seconds: float = 150.0
    """Time for which a pod that the platform ends must not have ended: longer than its grace, so its node is dead."""
    replaced_pod_seconds: float = 15.0
    """Time for which a job may seem to go on after it lost one of several pods; then the attempt has failed."""
    unschedulable_seconds: float = 900.0
    """Time that admitted pods may find no node: one may be on its way up."""
    cancel_seconds: float = 60.0
    """Time within which pods must be gone after their job is deleted."""
    cancel_grace_seconds: int = 6
    """Grace of pods on a cancel: nobody will use a further checkpoint at once, and the GPUs are wanted."""
    replace_seconds: float = 240.0
    """Time within which the pods of a failed attempt must be gone before the next one begins."""
    watch_seconds: float = 300.0
    """Life of one watch request; the server ends it and the next goes on from there."""
    pauses: Pauses = _PAUSES
    """Between failed requests."""
    log_pauses: Pauses = _LOG_PAUSES
    """Between looks at a log that has nothing new or cannot be read."""
    log_drain_seconds: float = 3.0
    """Time for the last lines of a log after the job has ended."""
    say_seconds: float = 2.0
    """Shortest time between two lines about the same state."""
    place_seconds: float = 60.0
    """Time between two looks at the place in the queue."""
    log_tail_lines: int = 20
    """Last lines of each rank that are shown after a failure."""
    log_tail_pods: int = 8
    """Pods whose last lines are shown; those that failed first."""
