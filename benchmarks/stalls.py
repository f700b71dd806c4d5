"""How soon a rank that stalls is noticed, named and gone on from: SIGSTOP, and a hang in Python code.

`python -m benchmarks.stalls` takes about twelve minutes and writes results/stalls.json. Two real processes train a
small stage; after some steps rank 1 is stopped, or hangs in its forward pass. Measured is the time from then until the
stage's note names it, and until the next step is done after the restart from the checkpoint.
"""

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from tests.support.training import StageInputs, make_stage_inputs
from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.local import launch_local
from vl3.training.heart import heart_path, read_beats

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "stalls"
STEPS = 60
_SLOWEST = re.compile(r"the slowest step took ([\d.]+) s")


@dataclass
class Trial:
    """One stalled rank."""

    kind: str
    stalled_at: float = 0.0
    noticed_seconds: float = 0.0
    slowest_seconds: float = 0.0
    restarted_seconds: float = 0.0
    names_rank: bool = False
    shows_code: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def beyond_seconds(self) -> float:
        """How much longer than the slowest step it took to notice."""
        return self.noticed_seconds - self.slowest_seconds


def run_trial(kind: str, inputs: StageInputs, folder: Path, *, margin_seconds: float, step: int) -> Trial:
    """Stall rank 1 in a step; returns when the stage has ended well."""
    wish = folder / "hang"
    os.environ["VL3_BENCHMARK_HANG"] = str(wish)
    trial = Trial(kind)

    def stall() -> None:
        if kind == "stopped":
            os.kill(_pid_of_rank_one(), signal.SIGSTOP)
        else:
            wish.touch()
        trial.stalled_at = time.monotonic()

    def on_event(event: dict[str, Any]) -> None:
        now = time.monotonic()
        trial.events.append(event)
        if event["type"] == "progress" and event["done"] >= step and not trial.stalled_at:
            stall()
        elif event["type"] == "note" and "stalled" in event["text"] and not trial.noticed_seconds:
            trial.noticed_seconds = now - trial.stalled_at
            found = _SLOWEST.search(event["text"])
            trial.slowest_seconds = float(found[1]) if found else 0.0
            trial.names_rank = event["text"].startswith("rank 1 stalled")
            wish.unlink(missing_ok=True)
        elif event["type"] == "progress" and trial.noticed_seconds and not trial.restarted_seconds:
            trial.restarted_seconds = now - trial.stalled_at

    result = _launch(inputs, folder, on_event, margin_seconds)
    assert result.attempts == 2, result
    trial.shows_code = "hang_for_ever" in (folder / "workers.log").read_text(encoding="utf-8", errors="replace")
    return trial


def _launch(
    inputs: StageInputs, folder: Path, on_event: Callable[[dict[str, Any]], None], margin_seconds: float
) -> LaunchResult:
    overrides: dict[str, Any] = {
        "stages.vision_adaptation.steps": STEPS,
        "engine.log_every_steps": 1,
        "engine.checkpoint_every_steps": 5,
        "launch.processes_per_node": 2,
    }
    job = inputs.job(folder, **overrides)
    return launch_local(
        LaunchJob(
            name="stalls",
            backend="local",
            run_id="stalls",
            stage=job.stage,
            module="benchmarks.stalling_worker",
            document=asdict(job),
            processes_per_node=2,
            threads_per_process=1,
            events_path=Path(job.events_path),
            failure_path=Path(job.failure_path),
            work_uri=job.work_uri,
            rank_stall_seconds=margin_seconds,
        ),
        on_event,
    )


def _pid_of_rank_one() -> int:
    """From the hearts of the newest launch, which are in a scratch folder of its own."""
    folders = sorted(Path("/tmp").glob("vl3-torchrun-*"), key=lambda path: path.stat().st_mtime)  # noqa: S108
    folder = next(path for path in reversed(folders) if heart_path(path, 1).exists())
    return next(beat.pid for beat in read_beats(folder) if beat.rank == 1)


def main() -> None:
    """Some trials of each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=5, help="of each kind")
    parser.add_argument("--margin-seconds", type=float, default=45.0, help="engine.rank_stall_seconds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    print(f"seed {arguments.seed}")
    shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True)
    inputs = make_stage_inputs(SCRATCH)
    assert threading.current_thread() is threading.main_thread()
    trials = []
    for number in range(2 * arguments.trials):
        kind = ("stopped", "hangs")[number % 2]
        folder = SCRATCH / f"{number}-{kind}"
        folder.mkdir()
        step = draw.randrange(3, STEPS // 2)
        trials.append(run_trial(kind, inputs, folder, margin_seconds=arguments.margin_seconds, step=step))
        shown = trials[-1]
        print(f"{kind} after step {step}: noticed {shown.noticed_seconds:.1f} s", flush=True)
    rows = []
    for kind in ("stopped", "hangs"):
        mine = [trial for trial in trials if trial.kind == kind]
        beyond = [trial.beyond_seconds for trial in mine]
        rows.append(
            [
                {"stopped": "SIGSTOP", "hangs": "waits for ever in its forward pass"}[kind],
                len(mine),
                f"{statistics.median(beyond):.1f}",
                f"{max(beyond):.1f}",
                f"{statistics.median([trial.restarted_seconds for trial in mine]):.1f}",
                f"{sum(trial.names_rank for trial in mine)} of {len(mine)}",
                f"{sum(trial.shows_code for trial in mine)} of {len(mine)}" if kind == "hangs" else "no stack: stopped",
            ]
        )
    write_result(
        "stalls",
        title="A rank that stalls",
        question="How soon is a stalled rank noticed and named, and when does training go on?",
        command="python -m benchmarks.stalls",
        columns=[
            "rank 1",
            "trials",
            "noticed after the slowest step, median (s)",
            "longest (s)",
            "next step done, median (s)",
            "named",
            "its code in the stacks",
        ],
        rows=rows,
        notes=[
            f"engine.rank_stall_seconds={arguments.margin_seconds:g}, two processes, seed {arguments.seed}; the rank "
            "stalls after a step drawn at random.",
        ],
        libraries=("torch", "deepspeed"),
    )


if __name__ == "__main__":
    main()
