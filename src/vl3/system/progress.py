"""Done of total, percent and time left: one way to estimate and to say them, for every long thing."""

import os
import time
from collections.abc import Callable
from typing import TextIO

LINE_EVERY_SECONDS = 15.0
"""Where there is no live display, a line of progress comes at most this often."""


class TimeLeft:
    """Estimates the time left of work that reports `done` of `total`, from its own speed so far.

    What was done before the first report (a resumed stage starts at step 100) says nothing about the speed. A new total
    or a step back is new work:

        reports (100, 200) at 0 s, (110, 200) at 20 s: 2 s a step, so 180 s are left
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total = self._first = self._last = -1
        self._started = 0.0

    def left_seconds(self, done: int, total: int) -> float | None:
        """Seconds until `done` reaches `total`; None as long as nothing is known about the speed."""
        now = self._clock()
        if total != self._total or done < self._last:
            self._total, self._first, self._started = total, done, now
        self._last = done
        if done >= total:
            return 0.0
        if done <= self._first or now <= self._started:
            return None
        return (total - done) * (now - self._started) / (done - self._first)


def progress_words(done: int, total: int, left_seconds: float | None) -> str:
    """`120 of 200 (60 %), 1:05 left`; without a total only `120`."""
    if total <= 0:
        return f"{done}"
    left = "" if left_seconds is None or done >= total else f", {duration_words(left_seconds)} left"
    return f"{done} of {total} ({percent(done, total)} %){left}"


def percent(done: int, total: int) -> int:
    """Whole percent, rounded down, so that 100 means the end."""
    return min(100, 100 * done // total) if total > 0 else 0


def duration_words(seconds: float) -> str:
    """`0:09`, `12:30`, `1:02:03`, `4 days`."""
    whole = round(seconds)
    if whole >= 4 * 86400:
        return f"{whole // 86400} days"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which lines can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
