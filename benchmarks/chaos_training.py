"""Hurt training at random moments and compare its end with a training left alone.

`make chaos` (about 20 minutes on two idle cores) or `python -m benchmarks.chaos_training [--seed 1] [--short]`, which
is a look of a minute with the same code. Four stages of a very small model are trained by two ranks, each from the one
before. Everything is drawn from the seed, which is printed. What is done:

- kills: SIGKILL or SIGTERM to a rank, to torchrun or to the launcher, in start-up, between steps and in saves; the
  final weights of every stage must be bit-identical to those of the undisturbed chain;
- changes of the number of ranks among 1, 2 and 4 and of the ZeRO stage: the same samples in every step, losses close;
- damaged checkpoints: each must be named, and the one before be taken;
- a disk that is full while a checkpoint is saved (a small tmpfs, as root), and an object store that is away;
- `--stalls`: SIGSTOP of a rank, which the launcher's limit on time without progress must notice.
"""

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import ROOT, write_result
from tests.support.damage import DAMAGES, verdict
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.training import StageInputs, make_stage_inputs
from tests.support.weed_server import BUCKET, find_weed, join_server
from vl3.errors import Vl3Error
from vl3.launch.job import LaunchJob
from vl3.launch.local import launch_local
from vl3.store.artifacts import find
from vl3.store.reference import Reference
from vl3.training.events import read_events
from vl3.training.job import StageJob, read_job

STAGES = ("vision_adaptation", "alignment", "multitask", "video")
_LIMIT_SECONDS = 600.0
_TMPFS_BYTES = 600_000


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much is done."""

    stages: int
    steps: int
    kills: int
    worlds: int
    damaged: int
    away_seconds: float


FULL = Amount(stages=4, steps=40, kills=30, worlds=10, damaged=20, away_seconds=60.0)
SHORT = Amount(stages=1, steps=16, kills=2, worlds=1, damaged=8, away_seconds=0.0)


class Attempt:
    """One launch of a stage in a process of its own, so that the launcher can be killed, too."""

    def __init__(
        self, job: StageJob, folder: Path, *, processes: int = 2, environ: dict[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        job.write(folder / "asked.json")
        self.events_path, self.log = Path(job.events_path), folder / "launcher.log"
        command = [sys.executable, "-m", "benchmarks.chaos_training", "--launch", str(folder), str(processes)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | (environ or {}), stdout=log, stderr=log, start_new_session=True
            )
        self._offset = self.events_path.stat().st_size if self.events_path.exists() else 0
        self._until = time.monotonic() + _LIMIT_SECONDS

    def events(self) -> list[dict[str, Any]]:
        """The events of this attempt so far."""
        data = self.events_path.read_bytes()[self._offset :] if self.events_path.exists() else b""
        return [json.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]

    def wait_for(self, is_seen: Callable[[list[dict[str, Any]]], bool]) -> bool:
        """Wait until the events show something; False if the attempt ends before."""
        while self.process.poll() is None:
            if is_seen(self.events()):
                return True
            if time.monotonic() > self._until:
                raise RuntimeError(f"nothing happened in {_LIMIT_SECONDS:g} s; see {self.log}")
            time.sleep(0.01)
        return is_seen(self.events())

    def reach(self, step: int) -> bool:
        """Wait until a step is done."""
        return self.wait_for(lambda events: any(e["type"] == "progress" and e["done"] >= step for e in events))

    def end(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(timeout=_LIMIT_SECONDS)

    def family(self) -> dict[str, list[psutil.Process]]:
        """The processes of the attempt by what they are."""
        found: dict[str, list[psutil.Process]] = {"launcher": [], "torchrun": [], "rank": []}
        with contextlib.suppress(psutil.Error):
            launcher = psutil.Process(self.process.pid)
            found["launcher"].append(launcher)
            for child in launcher.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    line = child.cmdline()
                    if "torch.distributed.run" in line:
                        found["torchrun"].append(child)
                    elif "vl3.training.worker" in line:
                        found["rank"].append(child)
        return found


def launch_one(folder: Path, processes: int) -> None:
    """The launcher's own process: run the stage whose job is in the folder."""
    job = read_job(folder / "asked.json")
    try:
        launch_local(
            LaunchJob(
                name=job.stage,
                backend="local",
                run_id="chaos",
                stage=job.stage,
                module="vl3.training.worker",
                document=asdict(job),
                processes_per_node=processes,
                threads_per_process=1,
                log_path=folder / "stage.log",
                work_uri=job.work_uri,
                events_path=Path(job.events_path),
                failure_path=Path(job.failure_path),
                stall_seconds=30.0,
            ),
            lambda _: None,
        )
    except Vl3Error as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def run_whole(job: StageJob, folder: Path, **settings: Any) -> None:
    """Run a stage to its end."""
    attempt = Attempt(job, folder, **settings)
    if attempt.end() != 0:
        raise RuntimeError(f"an undisturbed stage failed: {attempt.log.read_text(errors='replace')[-2000:]}")


class Chain:
    """Stages in a folder, each from the one before."""

    def __init__(self, inputs: StageInputs, folder: Path, amount: Amount) -> None:
        self._inputs, self._folder, self._amount = inputs, folder, amount

    def job(self, number: int, **overrides: object) -> StageJob:
        """The job of a stage, from 0."""
        before = find((self._folder / STAGES[number - 1] / "model").as_uri()) if number else None
        return stage_job(self._inputs, self._folder / STAGES[number], STAGES[number], before, self._amount, **overrides)

    def folder(self, number: int) -> Path:
        """The folder of a stage."""
        return self._folder / STAGES[number]

    def weights(self, number: int) -> bytes:
        """The published weights of a stage."""
        return (self.folder(number) / "model" / "model.safetensors").read_bytes()


def stage_job(
    inputs: StageInputs, folder: Path, stage: str, before: Reference | None, amount: Amount, **overrides: object
) -> StageJob:
    """A job of any stage."""
    values = {
        f"stages.{stage}.steps": amount.steps,
        f"stages.{stage}.mixture": {"scene_image": 2.0, "text_only": 1.0},
        f"stages.{stage}.packs_per_step": 4,
        "engine.checkpoint_every_steps": 3,
        "engine.log_every_steps": 1,
    }
    return inputs.job(folder, stage=stage, initial_model=before, **(values | overrides))


def kill(attempt: Attempt, rng: random.Random, amount: Amount) -> str:
    """Kill something at a random moment; what was done, in words."""
    where = rng.choice(("start-up", "steps", "steps", "save"))
    if where == "start-up":
        time.sleep(rng.uniform(0.5, 8.0))
    elif where == "steps":
        attempt.wait_for(lambda events: any(e["type"] == "start" for e in events))
        begun = next((e["resumed_from_step"] for e in attempt.events() if e["type"] == "start"), 0)
        attempt.reach(min(begun + rng.randint(1, 8), amount.steps))
        time.sleep(rng.uniform(0, 0.2))
    else:
        attempt.wait_for(lambda events: any(e["type"] == "progress" and e["done"] % 3 == 0 for e in events))
        time.sleep(rng.uniform(0, 0.05))
    family = attempt.family()
    kinds = [kind for kind, members in family.items() if members]
    if not kinds:
        return f"{where}: had ended"
    kind = rng.choice(kinds)
    victim, number = rng.choice(family[kind]), rng.choice((signal.SIGKILL, signal.SIGTERM))
    twice = number == signal.SIGTERM and rng.random() < 0.3
    with contextlib.suppress(psutil.Error):
        victim.send_signal(number)
        if twice:
            time.sleep(0.1)
            victim.send_signal(number)
    return f"{where}: {number.name}{' twice' if twice else ''} to a {kind}"


def kills(chain: Chain, calm: Chain, rng: random.Random, amount: Amount) -> list[str]:
    """Train the stages under fire; RuntimeError if the weights differ."""
    said = []
    for number in range(amount.stages):
        job = chain.job(number)
        for _ in range(math.ceil(amount.kills / amount.stages)):
            attempt = Attempt(job, chain.folder(number))
            what = kill(attempt, rng, amount)
            members = [one for found in attempt.family().values() for one in found]
            code = attempt.end()
            psutil.wait_procs(members, timeout=30)  # ranks end a moment after a killed launcher
            said.append(f"{job.stage}, {what}; exit {code}")
            print(f"  kill {len(said)}: {said[-1]}", flush=True)
        run_whole(job, chain.folder(number))
        if chain.weights(number) != calm.weights(number):
            raise RuntimeError(f"the weights of {job.stage} differ after: {said}")
    return said


def worlds(
    inputs: StageInputs, folder: Path, calm: Path, rng: random.Random, amount: Amount
) -> tuple[list[str], float]:
    """Change the number of ranks and the ZeRO stage; the largest relative difference of a loss."""
    said: list[str] = []
    world, zero, step = 2, 1, 0
    for _ in range(amount.worlds + 1):
        job = stage_job(inputs, folder, STAGES[0], None, amount, **{"engine.zero_stage": zero})
        attempt = Attempt(job, folder, processes=world)
        last = len(said) == amount.worlds
        if not last:
            step = min(step + rng.randint(1, max(1, amount.steps // (amount.worlds + 1))), amount.steps - 1)
            if attempt.reach(step) and (ranks := attempt.family()["rank"]):
                ranks[0].send_signal(signal.SIGTERM)
        code = attempt.end()
        if code not in (0, 143):
            raise RuntimeError(f"world size {world}: exit {code}: {attempt.log.read_text(errors='replace')[-2000:]}")
        said.append(f"{world} ranks at ZeRO {zero}")
        world, zero = rng.choice([one for one in (1, 2, 4) if one != world]), rng.choice((0, 1, 2, 3))
    same = ("supervised_tokens", "visual_tokens", "mix/scene_image", "mix/text_only")
    ours, theirs = (metrics(one / "events.jsonl") for one in (folder, calm))
    for at, values in theirs.items():
        if [values[name] for name in same] != [ours[at][name] for name in same]:
            raise RuntimeError(f"step {at} had other samples after {said}")
    return said, max(abs(ours[at]["loss"] / values["loss"] - 1) for at, values in theirs.items())


def metrics(path: Path) -> dict[int, dict[str, float]]:
    """The values of each step, of the attempt that did it last."""
    return {event["step"]: event["values"] for event in read_events(path) if event["type"] == "metrics"}


def damaged(source: Path, rng: random.Random, count: int) -> list[str]:
    """Damage copies of real checkpoints; RuntimeError if one is not found or the one before is not taken."""
    said = []
    for number in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch) / "work"
            shutil.copytree(source, work)
            name, damage = list(DAMAGES.items())[number % len(DAMAGES)]
            newest, before = sorted(work.iterdir())[-1], sorted(work.iterdir())[-2]
            damage(newest, rng)
            step, note = verdict(work)
            if step != int(before.name.removeprefix("step-")) or not note:
                raise RuntimeError(f"{name} was not found: resumed from {step}; {note}")
            said.append(f"{name}: {note.partition(': ')[2][:160]}")
    return said


def full_disk(inputs: StageInputs, folder: Path, calm: Path, amount: Amount) -> str:
    """A disk that is full for a while: training goes on, the events tell, and the weights are the same."""
    if os.geteuid() != 0:
        return "not tried: only root can mount a small tmpfs"
    disk = folder / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES * 4}", "tmpfs", str(disk)], check=True)
    try:
        job = replace(stage_job(inputs, folder, STAGES[0], None, amount), work_uri=(disk / "work").as_uri())
        attempt = Attempt(job, folder)
        attempt.wait_for(lambda events: any(e["type"] == "start" for e in events))
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        told = attempt.wait_for(lambda events: any("tried again" in e.get("text", "") for e in events))
        filler.unlink()
        code = attempt.end()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    if not told or code != 0:
        raise RuntimeError(f"a full disk was {'told' if told else 'not told'}, exit {code}; see {attempt.log}")
    require_same(folder / "model", calm / "model", "a full disk")
    states = [event["state"] for event in attempt.events() if event["type"] == "checkpoint"]
    return f"told, and the same weights; checkpoints: {', '.join(states)}"


def store_away(inputs: StageInputs, folder: Path, calm: Path, amount: Amount) -> str:
    """An object store that drops every request for a while."""
    if find_weed() is None:
        return "not tried: SeaweedFS's binary is missing"
    server, alive = join_server(folder / "weed")
    proxy = FaultProxy(server.port)
    environ = {"AWS_ENDPOINT_URL": proxy.endpoint, "AWS_ACCESS_KEY_ID": "admin", "AWS_REGION": "us-east-1"}
    environ |= {"AWS_SECRET_ACCESS_KEY": "admin-secret"}
    try:
        job = replace(stage_job(inputs, folder, STAGES[0], None, amount), work_uri=f"s3://{BUCKET}/{folder.name}/work")
        attempt = Attempt(job, folder, environ=environ)
        attempt.reach(4)
        with proxy.fault(Fault("reset", times=10**9)):
            time.sleep(amount.away_seconds)
            done = max((e["done"] for e in attempt.events() if e["type"] == "progress"), default=0)
        code = attempt.end()
    finally:
        proxy.close()
        os.close(alive)
    if code != 0 or done <= 4:
        raise RuntimeError(f"exit {code}, {done} steps were done while the store was away; see {attempt.log}")
    require_same(folder / "model", calm / "model", "a store that was away")
    states = [event["state"] for event in attempt.events() if event["type"] == "checkpoint"]
    return f"{done - 4} steps were trained in {amount.away_seconds:g} s without it; checkpoints: {', '.join(states)}"


def stalled(inputs: StageInputs, folder: Path, amount: Amount) -> str:
    """SIGSTOP of a rank: the launcher must notice and end the stage."""
    attempt = Attempt(stage_job(inputs, folder, STAGES[0], None, amount), folder)
    attempt.reach(3)
    attempt.family()["rank"][-1].send_signal(signal.SIGSTOP)
    started = time.monotonic()
    code = attempt.end()
    return f"noticed after {time.monotonic() - started:.0f} s, exit {code}"


def require_same(ours: Path, theirs: Path, after: str) -> None:
    """Raise RuntimeError if the weights differ."""
    if any((one / "model.safetensors").stat().st_size == 0 for one in (ours, theirs)) or (
        (ours / "model.safetensors").read_bytes() != (theirs / "model.safetensors").read_bytes()
    ):
        raise RuntimeError(f"the weights differ after {after}")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long a part took."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def torment(amount: Amount, seed: int, folder: Path, *, stalls: bool = False) -> list[list[str]]:
    """Everything; the rows of the result. RuntimeError names what went wrong.

    Args:
        amount: how much.
        seed: of everything that is drawn.
        folder: an empty one.
        stalls: also stop a rank.
    """
    rng, rows = random.Random(seed), []
    inputs = make_stage_inputs(folder / "inputs")
    calm, hurt = Chain(inputs, folder / "calm", amount), Chain(inputs, folder / "hurt", amount)
    with timed("undisturbed"):
        for number in range(amount.stages):
            run_whole(calm.job(number), calm.folder(number))
    with timed("kills"):
        said = kills(hurt, calm, rng, amount)
    rows.append(["kills", str(len(said)), f"weights of {amount.stages} stage(s) bit-identical"])
    with timed("numbers of ranks"):
        said, largest = worlds(inputs, folder / "worlds", calm.folder(0), rng, amount)
    if largest > 1e-4:
        raise RuntimeError(f"a loss differs by {largest:.1e} after {said}")
    rows.append(["changes of the number of ranks", str(len(said) - 1), f"same samples, losses within {largest:.1e}"])
    with timed("damaged checkpoints"):
        said = damaged(whole_checkpoints(calm.folder(0)), rng, amount.damaged)
    rows.append(["damaged checkpoints", str(len(said)), "all named, the one before taken"])
    if amount.away_seconds:
        rows.append(["a full disk", "1", full_disk(inputs, folder / "full", calm.folder(0), amount)])
        rows.append(["a store that is away", "1", store_away(inputs, folder / "away", calm.folder(0), amount)])
    if stalls:
        rows.append(["a rank that is stopped", "1", stalled(inputs, folder / "stalled", amount)])
    return rows


def whole_checkpoints(stage: Path) -> Path:
    """The checkpoints of a finished stage without that of the last step, which has the weights alone."""
    work = stage / "resumable"
    shutil.copytree(stage / "work", work)
    shutil.rmtree(sorted(work.iterdir())[-1])
    return work


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["--launch"]:
        return launch_one(Path(sys.argv[2]), int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--short", action="store_true", help="a look of a minute; nothing is recorded")
    parser.add_argument("--stalls", action="store_true", help="also stop a rank")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="vl3-chaos-"))
    rows = torment(SHORT if arguments.short else FULL, arguments.seed, folder, stalls=arguments.stalls)
    shutil.rmtree(folder)
    for row in rows:
        print(*row, sep=" | ")
    if not arguments.short:
        write_result(
            "chaos_training",
            title="Training under fire",
            question="Does training end with the same weights whatever is done to its processes and its store?",
            command=f"make chaos SEED={arguments.seed}",
            columns=["what", "how often", "result"],
            rows=rows,
            notes=["Two ranks of one thread, a model of a few ten thousand parameters, ZeRO 1; saves every 3 steps."],
            libraries=["torch", "deepspeed"],
        )
    return None


if __name__ == "__main__":
    main()
