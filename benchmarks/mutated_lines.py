"""What does a damaged line cost? 3,000 of them through the real build: `python -m benchmarks.mutated_lines`.

Each build has 200 mutated lines among 70 good ones. Nothing may end with a traceback, hang, take more than 1 GiB in a
process, or change a good line's row.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import write_result
from tests.support.line_mutations import mutate, valid_lines, write_media
from vl3.data.build.index import DatasetIndex
from vl3.data.sample.problems import ProblemKind

MUTATED_PER_BUILD = 200
CONTROLS = 70
TIMEOUT_SECONDS = 600
MOVED_COLUMNS = ("shard", "offset_bytes", "where", "sha256")
"""Columns of a good line that depend on how many lines come before it."""


def control_lines() -> list[bytes]:
    """Good lines of all kinds, each with its own id and text."""
    kinds = valid_lines()
    return [json.dumps({**kinds[n % len(kinds)], "id": f"control-{n}"}).encode() for n in range(CONTROLS)]


def mixed(seed: int) -> bytes:
    """An annotation file of mutated lines and, between them, the good ones."""
    rng = random.Random(seed)
    kinds = valid_lines()
    lines = [
        mutate({**rng.choice(kinds), **({"id": f"mutated-{seed}-{n}"} if n % 3 else {})}, rng)
        for n in range(MUTATED_PER_BUILD)
    ]
    for control in control_lines():
        lines.insert(rng.randrange(len(lines) + 1), control)
    return b"\n".join(lines) + b"\n"


def build(folder: Path, annotations: bytes, name: str) -> dict[str, Any]:
    """One `vl3 data build`: exit status, both streams, seconds, and the highest peak of memory of its processes."""
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "train.jsonl").write_bytes(annotations)
    command = [sys.executable, "-m", "benchmarks.mutated_lines", "--cli"]
    command += ["data", "build", "--data", str(folder), "--out", str(folder / name)]
    command += ["--set", "data.build_workers=2", "--set", "data.holdout_fraction=0"]
    begun = time.monotonic()
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        peak = 0
        while process.poll() is None and time.monotonic() - begun < TIMEOUT_SECONDS:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.05)
        process.kill()
        process.wait()
    return {
        "status": process.returncode,
        "out": (folder / f"{name}.out").read_text(encoding="utf-8"),
        "err": (folder / f"{name}.err").read_text(encoding="utf-8"),
        "seconds": time.monotonic() - begun,
        "peak_bytes": peak,
    }


def peak_bytes(pid: int) -> int:
    """The highest memory that the process or one of its children has had so far."""
    peak = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            peaks = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
            peak = max(peak, *peaks, 0)
    except (psutil.NoSuchProcess, OSError):
        pass
    return peak


def control_rows(dataset: Path) -> dict[str, dict[str, Any]]:
    """The rows of the good lines, without what depends on their place."""
    rows = DatasetIndex.read(dataset).table.to_pylist()
    return {
        row["sample_id"]: {name: value for name, value in row.items() if name not in MOVED_COLUMNS}
        for row in rows
        if row["sample_id"].startswith("control-")
    }


def check(result: dict[str, Any], dataset: Path, wanted: dict[str, Any], lines: int) -> Counter[str]:
    """The kinds of problem that a build found.

    Raises:
        AssertionError: the build failed, or one of the promises is broken.
    """
    assert result["status"] == 0, result["err"][-2000:]
    assert "Traceback" not in result["err"], result["err"][-2000:]
    assert control_rows(dataset) == wanted
    rows = DatasetIndex.read(dataset).table.to_pylist()
    assert len(rows) == lines, (len(rows), lines)
    problems = [row["problem"] for row in rows if row["problem"] is not None]
    assert all(problem.isprintable() and len(problem) <= 1000 for problem in problems)
    blamed = [problem for problem in problems if "the decoder" in problem]
    assert not blamed, blamed
    kinds = Counter(row["problem_kind"] or "good" for row in rows)
    assert set(kinds) <= {*ProblemKind, "good"}
    return kinds


def main() -> None:
    """Build again and again, with other mutations; write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=3000, help="mutated lines in all")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    kinds: Counter[str] = Counter()
    peak = 0
    seconds: list[float] = []
    builds = -(-arguments.lines // MUTATED_PER_BUILD)
    with tempfile.TemporaryDirectory(prefix="vl3-mutated-") as temporary:
        folder = Path(temporary)
        write_media(folder)
        alone = build(folder, b"\n".join(control_lines()), "controls")
        wanted = control_rows(folder / "controls")
        assert alone["status"] == 0, alone["err"]
        assert all(row["problem"] is None for row in wanted.values())
        assert len(wanted) == CONTROLS
        for seed in range(arguments.seed, arguments.seed + builds):
            annotations = mixed(seed)
            lines = sum(bool(line.strip(b" \t\r")) for line in annotations.split(b"\n"))
            result = build(folder, annotations, f"dataset-{seed}")
            kinds += check(result, folder / f"dataset-{seed}", wanted, lines)
            peak, seconds = max(peak, result["peak_bytes"]), [*seconds, result["seconds"]]
            print(f"seed {seed}: {result['seconds']:.1f} s, peak {result['peak_bytes'] / 2**20:.0f} MiB", flush=True)
    kinds["good"] -= builds * CONTROLS
    write_result(
        "mutated_lines",
        title="Damaged annotation lines",
        question="What do 3,000 mutated lines cost in the real build: tracebacks, time, memory, other lines?",
        command="python -m benchmarks.mutated_lines",
        columns=["quantity", "value"],
        rows=[
            ["mutated lines", builds * MUTATED_PER_BUILD],
            ["tracebacks, failed builds, good lines changed", 0],
            ["highest memory of one process (MiB)", round(peak / 2**20)],
            [
                "seconds per build of 270 lines, median and highest",
                f"{sorted(seconds)[builds // 2]:.1f}, {max(seconds):.1f}",
            ],
            *([f"mutated lines that are {kind}", count] for kind, count in sorted(kinds.items())),
        ],
        notes=[
            "Each build is `vl3 data build` in processes of its own, with 200 mutated lines among 70 good ones of "
            "every kind of record. Lines that still mean something are good: a dropped optional key, another text.",
            "A newline put into a line makes two of it, so the kinds add up to a little more than the mutated lines.",
        ],
        libraries=("tokenizers", "pyarrow", "av", "pillow"),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cli"]:
        from vl3.cli.main import run

        raise SystemExit(run(sys.argv[2:]))
    main()
