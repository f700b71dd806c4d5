"""How long a launch has waited and run, and how long a trouble has lasted."""

import time
from dataclasses import dataclass, field

from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.trainjob.state import RUNNING, WAITING, Observation


@dataclass(slots=True)
class Durations:
    """Times of one attempt. Waiting is measured anew after each preemption; running adds up over all resumes."""

    limits: LaunchLimits
    queued_seconds: float = 0.0
    running_seconds: float = 0.0
    _phase: str = ""
    _span_began: float = 0.0
    _looked_at: float = 0.0
    _troubles: dict[str, float] = field(default_factory=dict)

    def look(self, observation: Observation, now: float) -> None:
        """Add the time since the last look to the phase that held."""
        passed = now - self._looked_at if self._looked_at else 0.0
        if self._phase == "waiting":
            self.queued_seconds += passed
        elif self._phase == "running":
            self.running_seconds += passed
        phase = phase_of(observation.state)
        if phase != self._phase:
            is_first = not self._phase
            self._span_began = now
            if observation.since is not None and is_first:  # an adopted job was there before this launcher
                self._span_began = min(now, observation.since)
                if phase == "running":
                    self.running_seconds += now - self._span_began
            self._phase = phase
        self._looked_at = now

    def waited(self, now: float) -> float:
        """Seconds of the present span without quota; 0 while there is one."""
        return now - self._span_began if self._phase == "waiting" else 0.0

    def lasting(self, trouble: AttemptFailure | None, now: float) -> AttemptFailure | None:
        """The trouble if it has lasted for as long as it must to count."""
        if trouble is None:
            self._troubles.clear()
            return None
        since = self._troubles.setdefault(trouble.cause.name, now)
        patience = getattr(self.limits, trouble.cause.patience) if trouble.cause.patience else 0.0
        return trouble if now - since >= patience else None


def phase_of(state: str) -> str:
    """waiting, running, or nothing that is limited as a whole."""
    if state in WAITING:
        return "waiting"
    return "running" if state in RUNNING else "between"


def now() -> float:
    """Unix time: the cluster's own timestamps are of that kind."""
    return time.time()
