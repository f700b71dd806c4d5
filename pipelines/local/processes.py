"""The processes of a run, found by the mark in their environment, whoever started or adopted them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from vl3.errors import ClusterError
from vl3.lifeline import RUNNER_VARIABLE

_PROC = Path("/proc")


def marked_processes(mark: str) -> list[int]:
    """Process ids whose environment names the runner `mark` (see vl3.lifeline.runner_mark)."""
    needle = f"{RUNNER_VARIABLE}={mark}\0".encode()
    return [int(folder.name) for folder in _PROC.iterdir() if folder.name.isdigit() and needle in _environ(folder)]


def stop_processes(mark: str, *, grace_seconds: float, reap: Callable[[], object] = lambda: None) -> None:
    """End every process of a run: SIGTERM, a time of grace, SIGKILL; returns when none is left.

    Args:
        mark: the run's mark.
        grace_seconds: time to end by themselves after SIGTERM.
        reap: called while waiting, to take the exit status of a child.

    Raises:
        ClusterError: a process does not go even by SIGKILL (it hangs in the kernel).
    """
    for number, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + wait_seconds
        signalled: set[int] = set()
        while left := marked_processes(mark):
            for pid in set(left) - signalled:
                _send(pid, number)
            signalled.update(left)
            reap()
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return
    raise ClusterError(f"processes {marked_processes(mark)} of the run do not end. Look at them before starting again.")


def wait_for_former(mark: str) -> None:
    """Wait until nothing of a killed runner is left: its lifelines need a moment; then end the rest."""
    deadline = time.monotonic() + 5.0
    while marked_processes(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    stop_processes(mark, grace_seconds=1.0)


def memory_bytes(mark: str) -> int:
    """Memory of a run's processes together, shared pages counted once (PSS)."""
    return sum(_pss_bytes(pid) for pid in marked_processes(mark))


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _environ(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:  # gone, a zombie, or somebody else's
        return b""


def _pss_bytes(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)
