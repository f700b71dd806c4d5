"""What does it cost to start a stage? `python -m benchmarks.stage_start` (a minute).

A tiny stage of one step is launched as `vl3` launches it. Counted is CPU time, because the wall time of a start is that
of a machine with several processes on it: of each worker up to its first step, and of the whole launch from torchrun
to the published weights.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from tests.support.training import StageInputs, make_stage_inputs
from vl3.launch.job import LaunchJob
from vl3.launch.local import launch_local
from vl3.training.events import read_events
from vl3.training.job import StageJob

LIMIT_SECONDS = 4.0
_HEAVY = ("transformers", "sympy", "torch._dynamo", "mlflow", "pandas", "scipy", "triton", "peft")


def children_seconds() -> float:
    """CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def launch(inputs: StageInputs, folder: Path, processes: int) -> tuple[float, float, float]:
    """CPU seconds of rank 0 up to its first step, CPU seconds of all processes, wall seconds up to the first step."""
    settings: dict[str, Any] = {
        "stages.vision_adaptation.steps": 1,
        "launch.processes_per_node": processes,
        "loader.processes": 1,
        "engine.log_every_steps": 1,
    }
    job = inputs.job(folder, **settings)
    before = children_seconds()
    launch_local(_launch_job(job, processes), lambda _: None)
    start = next(event for event in read_events(Path(job.events_path)) if event["type"] == "start")
    return start["startup_cpu_seconds"], children_seconds() - before, start["startup_seconds"]


def _launch_job(job: StageJob, processes: int) -> LaunchJob:
    return LaunchJob(
        name="train-vision-adaptation",
        backend="local",
        run_id="benchmark",
        stage=job.stage,
        module="vl3.training.worker",
        document=asdict(job),
        processes_per_node=processes,
        threads_per_process=1,
        events_path=Path(job.events_path),
        failure_path=Path(job.failure_path),
        work_uri=job.work_uri,
    )


def worker_imports() -> tuple[float, list[str]]:
    """CPU seconds of a worker's imports alone, and which of the heavy libraries that training does not need are in."""
    program = (
        "import sys, time; from vl3.system.imports import lean_imports\n"
        "with lean_imports():\n    import vl3.training.engine, vl3.training.stage\n"
        f"print(time.process_time(), *[m for m in {_HEAVY} if sys.modules.get(m)])"
    )
    command = [sys.executable, "-c", program]
    seconds, *heavy = (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1].split()
    )
    return float(seconds), heavy


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    imports, heavy = worker_imports()
    rows = [["imports of a worker", "1", f"{imports:.2f}", "-", "-"]]
    with tempfile.TemporaryDirectory(prefix="vl3-start-") as scratch:
        inputs = make_stage_inputs(Path(scratch))
        for processes in (1, 2):
            found = [
                launch(inputs, Path(scratch) / f"{processes}-{number}", processes) for number in range(repeats + 1)
            ]
            first, whole, wall = (statistics.median(values) for values in zip(*found[1:], strict=True))
            row = ["launch to first step", str(processes), f"{first:.2f}", f"{whole / processes:.2f}", f"{wall:.1f}"]
            rows.append(row)
            print(*row)
    write_result(
        "stage_start",
        title="Starting a stage",
        question=f"CPU seconds from launch to the first step of a tiny stage; at most {LIMIT_SECONDS:g} a process.",
        command="python -m benchmarks.stage_start",
        columns=["what", "processes", "CPU s of a worker", "CPU s of the whole launch / processes", "wall s"],
        rows=rows,
        notes=[
            f"Median of {repeats} after one that warms the file cache. The whole launch includes torchrun, the "
            "decoding processes, the step itself and the published weights.",
            f"Heavy libraries that a worker imports without need: {', '.join(heavy) or 'none'} of {', '.join(_HEAVY)}.",
        ],
        libraries=["torch", "deepspeed"],
    )


if __name__ == "__main__":
    main()
