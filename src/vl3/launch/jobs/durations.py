"""How long an attempt has waited and run, and how long a problem has lasted."""

import time
from dataclasses import dataclass, field

from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.jobs.state import RUNNING, WAITING, Observation
from vl3.launch.kube.limits import LaunchLimits


@dataclass(slots=True)
class Durations:
    """Times of one attempt. Each preemption starts a new wait; running time adds up over all resumes.

    States seen at 0 queued, 40 running, 100 preempted, 130 resumed, 200 complete, in seconds:

        queued_seconds  = 40 + 30 = 70      waited(120) = 20, which queue_timeout_seconds limits
        running_seconds = 60 + 70 = 130     which timeout_seconds limits where one is set
    """

    limits: LaunchLimits
    queued_seconds: float = 0.0
    running_seconds: float = 0.0
    _phase: str = ""
    _span_began: float = 0.0
    _looked_at: float = 0.0
    _troubles: dict[str, float] = field(default_factory=dict)

    def look(self, observation: Observation, now: float) -> None:
        """Add the time since the last call to the phase that was seen then."""
        passed = now - self._looked_at if self._looked_at else 0.0
        if self._phase == "waiting":
            self.queued_seconds += passed
        elif self._phase == "running":
            self.running_seconds += passed
        phase = phase_of(observation.state)
        if phase != self._phase:
            is_first = not self._phase
            self._span_began = now
            if observation.since is not None and is_first:  # an adopted job is older than this launcher
                self._span_began = min(now, observation.since)
                if phase == "running":
                    self.running_seconds += now - self._span_began
            self._phase = phase
        self._looked_at = now

    def waited(self, now: float) -> float:
        """Seconds that the job has now waited for quota; 0 while it has quota."""
        return now - self._span_began if self._phase == "waiting" else 0.0

    def lasting(self, trouble: AttemptFailure | None, now: float) -> AttemptFailure | None:
        """The problem if it has lasted longer than its cause allows, otherwise None."""
        if trouble is None:
            self._troubles.clear()
            return None
        since = self._troubles.setdefault(trouble.cause.name, now)
        patience = getattr(self.limits, trouble.cause.patience) if trouble.cause.patience else 0.0
        return trouble if now - since >= patience else None


def phase_of(state: str) -> str:
    """`waiting` and `running` have a time limit; `between` has none as a whole."""
    if state in WAITING:
        return "waiting"
    return "running" if state in RUNNING else "between"


def now() -> float:
    """Unix time, to compare with the cluster's own timestamps."""
    return time.time()
