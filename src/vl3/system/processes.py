"""All processes of a launch or a run, wherever torchrun put them: found, ended, measured.

torchrun starts its workers in process groups of their own, and a killed torchrun leaves them to init. So they are found
by what they cannot lose: a variable of their environment, `NAME=value`, called their mark.
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
    name, _, value = mark.partition("=")
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone by now, or another user's
            if process.environ().get(name) == value and process.pid != os.getpid():
                found.append(process)
    return found


def children_of(pid: int) -> list[psutil.Process]:
    """The direct children of a process; none of one that is gone."""
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


def end_marked(mark: str, *, grace_seconds: float) -> None:
    """Ask all processes of a mark to end, wait, then kill what is left; returns when none is.

    Args:
        mark: their mark.
        grace_seconds: time to end by themselves after SIGTERM; with 0 they are killed at once.

    Raises:
        ClusterError: a process does not go even by SIGKILL (it hangs in the kernel).
    """
    try:
        if grace_seconds > 0:
            _signal_until_gone(mark, signal.SIGTERM, grace_seconds)
    finally:  # an interrupt in the time of grace, too, leaves nothing behind
        left = _signal_until_gone(mark, signal.SIGKILL, _KILL_SECONDS)
        if left:
            raise ClusterError(
                f"processes {[process.pid for process in left]} do not end, even by SIGKILL: they hang in the kernel, "
                "and could write beside what is started next. Look at them before starting again."
            )


def wait_for(mark: str, *, timeout_seconds: float) -> bool:
    """Wait until no process has the mark; False when some are left at the end of the time."""
    return not _signal_until_gone(mark, None, timeout_seconds)


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each process that is still there; a pid that another process has by now is left alone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def memory_bytes(mark: str) -> int:
    """Memory of a mark's processes together, shared pages counted once (PSS)."""
    total = 0
    for process in find_marked(mark):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie has ended, whoever has yet to take its exit status."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal_until_gone(mark: str, number: signal.Signals | None, timeout_seconds: float) -> list[psutil.Process]:
    """Signal each process of the mark once, those that start meanwhile too; returns what is left after the time."""
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
    """Wait until the processes have ended, by looking: psutil's own wait takes a child's exit status from its Popen."""
    deadline = time.monotonic() + timeout_seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
