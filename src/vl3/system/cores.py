"""How many cores this process may use."""

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """The cores that the scheduler gives to this process, or fewer if its container has a quota; at least 1.

    A quota file `150000 100000` is one of 1.5 cores and gives 1; `max 100000` is none.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if limit == "max" else max(1, min(cores, int(limit) // int(period)))
