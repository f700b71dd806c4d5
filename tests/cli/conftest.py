"""Runs the workflow as a user does: `vl3 run start` in a separate process, on a small corpus."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import make_once
from vl3.store.artifacts import fetch
from vl3.store.objects import open_store
from vl3.store.reference import Reference

REPOSITORY = Path(__file__).parents[2]
STAGES = ("vision_adaptation", "alignment", "multitask", "video")
TRAINING = tuple(f"train-{stage}".replace("_", "-") for stage in STAGES)
ODD_DATA, ODD_RUN = "my data#1 %20 é", "runs #1 ü/run"
"""Folders with characters that URIs quote: a file that is written beside them is missed."""
CHAIN_STEPS = 4
"""Steps of each stage in the runs that go to their end."""


@dataclass
class Runner:
    """Starts the runner in one run folder."""

    folder: Path
    arguments: list[str]

    def start(self) -> "subprocess.Popen[str]":
        """Start it in its own session, so that its process group can be killed without the test's."""
        ours = ("VL3_", "MLFLOW_", "_MLFLOW_")  # MLflow writes into the environment of a process that it serves in
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.Popen(
            [sys.executable, "-m", "vl3.cli.main", "run", "start", "--run", str(self.folder), *self.arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        process = self.start()
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def record(self) -> dict[str, Any]:
        """run.json."""
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    def tasks(self) -> dict[str, str]:
        """State of each task."""
        return {task["name"]: task["state"] for task in self.record()["tasks"]}

    def status(self, task: str) -> dict[str, Any]:
        """Live status of a task; empty before it starts."""
        path = self.folder / "status" / f"{task}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def events(self, task: str) -> list[dict[str, Any]]:
        """The event file of a stage that is being trained."""
        paths = sorted((self.folder / "artifacts" / "work" / task).glob("*/events.jsonl"))
        lines = paths[-1].read_text(encoding="utf-8").splitlines(keepends=True) if paths else []
        return [json.loads(line) for line in lines if line.endswith("\n")]


def workflow_run(runner: Runner) -> tuple[str, dict[str, str]]:
    """State and tags of the workflow's own MLflow run."""
    with sqlite3.connect(runner.folder.parent / "mlflow.db") as database:
        query = "select run_uuid, status from runs join tags using (run_uuid) where key = 'vl3.kind' and value = ?"
        ((run, state),) = database.execute(query, ["workflow"]).fetchall()
        return state, dict(database.execute("select key, value from tags where run_uuid = ?", [run]).fetchall())


def weights_digest(artifacts_uri: str, task: str) -> str:
    """Digest of the weights that a stage published."""
    store = open_store(f"{artifacts_uri}/steps/{task}")
    (record,) = [key for key in store.list() if key.endswith(".json") and "/" not in key]
    text = store.read(record)
    assert text is not None
    folder = fetch(Reference.from_dict(json.loads(text)["outputs"]["checkpoint"]))
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait for a condition as long as the runner works; how long that may take is the test's own time limit."""
    try:
        while not condition():
            assert process.poll() is None, f"the runner ended: {process.communicate()}"
            time.sleep(0.05)
    except BaseException:
        process.kill()  # the other processes of the run end with it
        raise


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred generated samples of all ten categories."""

    def make(folder: Path) -> None:
        command = ["data", "sample", "--out", str(folder / ODD_DATA)]
        command += ["--seed", "3", "--heldout", "4", "--scale", "0.02"]
        program = "import sys; from vl3.cli.main import main; sys.exit(main())"
        subprocess.run([sys.executable, "-c", program, *command], check=True, capture_output=True)

    return make_once(tmp_path_factory, "corpus", make) / ODD_DATA


@pytest.fixture(scope="session")
def make_runner(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Callable[..., Runner]:
    """Makes a runner of a recipe, tiny unless it is named, with a few steps a stage."""

    def make(
        *overrides: str,
        steps: int,
        data: Path = corpus,
        folder: Path | None = None,
        recipe: str = "tiny",
        stages: Iterable[str] = STAGES,
    ) -> Runner:
        settings = [f"stages.{stage}.steps={steps}" for stage in stages]
        settings += ["engine.log_every_steps=2", "engine.checkpoint_every_steps=2", "evaluation.samples_per_task=4"]
        folder = folder or tmp_path_factory.mktemp("runs") / "run"
        options = [f"--set={one}" for one in (*settings, *overrides)]
        return Runner(folder, ["--recipe", recipe, "--data", str(data), *options])

    return make


@pytest.fixture(scope="session")
def local_chain(tmp_path_factory: pytest.TempPathFactory, make_runner: Callable[..., Runner]) -> Path:
    """A run on local files that went to its end, one for the session.

    The folder holds the run (ODD_RUN), what it said (`stdout`, `stderr`) and, as tests damage the run, the digests of
    the weights as they came (`weights.json`).
    """

    def make(folder: Path) -> None:
        runner = make_runner(steps=CHAIN_STEPS, folder=folder / ODD_RUN)
        done = runner.run()
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)
        (folder / "stderr").write_text(done.stderr)
        weights = {task: weights_digest((runner.folder / "artifacts").as_uri(), task) for task in TRAINING}
        (folder / "weights.json").write_text(json.dumps(weights))

    return make_once(tmp_path_factory, "local-chain", make)
