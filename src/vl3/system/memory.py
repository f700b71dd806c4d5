"""A limit of the memory of this process, for one that decodes files of strangers."""

import resource
import sys
from pathlib import Path


def limit_memory(limit_bytes: int) -> None:
    """Let allocations fail with MemoryError before the process has more than `limit_bytes` in memory.

    A header of a few bytes can make a library allocate gigabytes. Counted is what is reserved for writing (`VmData`),
    of which only a part is in memory: with a limit of 1024 MiB, 200 MiB reserved and 50 MiB in memory, 1024 - 50 more
    may be reserved.
    """
    if sys.platform != "linux":
        return
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    reserved, used = (int(status[name].split()[0]) << 10 for name in ("VmData", "VmRSS"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (reserved + limit_bytes - used, hard))


def has_grown(share: float) -> bool:
    """Whether this process has reserved more than a share of what `limit_memory` lets it reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform != "linux" or limit == resource.RLIM_INFINITY:
        return False
    data_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return data_pages * resource.getpagesize() > share * limit
