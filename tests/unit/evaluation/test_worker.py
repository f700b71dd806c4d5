"""The processes of an evaluation: they share the questions, outlive a kill without asking twice, name what is wrong."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.evaluations import IDENTITY, evaluation_job, local_launch, publish_inputs
from vl3.config.run import RunConfig
from vl3.errors import ClusterError, ConfigError, StorageError
from vl3.evaluation.asking import Questions
from vl3.evaluation.candidates import EvaluatedModel
from vl3.evaluation.items import ItemRecord, items_path, read_items
from vl3.evaluation.job import EvaluationJob
from vl3.evaluation.journal import read_answers
from vl3.evaluation.processes import device_of
from vl3.evaluation.runner import evaluate_models, write_evaluation
from vl3.launch.local import launch_local
from vl3.recipes.catalog import get_recipe
from vl3.store.reference import Reference

MODELS = ("before", "video")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    recipe = get_recipe("tiny")
    return replace(recipe, evaluation=replace(recipe.evaluation, samples_per_task=6, max_new_tokens=96, batch_size=2))


@pytest.fixture(scope="module")
def dataset(make_dataset) -> Path:
    return make_dataset({})


@pytest.fixture
def inputs(config: RunConfig, dataset: Path, checkpoint: Path, tmp_path: Path) -> dict[str, Reference]:
    return publish_inputs(tmp_path.as_uri(), config, dataset, checkpoint, tmp_path / "made")


@pytest.fixture
def job(config: RunConfig, inputs: dict[str, Reference], tmp_path: Path) -> EvaluationJob:
    return evaluation_job(tmp_path.as_uri(), config, inputs)


def workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if _is_worker(one)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "vl3.evaluation.worker" in process.cmdline() and "RANK" in process.environ()
    except psutil.NoSuchProcess:  # it has ended meanwhile
        return False


def without_times(items: list[ItemRecord]) -> list[ItemRecord]:
    return [replace(item, seconds=0.0) for item in items]


def collected(job: EvaluationJob, config: RunConfig, dataset: Path, checkpoint: Path, out: Path) -> Path:
    """The result of the answers that were kept."""
    models = [EvaluatedModel(name="before", folder=None), EvaluatedModel(name="video", folder=checkpoint)]
    questions = Questions.of_dataset(dataset, config)
    write_evaluation(models, read_answers(job.work_uri, IDENTITY), questions, config, out_folder=out)
    return out


def assert_same(out: Path, other: Path) -> None:
    assert (out / "evaluation.json").read_bytes() == (other / "evaluation.json").read_bytes()
    for model in MODELS:
        first, second = (read_items(items_path(folder, model, "heldout")) for folder in (out, other))
        assert without_times(first) == without_times(second)


def test_two_processes_that_are_killed_and_resumed_give_the_result_of_one(
    job: EvaluationJob, config: RunConfig, dataset: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def kill_one() -> None:
        while not any(read_answers(job.work_uri, IDENTITY).values()):
            time.sleep(0.02)
        os.kill(workers()[-1].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    with pytest.raises(ClusterError, match=r"evaluate failed: rank \d ended with exit code -9"):
        launch_local(local_launch(job, tmp_path), lambda _: None)
    killer.join(60)
    assert not workers()
    kept = read_answers(job.work_uri, IDENTITY)
    before = sum(map(len, kept.values()))
    assert 0 < before < 36
    seen: list[dict[str, Any]] = []
    launch_local(local_launch(job, tmp_path), seen.append)
    progress = [(event["done"], event["total"]) for event in seen if event["type"] == "progress"]
    assert progress[0][0] >= before
    assert progress[-1] == (36, 36)
    after = read_answers(job.work_uri, IDENTITY)
    assert all(after[model][name] == item for model, items in kept.items() for name, item in items.items())
    one = tmp_path / "one"
    models = [EvaluatedModel(name="before", folder=None), EvaluatedModel(name="video", folder=checkpoint)]
    evaluate_models(models, dataset, config, out_folder=one)
    assert_same(collected(job, config, dataset, checkpoint, tmp_path / "two"), one)
    launch_local(local_launch(job, tmp_path), lambda _: None)  # nothing is left: no model is loaded
    assert read_answers(job.work_uri, IDENTITY) == after


def test_a_checkpoint_that_was_changed_is_named_and_gets_no_score(
    job: EvaluationJob, inputs: dict[str, Reference], tmp_path: Path
) -> None:
    weights = tmp_path / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StorageError, match=r"checkpoint.*model\.safetensors"):
        launch_local(local_launch(job, tmp_path, processes=1), lambda _: None)
    assert read_answers(job.work_uri, IDENTITY) == {}


class _Gpus:
    """What torch.cuda says of a machine with two GPUs."""

    def __init__(self) -> None:
        self.chosen: list[int] = []
        self.is_available: Callable[[], bool] = lambda: True
        self.device_count: Callable[[], int] = lambda: 2
        self.set_device = self.chosen.append


def test_each_process_has_a_device_of_its_own() -> None:
    gpus = _Gpus()
    assert [device_of(rank, gpus) for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert gpus.chosen == [0, 1]
    with pytest.raises(
        ConfigError, match=r"process 2 of this machine has no GPU of its own: there are 2\. .*processes=2"
    ):
        device_of(2, gpus)
    gpus.is_available = lambda: False
    assert device_of(5, gpus) == "cpu"
