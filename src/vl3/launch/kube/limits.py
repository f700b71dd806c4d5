"""The launcher's timeouts, and the pauses between its requests."""

from dataclasses import dataclass

from vl3.system.retry import Pauses

_PAUSES = Pauses(first_seconds=0.5, longest_seconds=10.0)
_LOG_PAUSES = Pauses(first_seconds=1.0, longest_seconds=120.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchLimits:
    """Timeouts of the launcher, apart from those that a placement and a stage set."""

    api_outage_seconds: float = 600.0
    """Time without any answer of the API server after which the launch fails; the TrainJob keeps running."""
    settling_seconds: float = 120.0
    """Time after an outage in which a refusal of the API server is retried: it loads rights and CRDs late."""
    image_pull_seconds: float = 1800.0
    """Time that a pod may take to get its image; a kubelet tells nothing of a pull's progress."""
    image_certain_seconds: float = 30.0
    """Time that a registry must keep reporting that an image does not exist or is denied before that counts."""
    container_config_seconds: float = 20.0
    """Time that a container must be impossible to create before that counts: a Secret may be created later."""
    quota_certain_seconds: float = 10.0
    """Time that Kueue must keep reporting that a quota or a queue can never fit before that counts."""
    lost_node_seconds: float = 150.0
    """Time that a pod may take to end after the platform deleted it; longer than its grace, so its node is dead."""
    replaced_pod_seconds: float = 15.0
    """Time that a job may seem to run after it lost one of several pods; then the attempt has failed."""
    unschedulable_seconds: float = 900.0
    """Time that admitted pods may find no node: one may be starting."""
    cancel_seconds: float = 60.0
    """Time within which pods must be gone after their job is deleted."""
    cancel_grace_seconds: int = 6
    """Grace period of pods on a cancel: one more checkpoint is of no use soon, and the GPUs are wanted."""
    replace_seconds: float = 240.0
    """Time within which the pods of a failed attempt must be gone before the next one starts."""
    watch_seconds: float = 300.0
    """Duration of one watch request; the server ends it and the next one continues from there."""
    pauses: Pauses = _PAUSES
    """Back-off between failed requests."""
    log_pauses: Pauses = _LOG_PAUSES
    """Back-off while a log has nothing new or cannot be read."""
    log_drain_seconds: float = 3.0
    """Time for the last lines of a log after the job has ended."""
    say_seconds: float = 2.0
    """Minimum time between two log lines about the same state."""
    place_seconds: float = 60.0
    """Time between two requests for the position in the queue."""
    resize_seconds: float = 120.0
    """Time that a job may wait for quota before one of fewer nodes takes its place, where its placement allows it."""
    log_tail_lines: int = 20
    """Last lines of each rank that are shown after a failure."""
    log_tail_pods: int = 8
    """Pods whose last lines are shown; those that failed first."""
