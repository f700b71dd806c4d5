"""A run whose data are a corpus: each dataset built by itself, all judged and planned together, evaluated as one."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from vl3.config.overrides import apply_overrides
from vl3.data.corpus import datasets_of
from vl3.data.plan.stage_plan import StagePlan
from vl3.errors import DataError
from vl3.evaluation.dataset import HeldoutSamples
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.recipes.catalog import get_recipe
from vl3.steps import build_data, plan_data, validate_data
from vl3.store.artifacts import fetch, publish
from vl3.store.bases import base_folder
from vl3.system.uris import file_uri
from vl3.workflow.record import StepRecord
from vl3.workflow.step import Step, StepRequest, execute

Run = Callable[..., tuple[StepRecord, bool]]


def write_texts(folder: Path, word: str, count: int) -> None:
    (folder / "annotations").mkdir(parents=True)
    lines = [
        {
            "id": f"{word}-{number}",
            "category": "text_only",
            "source": "qa",
            "chance": 0.1,
            "conversations": [
                {"from": "human", "value": f"{word} {number}?"},
                {"from": "gpt", "value": f"{word} {number * 7}."},
            ],
        }
        for number in range(count)
    ]
    (folder / "annotations" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run(request_of_tiny: StepRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Executes a step of a run on a corpus of datasets of 60 and 40 texts; options replace fields of its request."""
    monkeypatch.setattr("vl3.workflow.step.StepWork.step_run", lambda self: nullcontext(Mock()))  # MLflow is not asked
    for name, count in (("one", 60), ("two", 40)):
        write_texts(tmp_path / name, name, count)
    (tmp_path / "corpus.yaml").write_text("datasets: {first: one, second: two}")
    start = tmp_path / "start"
    start.mkdir()
    (start / TOKENIZER_FILE).write_bytes(
        (base_folder(get_recipe("tiny").model.language_base) / TOKENIZER_FILE).read_bytes()
    )
    reference = publish(start, file_uri(tmp_path / "published"), kind="start", created_by={})
    overrides = ['stages.*.mixture={"first": 1, "second:text_only:qa": 3}', "stages.video.steps=60"]
    config = apply_overrides(request_of_tiny.config, overrides)
    given = replace(request_of_tiny, data_uri=file_uri(tmp_path / "corpus.yaml"), config=config)

    def execute_step(step: Step[Any], task: str, **options: Any) -> tuple[StepRecord, bool]:
        inputs = {"start": reference, **options.pop("inputs", {})}
        return execute(step, replace(given, task=task, inputs=inputs, **options), lambda *_: None)

    return execute_step


def test_a_corpus_is_built_by_dataset_and_planned_by_name(run: Run, tmp_path: Path) -> None:
    built, _ = run(build_data.STEP, "build-data")
    corpus = built.outputs["dataset"]
    assert (corpus.kind, list(datasets_of(corpus))) == ("corpus", ["first", "second"])
    assert (built.values["datasets"], built.values["lines"]) == (["first", "second"], 100)
    alone, is_reused = run(build_data.STEP, "build-data", data_uri=file_uri(tmp_path / "two"))
    assert is_reused, "a run on the second dataset alone uses what the corpus has built"
    assert alone.outputs["dataset"] == datasets_of(corpus)["second"]

    judged, _ = run(validate_data.STEP, "validate-data", inputs={"built": corpus})
    assert judged.outputs["dataset"] == corpus
    assert judged.values["lines"] == 100

    planned, _ = run(plan_data.STEP, "plan-video", part="video", inputs={"dataset": corpus})
    with StagePlan(fetch(planned.outputs["plan"])) as plan:
        indexes = [one.index_sha256 for one in plan.facts.datasets]
        drawn = Counter(
            sample.dataset for step in range(plan.steps) for pack in plan.packs(step) for sample in pack.samples
        )
    assert len(set(indexes)) == 2
    assert drawn[1] / drawn[0] == pytest.approx(3, rel=0.05)
    assert [kind["key"] for kind in planned.values["kinds"]] == ["first", "second:text_only:qa"]

    folder = tmp_path / "heldout"
    folder.mkdir()
    samples = HeldoutSamples(corpus, folder)
    index = samples.index
    assert len(index) == judged.values["heldout"] > 2
    for number in range(len(index)):
        record, _ = samples.read(number)
        word = {"first": "one", "second": "two"}[index.row(number)["where"].split("/")[0]]
        assert word in str(record)


def test_a_dataset_that_a_corpus_lacks_refuses_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "corpus.yaml").write_text("datasets: {first: one}")
    built, _ = run(build_data.STEP, "build-data")
    with pytest.raises(DataError, match=r"mixture_served: 4 of 8 rows.*\n  vision_adaptation/second:text_only:qa,"):
        run(validate_data.STEP, "validate-data", inputs={"built": built.outputs["dataset"]})


def test_a_sample_that_is_held_out_in_one_dataset_and_trained_on_in_another_is_found(run: Run, tmp_path: Path) -> None:
    annotations = tmp_path / "two" / "annotations"
    lines = (tmp_path / "one" / "annotations" / "train.jsonl").read_text().splitlines(keepends=True)
    (annotations / "heldout.jsonl").write_text(lines[0] + lines[1])
    built, _ = run(build_data.STEP, "build-data")
    with pytest.raises(
        DataError, match=r"second/annotations/heldout\.jsonl:[12].*held_out_copy=first/annotations/train"
    ):
        run(validate_data.STEP, "validate-data", inputs={"built": built.outputs["dataset"]})
