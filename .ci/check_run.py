"""Check a finished run: `check_run.py RUN_FOLDER first|again`. Exits with 1 and the reasons if something is wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MAX_SECONDS = {"first": 900.0, "again": 60.0}


def problems(folder: Path, attempt: str) -> list[str]:
    """What is wrong in the run's record, report and registry."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    expected = "done" if attempt == "first" else "reused"
    found = []
    if record["state"] != "succeeded" or record["exit_code"] != 0:
        found.append(f"the run's state is {record['state']!r} (exit code {record['exit_code']}): {record['error']}")
    found += [
        f"{task['name']} is {task['state']}, not {expected}" for task in record["tasks"] if is_off(task, expected)
    ]
    if record["seconds"] > MAX_SECONDS[attempt]:
        found.append(f"the run took {record['seconds']} s, more than {MAX_SECONDS[attempt]}")
    found += [
        f"{name} is missing" for name in ("report.html", "report.json") if not (folder / "report" / name).exists()
    ]
    versions = registered(folder)
    if "champion" not in versions:
        found.append(f"no version was promoted:\n{versions}")
    return found


def is_off(task: dict[str, Any], expected: str) -> bool:
    """Whether a task has a wrong state; the first and the last task are never reused."""
    return task["state"] != (expected if task["name"] not in ("check-prerequisites", "finish") else "done")


def registered(folder: Path) -> str:
    """The table of model versions, as a user sees it."""
    command = [str(Path(sys.executable).with_name("vl3")), "registry", "list", "--run", str(folder.absolute())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Print the record's figures, then what is wrong."""
    folder, attempt = Path(sys.argv[1]), sys.argv[2]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    peak = (record["peak_memory_bytes"] or 0) / 2**30
    print(f"{record['state']} in {record['seconds']} s, {record['overhead_seconds']} s outside steps, {peak:.2f} GiB")
    found = problems(folder, attempt)
    for problem in found:
        print(f"check_run: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
