"""Trying again with growing pauses, until it works, the error is final, the time is over or nobody wants it."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

T = TypeVar("T")


class StoppedError(Exception):
    """What was to be tried again is not wanted any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """How long to wait after a failure: twice as long each time, up to a limit.

    With jitter, between half of it and all, so that many clients do not come back at the same moment:
    Pauses(first_seconds=1, longest_seconds=5) pauses 0.5 to 1 s, then 1 to 2, 2 to 4, 2.5 to 5, 2.5 to 5, ...
    """

    first_seconds: float
    """Longest pause after the first failure."""
    longest_seconds: float
    """Longest pause of all."""

    def after(self, failures: int, at_least_seconds: float = 0.0) -> float:
        """Seconds to pause after so many failures in a row, or what a server asked for if that is more."""
        ceiling = min(self.longest_seconds, self.first_seconds * 2 ** min(failures - 1, 30))
        return max(at_least_seconds, random.uniform(ceiling / 2, ceiling))


class BackOff:
    """The pauses of a loop that is more than one call tried again, such as a watch that goes on where it broke off."""

    def __init__(self, pauses: Pauses, stop: threading.Event) -> None:
        self._pauses = pauses
        self._stop = stop
        self._failures = 0

    def reset(self) -> None:
        """It works again: the next pause is the first one."""
        self._failures = 0

    def wait(self, at_least_seconds: float = 0.0) -> None:
        """Pause.

        Raises:
            StoppedError: `stop` was set.
        """
        self._failures += 1
        _sleep(self._pauses.after(self._failures, at_least_seconds), self._stop)


def note_in_log(error: BaseException, tries: int, pause_seconds: float) -> None:
    """Log a failure that is tried again."""
    log.info("try %d failed (%s: %s); again in %.1f s", tries, type(error).__name__, error, pause_seconds)


def retry(
    call: Callable[[], T],
    *,
    may_pass: Callable[[BaseException], bool],
    pauses: Pauses,
    tries: int | None = None,
    deadline_seconds: float | None = None,
    asked_for: Callable[[BaseException], float] = lambda _: 0.0,
    stop: threading.Event | None = None,
    note: Callable[[BaseException, int, float], None] = note_in_log,
) -> T:
    """Call until it succeeds.

    Args:
        call: what is tried; it must do no harm to do it twice.
        may_pass: whether an error may pass by itself; any other ends the tries.
        pauses: between the tries.
        tries: how many there are; None for no limit.
        deadline_seconds: time since the first try after which none begins; None for no limit.
        asked_for: least pause after an error, such as a server's Retry-After.
        stop: ends a pause.
        note: told of each failure that is tried again, with the tries so far and the pause that follows.

    Raises:
        StoppedError: `stop` was set in a pause.
        BaseException: the last error of `call`, as it was.
    """
    import tenacity  # some 30 ms, which no command should pay that never fails

    def pause_seconds(state: "RetryCallState") -> float:
        return pauses.after(state.attempt_number, asked_for(_error_of(state)))

    def is_over(state: "RetryCallState") -> bool:
        if tries is not None and state.attempt_number >= tries:
            return True
        spent_seconds = state.seconds_since_start or 0.0
        return deadline_seconds is not None and spent_seconds + state.upcoming_sleep > deadline_seconds

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=pause_seconds,
        stop=is_over,
        before_sleep=lambda state: note(_error_of(state), state.attempt_number, state.upcoming_sleep),
        sleep=lambda seconds: _sleep(seconds, stop),
        reraise=True,
    )
    return retrying(call)


def _error_of(state: "RetryCallState") -> BaseException:
    """The error of the last try."""
    error = state.outcome.exception() if state.outcome is not None else None
    assert error is not None
    return error


def _sleep(seconds: float, stop: threading.Event | None) -> None:
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        raise StoppedError
