"""Benchmarks as a job: real processes in lmms-eval's environment (`make eval-env`), a real checkpoint, fixtures."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarks import build
from tests.support.evaluations import evaluation_job, local_launch, publish_inputs
from vl3.config.run import RunConfig
from vl3.evaluation.catalogue.copies import make_copy
from vl3.evaluation.catalogue.entry import read_benchmarks
from vl3.evaluation.items import items_path, read_items
from vl3.evaluation.job import EvaluationJob
from vl3.launch.local import launch_local
from vl3.recipes.catalog import get_recipe
from vl3.store.artifacts import publish

PYTHON = Path(os.environ.get("VL3_EVAL_ENV", Path(__file__).parents[4] / ".venv-eval")) / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason=f"lmms-eval's environment is missing ({PYTHON}): make eval-env"),
]
NAMES = ("chartqa", "mme")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    recipe = get_recipe("tiny")
    return replace(recipe, evaluation=replace(recipe.evaluation, batch_size=2))


@pytest.fixture
def job(config: RunConfig, make_dataset: Any, checkpoint: Path, tmp_path: Path) -> EvaluationJob:
    """Two models and two benchmarks of three questions a part."""
    inputs = publish_inputs(tmp_path.as_uri(), config, make_dataset({}), checkpoint, tmp_path / "made")
    copies = []
    for name in NAMES:
        build(name, tmp_path / "root" / name)
        made = tmp_path / "made-copies" / name
        make_copy(read_benchmarks()[name], tmp_path / "root" / name, made, partial=True)
        copy = publish(made, (tmp_path / "copies" / name).as_uri(), kind="benchmark", created_by={})
        copies.append({"name": name, "copy": copy.to_dict()})
    return replace(evaluation_job(tmp_path.as_uri(), config, inputs), benchmarks=copies)


def test_two_processes_ask_all_models_and_the_first_one_scores(job: EvaluationJob, tmp_path: Path) -> None:
    launch = replace(local_launch(job, tmp_path), module="vl3.evaluation.harness.worker", python=str(PYTHON))
    seen: list[dict[str, Any]] = []
    launch_local(launch, seen.append)
    scores = tmp_path / "work" / "scores"
    models = json.loads((scores / "benchmarks.json").read_text(encoding="utf-8"))["models"]
    assert {name: list(of_model) for name, of_model in models.items()} == {"before": [*NAMES], "video": [*NAMES]}
    for model in models:
        for name in NAMES:
            items = read_items(items_path(scores, model, name))
            assert len(items) == models[model][name]["items"] > 0
            assert all(item.score is not None and item.answer is not None for item in items)
            assert not models[model][name]["is_complete"], "of a partial copy"
    total = sum(score["items"] for of_model in models.values() for score in of_model.values())
    progress = [(event["done"], event["total"]) for event in seen if event["type"] == "progress"]
    assert progress[-1][1] == 2 * total
    before = (scores / "benchmarks.json").read_bytes()
    launch_local(launch, lambda _: None)  # nothing is left to ask: no model is loaded, and the scores are the same
    assert (scores / "benchmarks.json").read_bytes() == before
