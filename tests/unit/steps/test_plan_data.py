"""The step that plans a stage: what it publishes, and what it notes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import make_rows, write_dataset
from tests.unit.steps.test_train_stage import PretendedRun
from vl3.data.plan.stage_plan import StagePlan
from vl3.errors import DataError
from vl3.steps import plan_data
from vl3.store.artifacts import fetch, publish
from vl3.workflow.step import StepRequest, execute


@pytest.fixture
def request_of_video(request_of_tiny: StepRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepRequest:
    monkeypatch.setattr("vl3.workflow.step.StepWork.step_run", lambda self: PretendedRun())
    dataset = write_dataset(tmp_path / "built", make_rows())
    reference = publish(dataset, (tmp_path / "dataset").as_uri(), kind="dataset", created_by={})
    row = dataclasses.replace(request_of_tiny.config.stages["video"], missing="drop")
    config = dataclasses.replace(request_of_tiny.config, stages=request_of_tiny.config.stages | {"video": row})
    inputs = {"dataset": reference}
    return dataclasses.replace(request_of_tiny, task="plan-video", part="video", inputs=inputs, config=config)


def _execute(request: StepRequest, told: list[str] | None = None) -> Any:
    told = [] if told is None else told
    return execute(plan_data.STEP, request, lambda done, total, text: told.append(f"{done}/{total} {text}"))


def test_a_plan_is_published_with_what_it_says(request_of_video: StepRequest) -> None:
    told: list[str] = []
    record, reused = _execute(request_of_video, told)
    assert (record.outputs["plan"].kind, reused) == ("plan", False)
    with StagePlan(fetch(record.outputs["plan"])) as plan:
        assert (plan.steps, plan.packs_per_step) == (600, 2)
        assert record.values == {"stage": "video"} | plan.facts.summary()
        assert len(plan.deal(599, 1, 2)) == 1
    assert told == ["0/1 planning", "1/1 600 steps of 2 rows"]
    assert _execute(request_of_video)[1]


def test_data_without_a_sample_for_the_stage_are_refused(request_of_video: StepRequest) -> None:
    row = dataclasses.replace(request_of_video.config.stages["video"], mixture={"document": 1.0})
    stages = request_of_video.config.stages | {"video": row}
    config = dataclasses.replace(request_of_video.config, stages=stages)
    with pytest.raises(DataError, match=r"nothing that the stage's mixture asks for\. document: the data have no"):
        _execute(dataclasses.replace(request_of_video, config=config))
