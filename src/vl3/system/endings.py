"""What is known of a process that a signal ended, and whether the kernel killed it for lack of memory.

SIGKILL does not say who sent it. The kernel counts the processes that it kills when memory runs out, so that the count
before and after tells memory from everything else.
"""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_MACHINE = Path("/proc/vmstat")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its free space is read
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class MemoryKills:
    """The kernel's count of processes killed for memory: of this process's cgroup, else of the machine."""

    def __init__(self) -> None:
        """Remember the count of now."""
        self._before = _count()

    def evidence(self) -> str:
        """What the count says by now, as half a sentence.

        Count 3 when the processes started and 4 now: `memory ran out: the kernel's count of such kills in F rose from 3
        to 4`.
        """
        before, now = self._before, _count()
        if before is None or now is None or before[0] != now[0]:
            return "whether memory ran out cannot be read on this machine, so it is one possible cause"
        if now[1] > before[1]:
            return f"memory ran out: the kernel's count of such kills in {now[0]} rose from {before[1]} to {now[1]}"
        return (
            f"memory is not it, because the kernel's count of such kills in {now[0]} stayed at {now[1]}; a person, a "
            "scheduler or a daemon may have"
        )


def signal_meaning(number: int, kills: MemoryKills) -> str:
    """What a signal that ended a process means, with the evidence that there is.

    Args:
        number: the signal, such as 9.
        kills: the counts from before the process started.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    if number == signal.SIGKILL:
        return f"signal {number}, {name}; who sent it is not known: {kills.evidence()}"
    reason = _REASONS.get(number, "")
    if number == signal.SIGBUS:
        reason += f" ({_free_shared_memory()})"
    return f"signal {number}, {name}{f': {reason}' if reason else ''}"


_REASONS: dict[int, str] = {
    signal.SIGTERM: "it was asked to end",
    signal.SIGINT: "it was asked to end",
    signal.SIGHUP: "its terminal was closed",
    signal.SIGSEGV: "a fault in native code, such as a library or a driver",
    signal.SIGABRT: "native code gave up, and its last lines say why",
    signal.SIGFPE: "a fault in native code",
    signal.SIGILL: "this processor lacks an instruction that a library was built for",
    signal.SIGBUS: "a file in memory lost its space, as on a full disk or a full or small /dev/shm",
    signal.SIGXCPU: "its limit of processor time (ulimit -t) was used up",
    signal.SIGXFSZ: "it wrote a file larger than its limit (ulimit -f)",
}


def _free_shared_memory() -> str:
    try:
        return f"{_SHARED_MEMORY} has {shutil.disk_usage(_SHARED_MEMORY).free >> 20} MiB free now"
    except OSError:
        return f"{_SHARED_MEMORY} is missing"


def _count() -> tuple[Path, int] | None:
    """The file that tells, and its count; None if no file does."""
    for path in (*_own_files(), _MACHINE):
        try:
            found = _COUNT.search(path.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return path, int(found[1])
    return None


def _own_files() -> Iterator[Path]:
    """Where the counts of this process's cgroup may be.

    The lines `0::/a/b` (version 2) and `4:memory:/c` (version 1) give <root>/a/b/memory.events and
    <root>/memory/c/memory.oom_control. In a container the root itself may be the process's own cgroup.
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.lstrip(os.sep)
        if number == "0":
            yield from dict.fromkeys((_CGROUPS / inside / "memory.events", _CGROUPS / "memory.events"))
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            yield from dict.fromkeys((root / inside / "memory.oom_control", root / "memory.oom_control"))
