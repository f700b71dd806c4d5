"""Killed anywhere, a run leaves no process behind; started again, it resumes where it stopped."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Runner, wait_until, workflow_run
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.system.processes import find_marked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
STAGE = "train-vision-adaptation"
BUILD = "build-data"


def _end(process: "subprocess.Popen[str]", kill: Callable[[], None], *, within_seconds: float) -> tuple[str, str]:
    """Kill, and require that every process of the run is gone in time. Returns stdout and stderr."""
    mark = f"{RUNNER_VARIABLE}={runner_mark(process.pid)}"
    assert len(find_marked(mark)) >= 3, "kfp, its shell and the step should be at work"
    kill()
    out, err = process.communicate()
    deadline = time.monotonic() + within_seconds
    while find_marked(mark):
        assert time.monotonic() < deadline, f"left behind: {find_marked(mark)}"
        time.sleep(0.05)
    return out, err


def _trained_steps(runner: Runner) -> int:
    return max((event["step"] for event in runner.events(STAGE) if event["type"] == "metrics"), default=0)


def _starts(runner: Runner) -> list[int]:
    return [event["resumed_from_step"] for event in runner.events(STAGE) if event["type"] == "start"]


def test_killed_anywhere_nothing_is_left_and_the_run_goes_on(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(steps=2000)

    process = runner.start()  # 1. the group is killed while worker processes build the dataset
    wait_until(lambda: bool(runner.status(BUILD).get("progress")), process)
    _end(process, lambda: os.killpg(process.pid, signal.SIGKILL), within_seconds=300)
    assert process.returncode == -signal.SIGKILL
    assert runner.record()["state"] == "running"  # no process was left to update it
    temporary = Path(json.loads((runner.folder / "run.lock").read_text())["temporary"])
    assert temporary.is_dir()

    process = runner.start()  # 2. the runner alone is killed in the middle of training
    wait_until(lambda: _trained_steps(runner) >= 4, process)
    assert not temporary.exists()
    second = runner.run()
    assert second.returncode == 2
    assert f"is in use by process {process.pid}" in second.stderr.splitlines()[-1]
    assert second.stdout == ""
    _end(process, lambda: os.kill(process.pid, signal.SIGKILL), within_seconds=300)
    reached = _trained_steps(runner)

    process = runner.start()  # 3. Ctrl-C
    wait_until(lambda: len(_starts(runner)) == 2 and _trained_steps(runner) >= reached + 4, process)
    assert runner.tasks()[BUILD] == "reused"
    _, err = _end(process, lambda: os.kill(process.pid, signal.SIGINT), within_seconds=5)
    _require_interrupted(runner, process, err, 130)

    process = runner.start()  # 4. SIGTERM
    wait_until(lambda: len(_starts(runner)) == 3, process)
    _, err = _end(process, process.terminate, within_seconds=5)
    _require_interrupted(runner, process, err, 143)

    first, after_kill, after_interrupt = _starts(runner)
    assert first == 0
    assert 4 - 2 <= after_kill <= reached + 2  # the last checkpoint, at most two steps before the kill
    assert after_interrupt >= reached + 4 - 2
    states = [attempt["state"] for attempt in runner.record()["earlier_attempts"]]
    assert states == ["killed", "killed", "interrupted"]
    assert not list(runner.folder.glob("artifacts/steps/*/*/.*.tmp"))


def test_a_step_that_is_killed_is_named_by_the_exit_handler(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(steps=2)
    process = runner.start()
    wait_until(lambda: bool(runner.status(BUILD).get("progress")), process)
    os.kill(runner.status(BUILD)["pid"], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 4
    assert err.splitlines()[-1].startswith("ClusterError: build-data ended without a status: its process was killed")
    assert (runner.tasks()[BUILD], runner.tasks()["finish"]) == ("failed", "done")
    state, tags = workflow_run(runner)
    assert (state, tags["vl3.failed_task"]) == ("FAILED", BUILD)


def test_a_task_that_is_asked_to_end_interrupts_the_run_and_is_no_defect(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner(steps=2000)
    process = runner.start()
    wait_until(lambda: _trained_steps(runner) >= 4, process)
    _, err = _end(process, lambda: os.kill(runner.status(STAGE)["pid"], signal.SIGTERM), within_seconds=5)
    _require_ended_on_request(runner, process, err, "ended on request (SIGTERM). What was finished is kept")

    process = runner.start()  # it resumes, and now a worker of the stage is asked
    wait_until(lambda: len(_starts(runner)) == 2, process)
    assert _starts(runner)[1] >= 4 - 2
    _, err = _end(process, lambda: _worker(process).terminate(), within_seconds=5)
    _require_ended_on_request(runner, process, err, "ended on request: one of its processes got SIGTERM")


def _worker(process: "subprocess.Popen[str]") -> psutil.Process:
    marked = find_marked(f"{RUNNER_VARIABLE}={runner_mark(process.pid)}")
    return next(one for one in marked if one.cmdline()[1:4] == ["-u", "-m", "vl3.training.worker"])


def _require_ended_on_request(runner: Runner, process: "subprocess.Popen[str]", err: str, said: str) -> None:
    assert process.returncode == 143
    last = err.splitlines()[-1]
    assert last.startswith(f"TerminatedError: {STAGE}")
    assert said in last
    assert "SystemExit" not in err
    assert (runner.record()["state"], runner.record()["exit_code"]) == ("interrupted", 143)


def _require_interrupted(runner: Runner, process: "subprocess.Popen[str]", err: str, code: int) -> None:
    assert process.returncode == code
    assert re.fullmatch(r"interrupted: no process of the run is left.* run the same command again to resume\.\n", err)
    record = runner.record()
    assert (record["state"], record["exit_code"]) == ("interrupted", code)
    assert runner.tasks()[STAGE] in ("interrupted", "failed")
