"""The kind cluster's start, and the tests on it: what passed, what failed, how long it took.

`make kind-down` first, so that a start is measured; then `python -m benchmarks.cluster.suite [--full]`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.record import ROOT, write_result

KIND_UP_LIMIT_SECONDS = 240.0
CORE_LIMIT_SECONDS = 600.0


def main() -> int:
    """Start the cluster, run the suite, write benchmarks/results/cluster_suite.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="chaos, scale and the whole recipe as well")
    arguments = parser.parse_args()
    kind_up_seconds = _timed([sys.executable, "-m", "kind", "up"])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        options = [] if arguments.full else ["-m", "cluster and not full"]
        suite = [sys.executable, "-m", "pytest", "-q", *options, f"--junitxml={report}", "tests/cluster"]
        suite_seconds = _timed([*suite, "tests/manifests"])
        rows = _rows(report)
    write_result(
        "cluster_suite",
        title="The tests on a kind cluster",
        question="Does everything that runs on a cluster work with the real controllers, and how long do the tests "
        "take?",
        command=f"make kind-down && python -m benchmarks.cluster.suite{' --full' if arguments.full else ''}",
        columns=["tests", "passed", "failed", "skipped", "seconds in total"],
        rows=rows,
        notes=[
            f"`make kind-up` with caches: {kind_up_seconds:.0f} s until everything is ready (limit "
            f"{KIND_UP_LIMIT_SECONDS:.0f} s).",
            f"The {'whole suite' if arguments.full else 'core of the suite'}: {suite_seconds:.0f} s"
            + ("." if arguments.full else f" (limit {CORE_LIMIT_SECONDS:.0f} s)."),
        ],
        libraries=["kubernetes"],
    )
    return 0


def _timed(command: list[str]) -> float:
    """Seconds of a command, even if it fails: failed tests are counted from the report."""
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=False)
    return time.monotonic() - started


def _rows(report: Path) -> list[list[object]]:
    """One row for each file of tests."""
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - written by pytest a moment ago
        name = case.get("classname", "").removeprefix("tests.")
        end = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        ends[name]["failed" if end in ("failure", "error") else end] += 1
        seconds[name] += float(case.get("time", 0))
    return [
        [name, *(ends[name][end] for end in ("passed", "failed", "skipped")), round(seconds[name])]
        for name in sorted(ends)
    ]


if __name__ == "__main__":
    sys.exit(main())
