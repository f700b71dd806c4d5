"""Part of a chain from a model, and an evaluation alone, from the command line on this machine."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CHAIN_STEPS, ODD_RUN, Runner, weights_digest
from tests.support.hub_server import hub_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _checkpoint(run: Path, stage: str) -> Path:
    (folder,) = (run / "artifacts" / "steps" / f"train-{stage}").glob("*/checkpoint")
    return folder


def _scores(runner: Runner) -> dict[str, dict[str, int]]:
    """Right answers by model and category."""
    (path,) = (runner.folder / "artifacts" / "steps" / "evaluate").glob("*/evaluation/evaluation.json")
    models = json.loads(path.read_text())["models"]
    return {model["name"]: {name: task["correct"] for name, task in model["tasks"].items()} for model in models}


@pytest.fixture(scope="module")
def source(local_chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the third stage of a whole run, at a place of its own: other tests damage the run."""
    return Path(shutil.copytree(_checkpoint(local_chain / ODD_RUN, "multitask"), tmp_path_factory.mktemp("m") / "c"))


@pytest.fixture(scope="module")
def part(make_runner: Callable[..., Runner], source: Path) -> tuple[Runner, str]:
    """A run of the last stage alone, from that checkpoint; and what it said."""
    runner = make_runner(steps=CHAIN_STEPS)
    runner.arguments += ["--stages", "video", "--from", str(source)]
    done = runner.run()
    assert done.returncode == 0, done.stderr
    return runner, done.stdout


def test_a_stage_alone_gives_the_weights_of_the_whole_chain(part: tuple[Runner, str], local_chain: Path) -> None:
    runner, _ = part
    assert [name for name in runner.tasks() if name.startswith("train-")] == ["train-video"]
    alone = weights_digest((runner.folder / "artifacts").as_uri(), "train-video")
    assert alone == json.loads((local_chain / "weights.json").read_text())["train-video"]


def test_the_given_model_is_the_one_before_training_and_the_parent(
    part: tuple[Runner, str], local_chain: Path, source: Path, make_runner: Callable[..., Runner]
) -> None:
    runner, _ = part
    whole = _scores(Runner(local_chain / ODD_RUN, []))
    assert _scores(runner) == {"before": whole["multitask"], "video": whole["video"]}
    manifest = json.loads((_checkpoint(runner.folder, "video") / "manifest.json").read_text())
    start = manifest["made_from"]["initial"]
    assert start["kind"] == "model"
    origin = json.loads((runner.folder / "artifacts" / start["uri"] / "manifest.json").read_text())["made_from"]
    assert (origin["source"]["uri"], origin["source"]["kind"]) == (source.as_uri(), "checkpoint")
    nodes = json.loads((runner.folder / "report" / "report.json").read_text())["lineage"]
    assert source.as_uri() in [node["uri"] for node in nodes]


def test_the_same_run_again_does_nothing_again(part: tuple[Runner, str]) -> None:
    runner, _ = part
    assert runner.run().returncode == 0
    states = runner.tasks()
    assert {name for name, state in states.items() if state != "reused"} == {"check-prerequisites", "finish"}


def test_a_model_is_evaluated_alone(
    part: tuple[Runner, str], make_runner: Callable[..., Runner], tmp_path: Path
) -> None:
    trained, _ = part
    runner = make_runner(steps=CHAIN_STEPS, folder=tmp_path / "evaluation")
    version = ["--from", "models:/vl3-tiny/1", "--tracking", f"sqlite:///{trained.folder.parent / 'mlflow.db'}"]
    runner.arguments += ["--workflow", "evaluate", *version]
    done = runner.run()
    assert done.returncode == 0, done.stderr
    scores = _scores(runner)
    assert scores == {"model": _scores(trained)["video"]}
    lines = done.stdout.splitlines()
    assert "held-out accuracy" in lines
    for category, correct in scores["model"].items():
        assert [line for line in lines if line.split()[:1] == [category] and line.endswith(f"{correct} of 4")]
    report = json.loads((runner.folder / "report" / "report.json").read_text())
    assert report["verdict"]["state"] == "none"
    assert report["gates"] is None


def test_adapters_train_on_a_model_of_the_hub(
    make_runner: Callable[..., Runner], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as hub:
        hub.models["vl3/small", "main"] = source
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        for variable in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):  # a busy machine is slow to answer itself
            monkeypatch.setenv(variable, "300")
        runner = make_runner("stages.video.lora={}", steps=2, folder=tmp_path / "run")
        runner.arguments += ["--stages", "video", "--from", "hf://vl3/small"]
        done = runner.run()
        assert done.returncode == 0, done.stderr
        commit = hub.commit("vl3/small", "main")
    (record,) = (runner.folder / "artifacts" / "steps" / "import-start").glob("*.json")
    assert json.loads(record.read_text())["values"]["model"]["uri"] == f"hf://vl3/small@{commit}"
    assert json.loads((_checkpoint(runner.folder, "video") / "run.json").read_text())["stage"] == "video"
    again = runner.run()  # the hub is gone, and the model is here
    assert again.returncode == 0, again.stderr


def test_a_damaged_model_ends_the_run_before_its_data_are_read(
    make_runner: Callable[..., Runner], source: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(source, tmp_path / "model"))
    os.truncate(model / "model.safetensors", 5000)
    runner = make_runner(steps=CHAIN_STEPS, folder=tmp_path / "run")
    runner.arguments += ["--stages", "video", "--from", str(model)]
    done = runner.run()
    assert done.returncode == 6
    assert "model.safetensors: has 5000 bytes and should have" in done.stderr.splitlines()[-1]
    assert runner.tasks()["validate-data"] == "waiting"
