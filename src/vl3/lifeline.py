"""The lifeline: no process of a run outlives its runner.

torchrun puts its workers into their own process groups, so they survive when the runner's group is killed, and would
keep writing beside a restarted run. Each process of a run therefore watches the runner through a pidfd (which, unlike
a pid, is never reused) and ends itself within moments of the runner's end, whatever the cause.
"""

import ctypes
import os
import select
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1
RUNNER_VARIABLE = "VL3_RUNNER"
"""Environment variable `pid:starttime` that names the runner; not set where there is none (a cluster, a test)."""


def runner_mark(pid: int) -> str:
    """The value of RUNNER_VARIABLE for a process: its pid and kernel start time, which together are unique."""
    return f"{pid}:{_start_time(pid)}"


def start_lifeline(environ: Mapping[str, str], *, kill_group: bool) -> None:
    """Watch the runner that the environment names; end this process at once when the runner is gone.

    Args:
        environ: environment of this process.
        kill_group: end the whole process group, for a process that leads one.
    """
    mark = environ.get(RUNNER_VARIABLE)
    if not mark:
        return
    pid = int(mark.partition(":")[0])
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        _end(kill_group)
    if runner_mark(pid) != mark:  # the runner died and another process has its pid
        _end(kill_group)
    threading.Thread(target=_watch, args=(descriptor, kill_group), name="lifeline", daemon=True).start()


def end_with_parent(parent_pid: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, even while it hangs in a library.

    Args:
        parent_pid: the process that started this one, which may be gone already.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(descriptor: int, kill_group: bool) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    poller.poll()
    _end(kill_group)


def _end(kill_group: bool) -> None:
    if kill_group:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
