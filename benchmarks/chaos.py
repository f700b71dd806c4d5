"""Kill the whole chain at 25 random moments, damage its files in between, and compare the end with a run left alone.

`python -m benchmarks.chaos` takes 30 to 60 minutes on two cores and writes results/chaos.json. `--steps 4` is a quick
look with untrained models. The kills go through the tasks in their order, so that evaluation, promotion, report and
finish are hit too; the moment within a task, the victim, the signal and the damage are drawn from `--seed`.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import write_result
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.pipelines.workflows import train_task
from vl3.recipes.catalog import get_recipe
from vl3.system.processes import end_marked, find_marked
from vl3.system.uris import sqlite_uri

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / "build" / "chaos"
STAGES = list(get_recipe("tiny").stages)
TRAINING = [train_task(stage) for stage in STAGES]
KILLS = {
    "check-prerequisites": 1,
    "import-start": 1,
    "build-data": 2,
    "validate-data": 1,
    **dict.fromkeys(TRAINING, 3),
    "evaluate": 3,
    "promote": 2,
    "report": 2,
    "finish": 1,
}
"""How often each task is hit; 25 in all."""
VICTIMS = ("everything", "runner", "step", "any one process", "SIGTERM to the runner", "SIGINT to the runner")
NOISE = (b"", b"{}", b"[1]", b"\x00\xff\x00noise", b'{"half": ', b'{"temporary": "/", "mark": "1:1", "pid": 1}')
_EXPECTED_EXITS = (0, 2, 3, 4, 5, 6, 130, 143, -signal.SIGKILL)


@dataclass
class Chain:
    """One run folder with everything that belongs to it."""

    folder: Path
    overrides: list[str]
    log: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run's own folder."""
        return self.folder / "run"

    @property
    def database(self) -> Path:
        """Runs and model versions."""
        return self.folder / "mlflow.db"

    def start(self) -> "subprocess.Popen[str]":
        """Start the run, or start it again."""
        command = [sys.executable, "-m", "vl3.cli.main", "run", "start", "--recipe", "tiny", "--run", str(self.run)]
        command += ["--data", str(self.folder / "data"), "--tracking", sqlite_uri(self.database)]
        return subprocess.Popen(
            [*command, *(f"--set={one}" for one in self.overrides)],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(self.folder / "tmp")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def state(self, task: str) -> str:
        """State of a task in its status file; empty if there is none."""
        try:
            return str(json.loads((self.run / "status" / f"{task}.json").read_bytes()).get("state"))
        except (OSError, ValueError, AttributeError):
            return ""

    def note(self, line: str) -> None:
        """Keep a line, and say it."""
        self.log.append(line)
        print(line, flush=True)


def prepare(folder: Path, steps: int) -> Chain:
    """A chain with its own data and bases, so that they can be damaged."""
    (folder / "tmp").mkdir(parents=True)
    if not (SCRATCH / "data").exists():
        scale = ["--scale", "0.02", "--heldout", "4"] if steps else []
        program = "import sys; from vl3.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", program, "data", "sample", "--out", str(SCRATCH / "data"), "--seed", "0"]
        subprocess.run([*command, *scale], check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(SCRATCH / "data", folder / "data")
    shutil.copytree(ROOT / "src" / "vl3" / "recipes" / "bases", folder / "bases")
    overrides = [f"model.{kind}_base={(folder / 'bases' / f'tiny_{kind}').as_uri()}" for kind in ("vision", "language")]
    if steps:
        overrides += [f"stages.{stage}.steps={steps}" for stage in STAGES]
        overrides += ["engine.log_every_steps=2", "engine.checkpoint_every_steps=2", "evaluation.samples_per_task=4"]
    return Chain(folder, overrides)


def finish(chain: Chain) -> str:
    """Run to the end; the last line of stderr. RuntimeError if it does not end well."""
    process = chain.start()
    _, err = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode}: {err[-2000:]}")
    return err


def results(chain: Chain) -> dict[str, Any]:
    """What must be the same after any number of kills."""
    weights = {}
    for task in TRAINING:
        (path,) = (chain.run / "artifacts" / "steps" / task).glob("*/checkpoint/model.safetensors")
        weights[task] = hashlib.sha256(path.read_bytes()).hexdigest()
    (evaluation,) = (chain.run / "artifacts" / "steps" / "evaluate").glob("*/evaluation/evaluation.json")
    scores = {
        model["name"]: {name: task["correct"] for name, task in model["tasks"].items()}
        for model in json.loads(evaluation.read_text())["models"]
    }
    return {"weights": weights, "scores": scores} | registered(chain.database)


def registered(database: Path) -> dict[str, Any]:
    """Versions by their source's task, aliases, and runs that never ended."""
    with sqlite3.connect(database) as connection:
        sources = [source for (source,) in connection.execute("select source from model_versions order by version")]
        aliases = connection.execute("select alias from registered_model_aliases").fetchall()
        open_runs = connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
    return {
        "versions": sorted(next(task for task in TRAINING if task in source) for source in sources),
        "aliases": sorted(alias for (alias,) in aliases),
        "runs without an end": open_runs,
    }


def left_over(chain: Chain) -> list[str]:
    """Temporary files and unfinished work."""
    kept = [*chain.run.rglob("*.tmp"), *chain.run.rglob(".*.tmp*"), *(chain.folder / "tmp").iterdir()]
    kept += (chain.run / "artifacts" / "work").glob("*/*")
    return sorted({path.relative_to(chain.folder).as_posix() for path in kept})


def kill_in(chain: Chain, task: str, seconds: float, draw: random.Random) -> str:
    """Start the run, and kill it `seconds` after `task` began its work. Returns what happened, in words."""
    (chain.run / "status" / f"{task}.json").unlink(missing_ok=True)
    process = chain.start()
    mark = f"{RUNNER_VARIABLE}={runner_mark(process.pid)}"
    while chain.state(task) != "running":
        if process.poll() is not None:
            _, err = process.communicate()
            require_clear(process.returncode, err)
            return f"ended with {process.returncode} before {task}: {last_line(err)}"
        time.sleep(0.02)
    time.sleep(draw.uniform(0, seconds))
    if process.poll() is not None:
        _, err = process.communicate()
        require_clear(process.returncode, err)
        if process.returncode:
            return f"ended with {process.returncode} in {task}: {last_line(err)}"
        return f"too late in {task}: the run had ended well"
    victim = draw.choice(VICTIMS)
    kill(process, mark, victim, chain, task, draw)
    _, err = process.communicate()
    require_clear(process.returncode, err)
    if find_marked(mark):
        time.sleep(20)
        if left := find_marked(mark):
            end_marked(mark, grace_seconds=0)
            raise RuntimeError(f"left behind after {victim}: {left}")
    return f"{victim}, exit {process.returncode}: {last_line(err)}"


def kill(
    process: "subprocess.Popen[str]", mark: str, victim: str, chain: Chain, task: str, draw: random.Random
) -> None:
    """Send the signal."""
    marked = find_marked(mark)
    if victim == "everything":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "any one process" and marked:
        signal_one(draw.choice(marked).pid, signal.SIGKILL)
    elif victim == "step":
        status = json.loads((chain.run / "status" / f"{task}.json").read_bytes())
        signal_one(status["pid"], signal.SIGKILL)
    else:
        number = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}.get(victim.split()[0], signal.SIGKILL)
        signal_one(process.pid, number)


def signal_one(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).send_signal(number)


def last_line(err: str) -> str:
    """What a person reads last."""
    return (err.strip().splitlines() or ["(nothing on stderr)"])[-1][:300]


def require_clear(code: int, err: str) -> None:
    """No traceback, no defect of ours, an exit code with a meaning."""
    if "Traceback" in err or "defect of vl3" in err or code not in _EXPECTED_EXITS:
        raise RuntimeError(f"exit {code} with: {err[-3000:]}")


def damage(chain: Chain, draw: random.Random) -> tuple[str, Callable[[], None] | None]:
    """Damage one thing; returns its name and the remedy that a person would apply after a clear refusal."""
    kinds: dict[str, list[Path]] = {
        "record": list(chain.run.glob("artifacts/steps/*/*.json")),
        "lock": [chain.run / "run.lock", *chain.run.glob("artifacts/**/*.lock")],
        "status": list(chain.run.glob("status/*.json")),
        "run.json": [chain.run / "run.json"],
        "shard": list(chain.run.glob("artifacts/steps/build-data/*/dataset/*.tar")),
        "index": list(chain.run.glob("artifacts/steps/build-data/*/dataset/index.parquet")),
        "manifest": list(chain.run.glob("artifacts/**/manifest.json")),
        "checkpoint": list(chain.run.glob("artifacts/steps/train-*/*/checkpoint/model.safetensors")),
        "training state": list(chain.run.glob("artifacts/work/**/*.safetensors")),
        "journal": list(chain.run.glob("artifacts/work/**/events.jsonl")),
        "mlflow.db": [chain.database],
        "base": list(chain.folder.glob("bases/tiny_*/model.safetensors")),
    }
    found = {kind: [path for path in paths if path.is_file()] for kind, paths in kinds.items()}
    kind = draw.choice([kind for kind, paths in found.items() if paths])
    path = draw.choice(found[kind])
    whole = path.read_bytes()
    # One bit of a base is another base: nothing says which one a team meant, before a run has recorded its digest.
    path.write_bytes(damaged(whole, draw, ("cut", "noise") if kind == "base" else ("cut", "bit", "noise")))

    def remedy() -> None:
        path.write_bytes(whole)

    # Only what a run is given needs a person; what it made itself, it makes again.
    return f"{kind} {path.relative_to(chain.folder)}", remedy if kind in ("base", "mlflow.db") else None


def damaged(whole: bytes, draw: random.Random, kinds: tuple[str, ...]) -> bytes:
    """Cut short, one bit changed, or noise."""
    kind = draw.choice(kinds)
    if kind == "noise" or not whole:
        return draw.choice(NOISE)
    if kind == "cut":
        return whole[: draw.randrange(len(whole))]
    changed = bytearray(whole)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def attack(chain: Chain, durations: dict[str, float], draw: random.Random) -> int:
    """All kills, with damage after each, and a run to the end; returns the refusals that needed a person's remedy."""
    refusals, number = 0, 0
    waiting: list[Callable[[], None]] = []
    for task, times in KILLS.items():
        hits = 0
        while hits < times:
            said = kill_in(chain, task, 0.9 * durations.get(task, 2.0), draw)
            if said.startswith("too late"):
                continue
            if said.startswith("ended with"):  # damage stopped the run before the kill
                restore(chain, said, waiting)
                refusals += 1
                continue
            hits, number = hits + 1, number + 1
            chain.note(f"{number:3} killed in {task}: {said}")
            what, remedy = damage(chain, draw)
            waiting += [remedy] if remedy else []
            chain.note(f"     damaged: {what}")
    try:
        finish(chain)
    except RuntimeError as error:
        restore(chain, last_line(str(error)), waiting)
        finish(chain)
        refusals += 1
    return refusals


def restore(chain: Chain, said: str, waiting: list[Callable[[], None]]) -> None:
    """Do what the refusal asks for. RuntimeError if nothing that a run is given was damaged."""
    if not waiting:
        raise RuntimeError(f"refused without a reason: {said}")
    chain.note(f"     refused: {said}; restored")
    for remedy in reversed(waiting):
        remedy()
    waiting.clear()


def main() -> None:
    """Run both chains, compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="steps of each stage; 0 is the whole tiny recipe")
    arguments = parser.parse_args()
    shutil.rmtree(SCRATCH / "alone", ignore_errors=True)
    shutil.rmtree(SCRATCH / "killed", ignore_errors=True)
    started = time.monotonic()
    alone = prepare(SCRATCH / "alone", arguments.steps)
    finish(alone)
    undisturbed = time.monotonic() - started
    tasks = json.loads((alone.run / "run.json").read_text())["tasks"]
    durations = {task["name"]: float(task.get("seconds") or 2.0) for task in tasks}
    print(f"the run left alone took {undisturbed:.0f} s: {durations}", flush=True)
    killed = prepare(SCRATCH / "killed", arguments.steps)
    started = time.monotonic()
    refusals = attack(killed, durations, random.Random(arguments.seed))
    seconds = time.monotonic() - started
    wanted, got = results(alone), results(killed)
    rows = [
        [name, "same" if got[name] == wanted[name] else f"{got[name]} instead of {wanted[name]}"] for name in wanted
    ]
    rows += [["left over", ", ".join(left_over(killed)) or "nothing"], ["refusals that needed a person", str(refusals)]]
    rows += [["seconds", f"{seconds:.0f} against {undisturbed:.0f} left alone"]]
    for row in rows:
        print(*row, sep=": ", flush=True)
    write_result(
        "chaos",
        title="The chain under kills and damage",
        question="Do 25 kills at random moments, with a damaged file after each, leave the result as it is?",
        command=f"python -m benchmarks.chaos --seed {arguments.seed}"
        + f" --steps {arguments.steps}" * bool(arguments.steps),
        columns=["what", "after the kills"],
        rows=rows,
        notes=killed.log,
        libraries=("torch", "deepspeed", "mlflow", "kfp"),
    )


if __name__ == "__main__":
    main()
