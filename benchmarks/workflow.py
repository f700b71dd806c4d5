"""Measure the main job: two fresh runs of the tiny recipe, and one of them started again.

`python -m benchmarks.workflow` takes about 15 minutes on two quiet cores and writes results/workflow.json and
results/accuracy.json. Run it on an otherwise idle machine: the load average before and after is part of the result.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from vl3.pipelines.workflows import train_task
from vl3.recipes.catalog import get_recipe

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "benchmark"
DATA = SCRATCH / "data"
COMMAND = "python -m benchmarks.workflow"
LIBRARIES = ("torch", "transformers", "deepspeed", "kfp", "mlflow", "great-expectations")
STAGES = list(get_recipe("tiny").stages)
SCRIPTS = Path(sys.executable).parent


def timed(command: list[str]) -> float:
    """Seconds that a command takes. CalledProcessError if it fails."""
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def run_workflow(name: str) -> tuple[dict[str, Any], float]:
    """Run the tiny recipe in the folder of that name; its record and the seconds seen from outside."""
    folder = SCRATCH / name
    seconds = timed(
        [
            *(sys.executable, "-m", "vl3.cli.main", "run", "start"),
            *("--recipe", "tiny", "--data", str(DATA), "--run", str(folder)),
        ]
    )
    return json.loads((folder / "run.json").read_text(encoding="utf-8")), seconds


def events(name: str, stage: str, kind: str) -> list[dict[str, Any]]:
    """The events of one kind that the stage's training wrote in that run."""
    (path,) = (SCRATCH / name / "artifacts" / "steps" / train_task(stage)).glob("*/training/events.jsonl")
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["type"] == kind]


def losses(name: str) -> list[float]:
    """Every logged loss of the four stages, to the last digit."""
    return [event["values"]["loss"] for stage in STAGES for event in events(name, stage, "metrics")]


def evaluation(name: str) -> dict[str, Any]:
    """The evaluation of that run."""
    (path,) = (SCRATCH / name / "artifacts" / "steps" / "evaluate").glob("*/*/evaluation.json")
    return json.loads(path.read_text(encoding="utf-8"))


def tasks_of(record: dict[str, Any]) -> dict[str, float]:
    """Seconds of each task."""
    return {task["name"]: task["seconds"] for task in record["tasks"]}


def startup_seconds(record: dict[str, Any], name: str) -> float:
    """Seconds from the start of each training task until its workers could take their first step, summed."""
    began = {task["name"]: datetime.fromisoformat(task["started_at"]).timestamp() for task in record["tasks"]}
    return sum(events(name, stage, "start")[0]["time"] - began[train_task(stage)] for stage in STAGES)


def workflow_rows(sample: float, runs: list[tuple[dict[str, Any], float]], again: float) -> list[list[str]]:
    """Figure, measured, target."""
    records = [record for record, _ in runs]
    startup = [startup_seconds(record, name) for record, name in zip(records, ("first", "second"), strict=True)]
    peak = max(record["peak_memory_bytes"] for record in records) / 2**30
    values = (losses("first"), losses("second"))
    differing = sum(a != b for a, b in zip(*values, strict=True))
    both = lambda numbers: " / ".join(f"{number:.0f} s" for number in numbers)  # noqa: E731
    return [
        ["sample corpus, 15,100 samples", f"{sample:.0f} s", "-"],
        ["whole run, two fresh runs", both(seconds for _, seconds in runs), "at most 600 s, better 480 s"],
        *([f"- {task}", both(tasks_of(record)[task] for record in records), "-"] for task in tasks_of(records[0])),
        ["start-up of the four stages together", both(startup), "90 s"],
        ["outside the steps", both(record["overhead_seconds"] for record in records), "10 s"],
        ["peak memory of the process tree", f"{peak:.2f} GiB", "6 GiB"],
        ["the same run again (all reused)", f"{again:.0f} s", "60 s"],
        ["logged losses that differ between the two runs", f"{differing} of {len(values[0])}", "0"],
    ]


def accuracy_rows(result: dict[str, Any]) -> list[list[str]]:
    """One row per category: chance, then each model."""
    models = result["models"]
    rows = []
    for category, first in models[0]["tasks"].items():
        scores = [f"{model['tasks'][category]['accuracy']:.2f}" for model in models]
        rows.append([category, str(first["total"]), f"{first['chance']:.2f}", *scores])
    chance = statistics.mean(task["chance"] for task in models[0]["tasks"].values())
    return [*rows, ["**mean**", "", f"{chance:.2f}", *(f"**{model['mean_accuracy']:.3f}**" for model in models)]]


def main() -> None:
    """Measure and write both results."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    load = os.getloadavg()[0]
    sample = timed([str(SCRIPTS / "vl3"), "data", "sample", "--out", str(DATA), "--seed", "0"])
    runs = [run_workflow("first"), run_workflow("second")]
    _, again = run_workflow("first")
    rows = workflow_rows(sample, runs, again)
    write_result(
        "workflow",
        title="The whole workflow on two cores",
        question="How long does `make run-pipeline` take, and with how much memory?",
        command=COMMAND,
        columns=["", "measured", "target"],
        rows=rows,
        notes=[
            f"Load average before: {load:.1f}. Set-up of the virtual environment is not counted.",
            "Two fresh runs in two folders; the logged losses are compared to the last digit.",
        ],
        libraries=LIBRARIES,
    )
    result = evaluation("first")
    write_result(
        "accuracy",
        title="Held-out accuracy of the tiny recipe",
        question="Does the model learn, and what does each stage add?",
        command=COMMAND,
        columns=["category", "samples", "chance", *(model["name"] for model in result["models"])],
        rows=accuracy_rows(result),
        notes=[
            "Greedy generation, exact match. A stream counts as correct if the right word comes at the right frame."
        ],
        libraries=LIBRARIES,
    )
    for row in rows:
        print(*row, sep=" | ")


if __name__ == "__main__":
    main()
