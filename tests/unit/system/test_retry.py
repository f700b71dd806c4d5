"""Retries: when, how often, how long, and how they are stopped."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.system import retry as module
from vl3.system.retry import BackOff, Pauses, StoppedError, retry, retry_async

QUICK = Pauses(first_seconds=0.001, longest_seconds=0.002)


class Flaky:
    """Fails with the given errors, one per call, then returns 42."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 42


def is_busy(error: BaseException) -> bool:
    return isinstance(error, OSError)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which take no time here; each random pause is the longest possible."""
    pauses: list[float] = []
    monkeypatch.setattr(module, "_sleep", lambda seconds, stop: pauses.append(seconds))
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)
    return pauses


def test_the_first_answer_is_returned_without_a_pause(slept: list[float]) -> None:
    call = Flaky()
    assert retry(call, may_pass=is_busy, pauses=QUICK) == 42
    assert (call.calls, slept) == (1, [])


def test_pauses_double_up_to_the_longest(slept: list[float]) -> None:
    call = Flaky(*[OSError()] * 5)
    assert retry(call, may_pass=is_busy, pauses=Pauses(first_seconds=1, longest_seconds=5)) == 42
    assert slept == [1, 2, 4, 5, 5]


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(10, 1000), st.floats(0, 2000))
def test_a_pause_is_between_half_of_its_length_and_all(
    failures: int, first: float, longest: float, asked: float
) -> None:
    pause = Pauses(first_seconds=first, longest_seconds=longest).after(failures, asked)
    whole = min(longest, first * 2.0 ** min(failures - 1, 30))
    assert asked <= pause
    assert whole / 2 <= pause <= max(whole, asked)


def test_a_servers_wish_is_the_least_pause(slept: list[float]) -> None:
    pauses = Pauses(first_seconds=1, longest_seconds=5)
    asked: dict[str, float] = {"short": 0.5, "long": 7.0}
    call = Flaky(OSError("long"), OSError("short"))
    assert retry(call, may_pass=is_busy, pauses=pauses, asked_for=lambda error: asked[str(error)]) == 42
    assert slept == [7.0, 2]


def test_a_final_error_is_raised_as_it_is(slept: list[float]) -> None:
    final = ValueError("no")
    call = Flaky(OSError(), final, OSError())
    with pytest.raises(ValueError, match="no") as caught:
        retry(call, may_pass=is_busy, pauses=QUICK)
    assert caught.value is final
    assert (call.calls, len(slept)) == (2, 1)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_tried_again(slept: list[float], interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt):
        retry(Flaky(interrupt()), may_pass=is_busy, pauses=QUICK)
    assert slept == []


def test_the_last_error_is_raised_when_the_tries_are_used_up(slept: list[float]) -> None:
    errors = [OSError(number) for number in range(9)]
    call = Flaky(*errors)
    with pytest.raises(OSError, match="2") as caught:
        retry(call, may_pass=is_busy, pauses=QUICK, tries=3)
    assert caught.value is errors[2]
    assert (call.calls, len(slept)) == (3, 2)


def test_no_try_begins_after_the_deadline(slept: list[float]) -> None:
    call = Flaky(*[OSError("away")] * 9)
    with pytest.raises(OSError, match="away"):
        retry(call, may_pass=is_busy, pauses=Pauses(first_seconds=1, longest_seconds=100), deadline_seconds=3.9)
    assert slept == [1, 2], "the next pause of 4 s would end after 3.9 s"


def test_each_failure_that_is_tried_again_is_noted(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    noted: list[tuple[str, int, float]] = []
    note: Callable[[BaseException, int, float], None] = lambda *told: noted.append((str(told[0]), *told[1:]))  # noqa: E731
    pauses = Pauses(first_seconds=1, longest_seconds=9)
    with pytest.raises(OSError, match="c"):
        retry(Flaky(OSError("a"), OSError("b"), OSError("c")), may_pass=is_busy, pauses=pauses, tries=3, note=note)
    assert noted == [("a", 1, 1), ("b", 2, 2)]
    with caplog.at_level(logging.INFO):
        retry(Flaky(OSError("away")), may_pass=is_busy, pauses=pauses)
    assert caplog.messages == ["try 1 failed (OSError: away); retrying in 1.0 s"]


def test_what_a_note_raises_ends_the_tries(slept: list[float]) -> None:
    def note(error: BaseException, tries: int, pause_seconds: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        retry(Flaky(OSError()), may_pass=is_busy, pauses=QUICK, note=note)


def test_a_stop_ends_a_pause_at_once() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        retry(Flaky(OSError()), may_pass=is_busy, pauses=Pauses(first_seconds=60, longest_seconds=60), stop=stop)
    assert time.monotonic() - started < 5


def test_a_loops_pauses_grow_and_begin_again(slept: list[float]) -> None:
    back_off = BackOff(Pauses(first_seconds=1, longest_seconds=100), threading.Event())
    back_off.wait()
    back_off.wait()
    back_off.wait(10)
    back_off.reset()
    back_off.wait()
    assert slept == [1, 2, 10, 1]


def test_a_stop_ends_a_loops_pause() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        BackOff(Pauses(first_seconds=60, longest_seconds=60), stop).wait()


def test_a_retry_leaves_the_loop_to_others() -> None:
    flaky = Flaky(OSError("busy"), OSError("busy"))
    noted: list[int] = []

    async def call() -> int:
        return flaky()

    async def both() -> tuple[int, int]:
        retried = retry_async(
            call,
            may_pass=is_busy,
            pauses=Pauses(first_seconds=0.2, longest_seconds=0.2),
            tries=3,
            note=lambda error, tries, pause: noted.append(tries),
        )
        task = asyncio.ensure_future(retried)
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await task, turns

    found, turns = asyncio.run(both())
    assert (found, flaky.calls, noted) == (42, 3, [1, 2])
    assert turns > 3


def test_an_async_retry_ends_with_the_last_error() -> None:
    flaky = Flaky(OSError("first"), OSError("second"), OSError("third"))

    async def call() -> int:
        return flaky()

    with pytest.raises(OSError, match="second"):
        asyncio.run(retry_async(call, may_pass=is_busy, pauses=QUICK, tries=2))
    with pytest.raises(ValueError, match="final"):
        asyncio.run(retry_async(_final, may_pass=is_busy, pauses=QUICK, tries=2))


async def _final() -> int:
    raise ValueError("final")
