"""Ending all processes of a launch, wherever torchrun put them.

torchrun starts its workers in process groups of their own, and a killed torchrun leaves them to init. So the processes
of a launch are found by what they cannot lose: a variable of their environment.
"""

import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def find_marked(mark: str) -> list[int]:
    """Processes of this user, other than this one, whose environment has `mark` (`NAME=value`)."""
    wanted, found = mark.encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone by now, or another user's
            continue
        if wanted in variables:
            found.append(int(entry.name))
    return found


def end_marked(mark: str, *, grace_seconds: float) -> None:
    """Ask all processes of a mark to end, wait, then kill what is left and wait for its end."""
    try:
        if grace_seconds > 0:
            send(find_marked(mark), signal.SIGTERM)
            wait_for(mark, timeout_seconds=grace_seconds)
    finally:
        for _ in range(50):  # a process may be starting another one while it is killed
            left = find_marked(mark)
            if not left:
                break
            send(left, signal.SIGKILL)
            _wait_pids(left, timeout_seconds=2.0)


def wait_for(mark: str, *, timeout_seconds: float) -> bool:
    """Wait until no process has the mark; False when some are left at the end of the time."""
    deadline = time.monotonic() + timeout_seconds
    while left := find_marked(mark):
        if time.monotonic() >= deadline:
            return False
        _wait_pids(left, timeout_seconds=min(1.0, deadline - time.monotonic()))
    return True


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _wait_pids(pids: Iterable[int], *, timeout_seconds: float) -> None:
    """Wait until the processes have ended, or the time is over."""
    deadline = time.monotonic() + timeout_seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(descriptor)
