"""Calls in a process of their own: results, problems, hangs and deaths."""

import os
import pickle
import signal
import threading
import time

import pytest

from vl3.curation.video.guarded import GuardedProcess
from vl3.data.sample.problems import ProblemKind, SampleProblem


def double(value: int) -> int:
    return 2 * value


def refuse(where: str) -> None:
    raise SampleProblem(ProblemKind.TOO_LONG, "it is too long.", where)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_hang_and_a_death_cost_one_call_each() -> None:
    guard = GuardedProcess(60.0)
    try:
        assert guard.call(double, 4, where="a.mp4") == 8
        with pytest.raises(SampleProblem, match=r"^a\.mp4: it is too long\.") as raised:
            guard.call(refuse, "a.mp4", where="a.mp4")
        assert raised.value.kind is ProblemKind.TOO_LONG
        with pytest.raises(SampleProblem, match=r"^b\.mp4: the decoder was killed by SIGKILL"):
            guard.call(die, where="b.mp4")
        assert guard.call(double, 5, where="a.mp4") == 10
        guard._timeout_seconds = 0.5
        with pytest.raises(SampleProblem, match=r"^c\.mp4: it was not decoded within 0\.5 s"):
            guard.call(time.sleep, 600, where="c.mp4")
        guard._timeout_seconds = 60.0
        assert guard.call(double, 6, where="a.mp4") == 12
    finally:
        guard.close()


def test_an_abort_ends_a_call_that_another_thread_waits_for() -> None:
    guard = GuardedProcess(600.0)
    assert guard.call(double, 4, where="a.mp4") == 8
    timer = threading.Timer(0.3, guard.abort)
    timer.start()
    with pytest.raises(SampleProblem, match="killed by SIGKILL"):
        guard.call(time.sleep, 500, where="a.mp4")
    guard.close()


def test_it_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(GuardedProcess(7.0)))._timeout_seconds == 7.0
