"""Whether a job has hung: it is stopped for lack of progress, never for its age, unless somebody set a limit."""

import math
from dataclasses import dataclass
from typing import Any

from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch.job import LaunchJob
from vl3.system.pace import Pace


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """Why a stage is stopped."""

    family: type[Vl3Error]
    """ClusterError for a stall, which another attempt may not meet; ConfigError for a limit that somebody set."""
    text: str
    """What was seen."""
    remedy: str
    """What to do, with the override to type."""


class StallWatch:
    """Follows the events of one launch.

    Three phases have a limit each: before the first finished step (`startup_seconds`), between two steps
    (`stall_seconds`, or ten times the slowest step of this launch), and after the last one (`startup_seconds` again).
    """

    def __init__(self, job: LaunchJob, now: float) -> None:
        self._job, self._words = job, job.words
        self._phase = Pace(job.startup_seconds, now)
        self._steps = Pace(job.stall_seconds, now)
        self._began = now
        self._is_training = False
        self._done = self._total = 0

    @property
    def done(self) -> int:
        """Number of finished steps, as far as events told."""
        return self._done

    def restart(self, now: float) -> None:
        """The processes start again, or wait for quota, in which time they cannot make progress."""
        self._phase.restart(now)
        self._is_training = False

    def sign(self, now: float) -> None:
        """The stage is at work, as another source than its events tells."""
        (self._steps if self._is_training else self._phase).restart(now)

    def take(self, event: dict[str, Any], now: float) -> None:
        """Handle an event of the stage."""
        if event.get("type") == "start":
            self.restart(now)
        elif event.get("type") == "progress":
            done, total = event.get("done"), event.get("total")
            if isinstance(done, int) and isinstance(total, int):
                self._progress(done, total, now)

    def overdue(self, now: float, *, running_seconds: float | None = None) -> Overdue | None:
        """Why the stage has to be stopped now; None if it may go on.

        Args:
            now: the clock of every other call.
            running_seconds: how long it has run; None counts from the beginning.
        """
        ran = now - self._began if running_seconds is None else running_seconds
        if self._job.timeout_seconds is not None and ran > self._job.timeout_seconds:
            return self._over_its_limit(self._job.timeout_seconds)
        if self._is_training:
            return self._hung(now) if self._steps.is_stalled(now) else None
        if self._phase.silence_seconds(now) <= self._job.startup_seconds:
            return None
        return self._not_published() if self._total and self._done >= self._total else self._not_started()

    def _progress(self, done: int, total: int, now: float) -> None:
        if self._is_training:
            self._steps.sign(now)
        else:
            self._steps.restart(now)
        self._done, self._total = done, total
        self._is_training = done < total
        self._phase.restart(now)

    def _hung(self, now: float) -> Overdue:
        longest, unit = self._steps.longest_seconds, self._words.unit
        slowest = f", the longest pause before it was {longest:.0f} s" if longest else ""
        text = (
            f"no {unit} was finished for {self._steps.silence_seconds(now):.0f} s ({unit} {self._done} of "
            f"{self._total} was the last{slowest}), so it has hung and was stopped"
        )
        return Overdue(
            family=ClusterError,
            text=text,
            remedy=f"Start the run again: it {self._words.resumes}. If a {unit} may take that long, add "
            f"{self._override('stall_seconds', self._steps.limit_seconds)}.",
        )

    def _not_started(self) -> Overdue:
        return Overdue(
            family=ClusterError,
            text=f"no {self._words.unit} was finished within {self._job.startup_seconds:g} s of its start, so it was "
            "stopped",
            remedy="Read in its log what it waited for, then start the run again. If loading may take that long, add "
            f"{self._override('startup_seconds', self._job.startup_seconds)}.",
        )

    def _not_published(self) -> Overdue:
        return Overdue(
            family=ClusterError,
            text=f"all its {self._total} {self._words.unit}s were done, but {self._words.unfinished} within "
            f"{self._job.startup_seconds:g} s, so it was stopped",
            remedy=f"Check the artifact store, then start the run again: it {self._words.resumes}. If that "
            f"may take that long, add {self._override('startup_seconds', self._job.startup_seconds)}.",
        )

    def _over_its_limit(self, limit_seconds: float) -> Overdue:
        at = f" at {self._words.unit} {self._done} of {self._total}" if self._total else ""
        return Overdue(
            family=ConfigError,
            text=f"it was still running after {limit_seconds:g} s, the limit that "
            f"{self._setting('timeout_seconds')} sets, and was stopped{at}",
            remedy=f"Start the run again, which {self._words.resumes}, with "
            f"{self._override('timeout_seconds', limit_seconds)}, or =null for no limit.",
        )

    def _override(self, field: str, limit_seconds: float) -> str:
        """The override that gives twice the time."""
        return f'SET="{self._setting(field)}={math.ceil(2 * limit_seconds)}"'

    def _setting(self, field: str) -> str:
        """The field of the configuration that has a limit."""
        return self._words.setting.format(stage=self._job.stage, field=field)
