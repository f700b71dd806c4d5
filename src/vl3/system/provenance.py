"""What ran: the commit, the command, the versions and the machine. For people who ask later: part of no key.

{"commit": "1b9c...", "tree": "clean", "command": "vl3 run start --recipe tiny",
 "versions": {"vl3": "0.1.0", "python": "3.11.7", "torch": "2.13.0", ...},
 "machine": {"host": "desk", "os": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1.0", "cpu": "AMD EPYC 9354",
             "cores": "2", "memory": "24 GiB", "gpus": "1 x NVIDIA H200"},
 "image": ""}
"""

import os
import platform
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vl3.system.commit import UNKNOWN_COMMIT, code_commit
from vl3.system.secrets import masked

COMMAND_VARIABLE = "VL3_COMMAND"
"""The command that started a run, for its processes, which have commands of their own."""
IMAGE_VARIABLE = "VL3_IMAGE"
"""The image that a process runs in, best by digest; a container cannot see it by itself."""

_DIRTY = "-dirty"
_MAX_CHARACTERS = 4000
_LIBRARIES = {
    **{name: (name,) for name in ("vl3", "torch", "transformers", "deepspeed", "kfp")},
    "mlflow": ("mlflow", "mlflow-skinny"),
    "great-expectations": ("great-expectations",),
}
"""Names of libraries -> distributions to read their version from; not every image has all."""
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of cgroup 2 and 1


@cache
def provenance() -> dict[str, Any]:
    """What runs here, as JSON data with the fields of the example above; `tree` is clean, modified or unknown.

    The first call decides: what is edited later does not run in this process.
    """
    commit = code_commit(os.environ)
    return {
        "commit": commit.removesuffix(_DIRTY),
        "tree": tree_of(commit),
        "command": os.environ.get(COMMAND_VARIABLE) or command_line(sys.orig_argv),
        "versions": versions(),
        "machine": machine(),
        "image": os.environ.get(IMAGE_VARIABLE, ""),
    }


def tree_of(commit: str) -> str:
    """Whether the files were those of the commit, from the commit as vl3.system.commit writes it."""
    if commit == UNKNOWN_COMMIT:
        return "unknown"
    return "modified" if commit.endswith(_DIRTY) else "clean"


def command_line(arguments: list[str]) -> str:
    """A process's command as one would type it, without secrets.

    `/home/me/.venv/bin/python /home/me/.venv/bin/vl3 run start` gives `vl3 run start`.
    """
    _, *rest = arguments or [""]
    is_script = bool(rest) and not rest[0].startswith("-")
    typed = [Path(rest[0]).name, *rest[1:]] if is_script else ["python", *rest]
    return shlex.join(map(masked, typed))


def versions(pins: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on.

    Args:
        pins: versions of the image that trains, if that is another one: they take precedence.
    """
    found = {"python": platform.python_version()}
    for name, distributions in _LIBRARIES.items():
        known = next(filter(None, ((pins or {}).get(one) or _version(one) for one in distributions)), "")
        if known:
            found[name] = known
    return found


def machine() -> dict[str, str]:
    """The machine, or what a container sees of it: host, os, kernel, cpu, cores, memory and gpus."""
    return {
        "host": socket.gethostname(),
        "os": _os_name(),
        "kernel": platform.release(),
        "cpu": _cpu_name(Path("/proc/cpuinfo")),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_memory_bytes(Path('/sys/fs/cgroup')) / 1024**3:.0f} GiB",
        "gpus": _gpu_names(Path("/proc/driver/nvidia/gpus")),
    }


def in_words(found: Mapping[str, Any]) -> dict[str, str]:
    """Provenance that anybody may have written, each fact as a text: `commit`, `tree`, `command`, `machine`, `image`.

    A machine is `desk: 2 cores (AMD EPYC 9354), 24 GiB, 1 x NVIDIA H200`. What is missing or no text is empty.
    """
    facts = {name: _text(found.get(name)) for name in ("commit", "tree", "command", "image")}
    known = found.get("machine")
    host, cores, cpu, memory, gpus = (
        _text(known.get(name)) if isinstance(known, Mapping) else ""
        for name in ("host", "cores", "cpu", "memory", "gpus")
    )
    processor = f"{cores} cores" + (f" ({cpu})" if cpu else "") if cores else cpu
    size = ", ".join(filter(None, (processor, memory, gpus)))
    return {**facts, "machine": f"{host}: {size}" if host and size else host or size}


def _text(value: Any) -> str:
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else ""


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_name(path: Path) -> str:
    """The first `model name`; empty where the kernel has none (ARM)."""
    lines = _read(path).splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory_bytes(cgroup: Path) -> int:
    """Memory of the machine, or the container's limit if that is less."""
    limits = [_read(cgroup / name).strip() for name in _CGROUP_LIMITS]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(int(text) for text in limits if text.isascii() and text.isdigit())])


def _gpu_names(folder: Path) -> str:
    """`8 x NVIDIA H200`, from what the driver says of each; no program is started, and no library is loaded."""
    texts = [_read(path) for path in sorted(folder.glob("*/information"))]
    names = [
        line.partition(":")[2].strip() for text in texts for line in text.splitlines() if line.startswith("Model:")
    ]
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
