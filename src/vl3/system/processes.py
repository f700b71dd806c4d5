"""Find, end and measure all processes of a launch or a run, including the workers that torchrun detached.

torchrun starts its workers in their own process groups, and when it is killed, init adopts them. So they are found by
something that they cannot lose: a variable of their environment, `NAME=value`, called their mark. A mark may consist of
several, separated by NUL; a process has it if it has all.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence

import psutil

from vl3.errors import ClusterError

_POLL_SECONDS = 0.02
_KILL_SECONDS = 10.0


def find_marked(mark: str) -> list[psutil.Process]:
    """Processes of this user, other than this one, whose environment has `mark`."""
    wanted = [part.partition("=")[::2] for part in mark.split("\0")]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended, or belongs to another user
            environment = process.environ()
            if process.pid != os.getpid() and all(environment.get(name) == value for name, value in wanted):
                found.append(process)
    return found


def children_of(pid: int) -> list[psutil.Process]:
    """The direct children of a process; an empty list if it has ended."""
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def end_marked(mark: str, *, grace_seconds: float) -> None:
    """Send SIGTERM to all processes of a mark, wait, then kill those that are left; returns when none is.

    Args:
        mark: their mark.
        grace_seconds: time to exit after SIGTERM; with 0 they are killed at once.

    Raises:
        ClusterError: a process survives SIGKILL (it hangs in the kernel).
    """
    try:
        if grace_seconds > 0:
            _signal_until_gone(mark, signal.SIGTERM, grace_seconds)
    finally:  # an interrupt during the grace period must not leave processes behind
        left = _signal_until_gone(mark, signal.SIGKILL, _KILL_SECONDS)
        if left:
            raise ClusterError(
                f"processes {[process.pid for process in left]} survive SIGKILL: they hang in the kernel and may still "
                "write beside whatever is started next. Check them before starting again."
            )


def wait_for(mark: str, *, timeout_seconds: float) -> bool:
    """Wait until no process has the mark; False if some are left after the timeout."""
    return not _signal_until_gone(mark, None, timeout_seconds)


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each process that is still running; a pid that was reused is left alone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def memory_bytes(mark: str) -> int:
    """Total memory of a mark's processes, shared pages counted once (PSS)."""
    total = 0
    for process in find_marked(mark):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie has ended, its exit status is only not collected yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal_until_gone(mark: str, number: signal.Signals | None, timeout_seconds: float) -> list[psutil.Process]:
    """Signal each process of the mark once, also those that start meanwhile; returns those left after the timeout."""
    deadline = time.monotonic() + timeout_seconds
    signalled: set[psutil.Process] = set()
    while left := find_marked(mark):
        if number is not None:
            send(set(left) - signalled, number)
            signalled.update(left)
        if time.monotonic() >= deadline:
            break
        _wait_for_end(left, min(1.0, deadline - time.monotonic()))
    return left


def _wait_for_end(processes: Sequence[psutil.Process], timeout_seconds: float) -> None:
    """Poll until the processes have ended: psutil's own wait would take a child's exit status away from its Popen."""
    deadline = time.monotonic() + timeout_seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
