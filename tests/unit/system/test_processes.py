"""The processes of a mark are found, ended and measured, whatever group they are in."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from vl3.errors import ClusterError
from vl3.system import processes
from vl3.system.processes import children_of, end_marked, find_marked, is_alive, memory_bytes, send, wait_for

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
BREEDING = f"""
import os, signal, subprocess, sys, time
def breed(*_):
    subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
    os._exit(3)
signal.signal(signal.SIGTERM, breed)
{SLEEP}
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs whose environment has a mark, and kills those that are left at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, mark: str) -> "subprocess.Popen[bytes]":
        name, _, value = mark.partition("=")
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, name: value},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A mark that nothing else has."""
    return f"VL3_TEST_MARK=4194304:{tmp_path.name}-{os.getpid()}"


def test_only_the_processes_of_the_mark_are_found(start: Start, mark: str) -> None:
    ours, _, _ = start(SLEEP, mark), start(SLEEP, f"{mark}0"), start(SLEEP, mark.replace("TEST", "OTHER"))
    assert [process.pid for process in find_marked(mark)] == [ours.pid]
    assert 1e6 < memory_bytes(mark) < 1e9


def test_polite_processes_end_by_sigterm_and_keep_their_exit_status(start: Start, mark: str) -> None:
    process = start(SLEEP, mark)
    end_marked(mark, grace_seconds=600)
    assert process.wait(300) == -signal.SIGTERM
    assert find_marked(mark) == []
    assert memory_bytes(mark) == 0


def test_stubborn_processes_are_killed_after_the_time_of_grace(start: Start, mark: str) -> None:
    process = start(STUBBORN, mark)
    started = time.monotonic()
    end_marked(mark, grace_seconds=0.3)
    assert time.monotonic() - started >= 0.3
    assert process.wait(300) == -signal.SIGKILL


def test_without_grace_a_process_is_killed_at_once(start: Start, mark: str) -> None:
    process = start(SLEEP, mark)
    end_marked(mark, grace_seconds=0)
    assert process.wait(300) == -signal.SIGKILL


def test_processes_that_start_while_others_end_are_asked_too(start: Start, mark: str) -> None:
    breeding = start(BREEDING, mark)
    end_marked(mark, grace_seconds=600)
    assert breeding.wait(300) == 3
    assert find_marked(mark) == []


def test_an_interrupt_in_the_time_of_grace_leaves_nothing(
    start: Start, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    process = start(STUBBORN, mark)
    monkeypatch.setattr(processes, "_wait_for_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        end_marked(mark, grace_seconds=600)
    assert process.wait(300) == -signal.SIGKILL


def test_a_process_that_does_not_go_is_named(start: Start, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(SLEEP, mark)
    monkeypatch.setattr(processes, "send", lambda *_: None)  # a process that hangs in the kernel takes no signal
    monkeypatch.setattr(processes, "_KILL_SECONDS", 0.1)
    with pytest.raises(ClusterError, match=rf"processes \[{process.pid}\] survive SIGKILL"):
        end_marked(mark, grace_seconds=0)


def test_waiting_says_whether_all_are_gone(start: Start, mark: str) -> None:
    assert wait_for(mark, timeout_seconds=0)
    process = start(SLEEP, mark)
    assert not wait_for(mark, timeout_seconds=0.1)
    process.kill()
    assert wait_for(mark, timeout_seconds=300)


def test_children_are_found_and_a_process_that_is_gone_has_none(start: Start, mark: str) -> None:
    process = start(SLEEP, mark)
    assert process.pid in [child.pid for child in children_of(os.getpid())]
    assert children_of(process.pid) == []
    process.kill()
    process.wait()
    assert children_of(process.pid) == []


def test_a_zombie_is_not_alive_and_a_signal_to_a_process_that_is_gone_is_no_error(start: Start, mark: str) -> None:
    process = start(SLEEP, mark)
    seen = psutil.Process(process.pid)
    assert is_alive(seen)
    send([seen], signal.SIGKILL)
    assert wait_for(mark, timeout_seconds=300)
    assert not is_alive(seen), "a zombie until its exit status is taken"
    assert process.wait(300) == -signal.SIGKILL
    assert not is_alive(seen)
    send([seen], signal.SIGKILL)
