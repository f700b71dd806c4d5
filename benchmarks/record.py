"""Writes a measurement to benchmarks/results, with everything that is needed to assess and repeat it."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def write_result(
    name: str,
    *,
    title: str,
    question: str,
    command: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    notes: Sequence[str],
    libraries: Sequence[str] = (),
) -> Path:
    """Write `benchmarks/results/<name>.json`; `make benchmarks-page` turns all of them into docs/benchmarks.md."""
    result = {
        "title": title,
        "question": question,
        "command": command,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"Python": platform.python_version(), **{library: version(library) for library in libraries}},
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "notes": list(notes),
    }
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """Short id of the commit, marked if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return described.stdout.strip()


def machine() -> str:
    """Cores, memory and processor of this machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in facts if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} cores ({model}), {memory_gib:.0f} GiB"
