"""Whether processes that a test knows by their pid still run."""

import psutil

from vl3.system import processes


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie has ended."""
    try:
        return processes.is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False
