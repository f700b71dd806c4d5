"""The lifeline with real processes: what watches a runner ends with it, and only then."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from vl3.lifeline import RUNNER_VARIABLE, runner_mark

CHILD = """
import os, time
from vl3.lifeline import start_lifeline
start_lifeline(os.environ, kill_group={kill_group})
print("watching", flush=True)
time.sleep(60)
"""
LEADER = (
    """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
"""
    + CHILD
)


@pytest.fixture
def runner() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def start(code: str, mark: str | None) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != RUNNER_VARIABLE}
    if mark is not None:
        environment[RUNNER_VARIABLE] = mark
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_child_in_a_group_of_its_own_dies_with_the_runner(runner: subprocess.Popen) -> None:
    child = start(CHILD.format(kill_group=False), runner_mark(runner.pid))
    assert child.stdout.readline() == "watching\n"
    runner.kill()
    runner.wait()
    assert child.wait(timeout=300) == -signal.SIGKILL


def test_child_lives_while_the_runner_lives(runner: subprocess.Popen) -> None:
    child = start(CHILD.format(kill_group=False), runner_mark(runner.pid))
    assert child.stdout.readline() == "watching\n"
    time.sleep(0.3)
    assert child.poll() is None
    child.kill()
    child.wait()


def test_group_leader_takes_its_children_along(runner: subprocess.Popen) -> None:
    leader = start(LEADER.format(kill_group=True), runner_mark(runner.pid))
    grandchild = psutil.Process(int(leader.stdout.readline()))
    assert leader.stdout.readline() == "watching\n"
    runner.kill()
    runner.wait()
    assert leader.wait(timeout=300) == -signal.SIGKILL
    gone, alive = psutil.wait_procs([grandchild], timeout=300)
    assert (len(gone), alive) == (1, [])


def test_runner_that_is_gone_already_ends_the_child_at_once(runner: subprocess.Popen) -> None:
    mark = runner_mark(runner.pid)
    runner.kill()
    runner.wait()
    child = start(CHILD.format(kill_group=False), mark)
    assert child.wait(timeout=300) == -signal.SIGKILL
    assert child.stdout.read() == ""


def test_pid_that_now_belongs_to_another_process_counts_as_gone(runner: subprocess.Popen) -> None:
    pid, _, start_time = runner_mark(runner.pid).partition(":")
    child = start(CHILD.format(kill_group=False), f"{pid}:{int(start_time) - 1}")
    assert child.wait(timeout=300) == -signal.SIGKILL
    assert child.stdout.read() == ""


def test_without_a_runner_nothing_is_watched() -> None:
    child = start(CHILD.format(kill_group=False), None)
    assert child.stdout.readline() == "watching\n"
    assert child.poll() is None
    child.kill()
    child.wait()


def test_mark_names_pid_and_start_time_and_is_stable() -> None:
    pid, _, start_time = runner_mark(os.getpid()).partition(":")
    assert int(pid) == os.getpid()
    assert int(start_time) > 0
    assert runner_mark(os.getpid()) == f"{pid}:{start_time}"
