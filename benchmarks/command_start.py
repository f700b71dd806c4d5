"""How fast does the command line answer? `python -m benchmarks.command_start`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import write_result

COMMANDS = ("--help", "data --help", "recipe list", "recipe show tiny", "stages table")
REPEATS = 15


def seconds_of(arguments: str) -> list[float]:
    """Wall time of each repetition, sorted, without the first, which warms the file cache."""
    command = [str(Path(sys.executable).with_name("vl3")), *arguments.split()]
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])


def main() -> None:
    """Measure and write the result."""
    rows = []
    for arguments in COMMANDS:
        times = seconds_of(arguments)
        rows.append([f"`vl3 {arguments}`", f"{statistics.median(times):.2f}", f"{times[-1]:.2f}"])
        print(*rows[-1])
    write_result(
        "command_start",
        title="The command line answers at once",
        question="Seconds from pressing Enter to the output. The limit for `vl3 --help` is 0.5 s.",
        command="python -m benchmarks.command_start",
        columns=["command", "median s", "slowest s"],
        rows=rows,
        notes=[f"{REPEATS} runs each, bytecode compiled, file cache warm."],
        libraries=["typer", "rich"],
    )


if __name__ == "__main__":
    main()
