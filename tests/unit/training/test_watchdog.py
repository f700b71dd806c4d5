"""Which rank of a stage has stalled, and when that may be said; real processes, hearts and stacks."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vl3.training.heart import Activity, Heart, read_beats
from vl3.training.watchdog import Watchdog, kernel_state

_RANK = """
import sys, time
from pathlib import Path
from vl3.training.heart import Activity, Heart

heart = Heart(Path(sys.argv[1]), int(sys.argv[2]))
for step in range(int(sys.argv[3]) + 1):
    heart.begin_step(step)
    time.sleep(0.05)
for name in sys.argv[4:]:
    heart.beat(Activity[name])


def stand_still():
    print("still", flush=True)
    time.sleep(1000)


stand_still()
"""
Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a rank that does some steps, begins what is named, and then stands still."""
    processes = []

    def begin(rank: int, steps: int, *activities: str) -> int:
        command = [sys.executable, "-c", _RANK, str(tmp_path), str(rank), str(steps), *activities]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        processes.append(process)
        assert process.stdout.readline() == "still\n"
        return process.pid

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def watchdog(folder: Path, *, margin: float = 10.0, patience: float = 100.0) -> Watchdog:
    return Watchdog(folder, margin_seconds=margin, patience_seconds=patience)


def test_the_rank_that_is_least_far_is_named_with_its_stack(start: Start, tmp_path: Path) -> None:
    start(0, 3, "FORWARD", "BACKWARD")
    start(1, 3, "FORWARD")
    assert watchdog(tmp_path).stalled(time.monotonic() + 5) is None
    stall = watchdog(tmp_path).stalled(time.monotonic() + 15)
    assert stall is not None
    assert stall.step == 3
    assert stall.text.startswith("rank 1 stalled in the forward pass of step 4: nothing happened for 1")
    assert "and the others wait for it" in stall.text
    assert re.search(r"is (sleeping|running)\. Its Python stack, innermost call first:\n", stall.text)
    assert "in stand_still" in stall.text
    assert "--- rank 0" in stall.stacks


def test_a_stopped_rank_is_named_whatever_it_was_at(start: Start, tmp_path: Path) -> None:
    start(0, 2, "FORWARD", "BACKWARD")
    os.kill(start(1, 2, "FORWARD", "BACKWARD"), signal.SIGSTOP)
    time.sleep(0.1)
    stall = watchdog(tmp_path).stalled(time.monotonic() + 15)
    assert stall is not None
    assert stall.text.startswith("rank 1 stalled in the backward pass of step 3")
    assert "is stopped by a signal and cannot show its Python stack" in stall.text


@pytest.mark.parametrize("activity", ["DATA", "SAVING", "PUBLISHING"])
def test_waits_for_the_store_have_the_limit_of_the_stage(start: Start, tmp_path: Path, activity: str) -> None:
    start(0, 2, "FORWARD", activity)
    assert watchdog(tmp_path).stalled(time.monotonic() + 90) is None
    stall = watchdog(tmp_path).stalled(time.monotonic() + 120)
    assert stall is not None
    assert Activity[activity].text in stall.text


def test_a_rank_that_has_ended_is_torchruns_to_report(start: Start, tmp_path: Path) -> None:
    start(0, 3, "FORWARD", "BACKWARD")
    ended = start(1, 3, "FORWARD")
    os.kill(ended, signal.SIGKILL)
    while kernel_state(read_beats(tmp_path)[1]) not in ("", "Z"):
        time.sleep(0.01)
    assert watchdog(tmp_path).stalled(time.monotonic() + 1000) is None


def test_the_first_step_may_take_long_and_where_none_is_behind_the_other_pods_speak_first(
    start: Start, tmp_path: Path
) -> None:
    start(0, 0, "FORWARD")
    assert watchdog(tmp_path).stalled(time.monotonic() + 10_000) is None
    start(1, 1, "FORWARD")
    start(0, 1, "FORWARD")
    assert watchdog(tmp_path).stalled(time.monotonic() + 11) is None
    stall = watchdog(tmp_path).stalled(time.monotonic() + 25)
    assert stall is not None
    assert stall.text.startswith("rank 0 and rank 1 stalled in the forward pass of step 2")
    assert "no rank of this machine is further than another" in stall.text


def test_a_beat_says_what_is_done_and_costs_microseconds(tmp_path: Path) -> None:
    heart = Heart(tmp_path, 3)
    heart.begin_step(7)
    heart.beat(Activity.FORWARD)
    started = time.perf_counter()
    for _ in range(1000):
        heart.beat(Activity.FORWARD)
    assert time.perf_counter() - started < 0.5
    (beat,) = read_beats(tmp_path)
    assert (beat.rank, beat.pid, beat.step, beat.beats, beat.activity) == (3, os.getpid(), 7, 1001, Activity.FORWARD)
    assert beat.slowest_step_seconds == 0
    assert kernel_state(beat) in ("R", "S")


def test_a_rank_without_a_folder_beats_for_nobody(tmp_path: Path) -> None:
    heart = Heart.of_environment({}, 0)
    heart.begin_step(1)
    heart.beat(Activity.DATA)
    assert read_beats(tmp_path) == []
    assert watchdog(tmp_path).stalled(time.monotonic()) is None
