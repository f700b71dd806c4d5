"""Retry with exponential back-off, until the call succeeds, the error is final, time is up or it is stopped."""

import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

T = TypeVar("T")


class StoppedError(Exception):
    """The retries were stopped during a pause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """How long to wait after a failure: twice as long each time, up to a limit.

    Each pause is drawn between half of that and all of it, so that many clients do not retry at the same moment:
    Pauses(first_seconds=1, longest_seconds=5) pauses 0.5 to 1 s, then 1 to 2, 2 to 4, 2.5 to 5, 2.5 to 5, ...
    """

    first_seconds: float
    """Longest pause after the first failure."""
    longest_seconds: float
    """Upper limit of every pause."""

    def after(self, failures: int, at_least_seconds: float = 0.0) -> float:
        """Seconds to pause after this many failures in a row, or what a server asked for if that is more."""
        ceiling = min(self.longest_seconds, self.first_seconds * 2 ** min(failures - 1, 30))
        return max(at_least_seconds, random.uniform(ceiling / 2, ceiling))


class BackOff:
    """The pauses of a loop that does more than retry one call, such as a watch that resumes where it broke off."""

    def __init__(self, pauses: Pauses, stop: threading.Event) -> None:
        self._pauses = pauses
        self._stop = stop
        self._failures = 0

    def reset(self) -> None:
        """The loop succeeded: start again with the first pause."""
        self._failures = 0

    def wait(self, at_least_seconds: float = 0.0) -> None:
        """Pause.

        Raises:
            StoppedError: `stop` was set.
        """
        self._failures += 1
        _sleep(self._pauses.after(self._failures, at_least_seconds), self._stop)


def note_in_log(error: BaseException, tries: int, pause_seconds: float) -> None:
    """Log a failure that will be retried."""
    log.info("try %d failed (%s: %s); retrying in %.1f s", tries, type(error).__name__, error, pause_seconds)


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
        call: the idempotent call.
        may_pass: whether an error is transient; any other is raised at once.
        pauses: the back-off between tries.
        tries: maximum number of tries; None for no limit.
        deadline_seconds: time after the first try at which no further one starts; None for no limit.
        asked_for: minimum pause after an error, such as a server's Retry-After.
        stop: ends a pause.
        note: called for each failure that will be retried, with the tries so far and the pause that follows.

    Raises:
        StoppedError: `stop` was set during a pause.
        BaseException: the last error of `call`, unchanged.
    """
    import tenacity  # takes 30 ms, which only commands that retry should pay

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


async def retry_async(
    call: Callable[[], Awaitable[T]],
    *,
    may_pass: Callable[[BaseException], bool],
    pauses: Pauses,
    tries: int,
    asked_for: Callable[[BaseException], float] = lambda _: 0.0,
    note: Callable[[BaseException, int, float], None] = note_in_log,
) -> T:
    """Call until it succeeds, as `retry` does; the pauses leave the event loop to others.

    Raises:
        BaseException: the last error of `call`, unchanged.
    """
    import tenacity

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=lambda state: pauses.after(state.attempt_number, asked_for(_error_of(state))),
        stop=tenacity.stop_after_attempt(tries),
        before_sleep=lambda state: note(_error_of(state), state.attempt_number, state.upcoming_sleep),
        reraise=True,
    )
    return await retrying(call)


def prepare_retries() -> None:
    """Import what `retry` needs. An import that a signal's exception cuts off cannot be repeated in the same process.

    So whoever retries while it cleans up after a signal calls this first.
    """
    import tenacity  # noqa: F401


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
