"""The processes of a run are found and ended, whatever group they are in."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.local.processes import marked_processes, memory_bytes, stop_processes, wait_for_former
from vl3.lifeline import RUNNER_VARIABLE

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
LIFELINE = f"import os; from vl3.lifeline import start_lifeline; start_lifeline(os.environ, kill_group=False); {SLEEP}"


def _start(program: str, mark: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, RUNNER_VARIABLE: mark},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A mark that no other run has."""
    return f"4194304:{tmp_path.name}-{os.getpid()}"


def test_only_the_runs_own_processes_are_found(mark: str) -> None:
    ours, other = _start(SLEEP, mark), _start(SLEEP, f"{mark}0")
    try:
        assert marked_processes(mark) == [ours.pid]
        assert 1e6 < memory_bytes(mark) < 1e9
    finally:
        for process in (ours, other):
            process.kill()
            process.communicate()


def test_polite_processes_end_by_sigterm(mark: str) -> None:
    process = _start(SLEEP, mark)
    stop_processes(mark, grace_seconds=20, reap=process.poll)
    assert process.wait(5) == -15
    assert marked_processes(mark) == []
    process.communicate()


def test_stubborn_processes_are_killed_after_the_time_of_grace(mark: str) -> None:
    process = _start(STUBBORN, mark)
    started = time.monotonic()
    stop_processes(mark, grace_seconds=0.3, reap=process.poll)
    assert 0.3 <= time.monotonic() - started < 5
    assert process.wait(5) == -9
    process.communicate()


def test_what_a_killed_runner_left_ends_before_the_next_one_goes_on() -> None:
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from vl3.lifeline import runner_mark

    mark = runner_mark(runner.pid)
    worker = _start(LIFELINE, mark)
    runner.kill()
    runner.wait()
    wait_for_former(mark)
    assert worker.wait(5) == -9
    worker.communicate()
