"""The whole workflow on this machine, from the command line: once, again, and with bad input."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CHAIN_STEPS, ODD_RUN, TRAINING, Runner, weights_digest, workflow_run
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
TASKS = [
    "check-prerequisites",
    "import-start",
    "build-data",
    "validate-data",
    "plan-vision-adaptation",
    "plan-alignment",
    "plan-multitask",
    "plan-video",
    "train-vision-adaptation",
    "train-alignment",
    "train-multitask",
    "train-video",
    "evaluate",
    "promote",
    "report",
    "finish",
]


@pytest.fixture(scope="module")
def finished(make_runner: Callable[..., Runner], local_chain: Path) -> tuple[Runner, str, str]:
    """A run that went to its end: the runner, stdout and stderr."""
    runner = make_runner(steps=CHAIN_STEPS, folder=local_chain / ODD_RUN)
    return runner, (local_chain / "stdout").read_text(), (local_chain / "stderr").read_text()


def _output(runner: Runner, task: str, name: str) -> Path:
    """Verified folder of a task's output."""
    (record,) = (runner.folder / "artifacts" / "steps" / task).glob("*.json")
    return fetch(Reference.from_dict(json.loads(record.read_text())["outputs"][name]))


def test_the_chain_runs_to_its_report(finished: tuple[Runner, str, str]) -> None:
    runner, out, err = finished
    record = runner.record()
    assert err == ""
    assert record["state"] == "succeeded"
    assert [task["name"] for task in record["tasks"]] == TASKS
    assert {task["state"] for task in record["tasks"]} == {"done"}
    assert record["overhead_seconds"] < 0.15 * record["seconds"]  # a share, as a busy machine slows both
    assert 0 < record["peak_memory_bytes"] < 6 * 1024**3
    assert out.splitlines()[-1] == f"report: {runner.folder / 'report' / 'report.html'}"
    for name in ("report.json", "items.json", "data_docs/index.html", "data_docs/samples.html"):
        assert (runner.folder / "report" / name).stat().st_size > 1000
    assert all((runner.folder / "logs" / f"{name}.log").stat().st_size > 0 for name in (*TASKS, "runner"))


def test_the_stages_hand_on_their_weights(finished: tuple[Runner, str, str]) -> None:
    runner, _, _ = finished
    for stage in ("vision-adaptation", "alignment", "multitask", "video"):
        folder = _output(runner, f"train-{stage}", "checkpoint")
        assert json.loads((folder / "run.json").read_text())["stage"] == stage.replace("-", "_")
        assert (folder / "model.safetensors").is_file()
    assert list(runner.folder.glob("artifacts/work/*/*")) == []


def test_the_evaluation_covers_five_models_and_ten_categories(finished: tuple[Runner, str, str]) -> None:
    evaluation = json.loads((_output(finished[0], "evaluate", "evaluation") / "evaluation.json").read_text())
    names = [model["name"] for model in evaluation["models"]]
    assert names == ["before", "vision_adaptation", "alignment", "multitask", "video"]
    assert {len(model["tasks"]) for model in evaluation["models"]} == {10}
    assert {task["total"] for model in evaluation["models"] for task in model["tasks"].values()} == {4}


def test_the_gates_refuse_an_untrained_model_without_failing_the_run(finished: tuple[Runner, str, str]) -> None:
    decision = json.loads((_output(finished[0], "promote", "promotion") / "promotion.json").read_text())
    assert decision["state"] == "refused"
    assert "gates not passed" in decision["reason"]


def test_mlflow_holds_the_runs_and_four_candidates(finished: tuple[Runner, str, str]) -> None:
    with sqlite3.connect(finished[0].folder.parent / "mlflow.db") as database:
        runs = dict(database.execute("select name, status from runs").fetchall())
        versions = database.execute("select source from model_versions order by version").fetchall()
        losses = database.execute("select count(*) from metrics where key = 'loss'").fetchone()[0]
    assert set(runs.values()) == {"FINISHED"}
    assert set(TASKS) - {"check-prerequisites", "finish"} < set(runs)
    assert len(versions) == 4
    assert all("/checkpoint" in source for (source,) in versions)
    assert losses >= 4 * 2
    assert workflow_run(finished[0])[1]["vl3.state"] == "FINISHED"


def test_a_second_run_makes_what_is_damaged_and_reuses_the_rest(
    finished: tuple[Runner, str, str], local_chain: Path
) -> None:
    """The same seed gives the same weights to the last bit, so what was made from them is still right."""
    runner, _, _ = finished
    path = _output(runner, "train-alignment", "checkpoint") / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    shutil.rmtree(runner.folder / "report")
    done = runner.run()
    assert done.returncode == 0, done.stderr
    made = {"check-prerequisites": "done", "train-alignment": "done", "finish": "done"}
    assert runner.tasks() == dict.fromkeys(TASKS, "reused") | made
    assert (runner.folder / "report" / "report.html").is_file()
    (aside,) = (runner.folder / "artifacts" / "steps" / "train-alignment").glob("*/checkpoint.damaged-*")
    assert (aside / "model.safetensors").stat().st_size == path.stat().st_size - 1
    before = json.loads((local_chain / "weights.json").read_text())
    assert {task: weights_digest((runner.folder / "artifacts").as_uri(), task) for task in TRAINING} == before


def test_both_bases_that_are_missing_are_said_in_one_go(make_runner: Callable[..., Runner]) -> None:
    runner = make_runner("model.vision_base=file:///nowhere", "model.language_base=hf://a#b", steps=2)
    done = runner.run()
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("ConfigError: import-start: 2 bases cannot be used")
    assert "file:///nowhere" in lines[0]
    assert "'hf://a#b' does not name a model of the hub" in lines[1]
    assert "Traceback" not in done.stderr
    assert "Traceback" in (runner.folder / "logs" / "import-start.log").read_text()
    assert runner.record()["error"]["family"] == "ConfigError"
    assert runner.tasks()["finish"] == "done"
    state, tags = workflow_run(runner)
    assert (state, tags["vl3.failed_task"]) == ("FAILED", "import-start")
    assert tags["vl3.error"].startswith("ConfigError: 2 bases cannot be used")


def test_a_bad_line_refuses_the_data_by_name(make_runner: Callable[..., Runner], corpus: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    annotations = data / "annotations" / "train.jsonl"
    annotations.write_text("{broken\n" * 40 + annotations.read_text())
    runner = make_runner(steps=2, data=data)
    done = runner.run()
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("DataError: validate-data: the dataset is refused")
    assert "annotations/train.jsonl:1" in done.stderr
    assert runner.tasks()["train-vision-adaptation"] == "waiting"
    state, tags = workflow_run(runner)
    assert (state, tags["vl3.failed_task"]) == ("FAILED", "validate-data")
    (page,) = runner.folder.glob("artifacts/steps/validate-data/*/validation/data_docs/lines.html")
    assert "annotations/train.jsonl:1" in page.read_text()
    assert runner.tasks()["build-data"] == "done"
