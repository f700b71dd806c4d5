"""The way from the data to the model version, from verified artifacts and from records that anyone may have written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vl3.errors import StorageError
from vl3.steps.chain import INITIAL, TrainedStage, origin_of
from vl3.steps.lineage import lineage
from vl3.store.artifacts import publish
from vl3.store.reference import Reference
from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord, record_of, record_uri, write_record
from vl3.workflow.step import StepRequest

PARTS = KeyParts(config={"steps": 7}, inputs={}, modules={}, libraries={})
PROMOTION = {"model": "vl3-tiny", "version": 4, "state": "champion"}


@pytest.fixture
def artifacts(request_of_tiny: StepRequest[Any], tmp_path: Path) -> dict[str, Reference]:
    """One artifact of each task with the record of its step; the checkpoint comes from the start artifact."""
    root, made = request_of_tiny.artifacts_uri, {}
    tasks = {
        "start": "check-prerequisites",
        "dataset": "validate-data",
        "checkpoint": "train-video",
        "evaluation": "evaluate",
    }
    for name, task in tasks.items():
        folder = tmp_path / f"new-{name}"
        folder.mkdir()
        (folder / "bases.json").write_text(json.dumps({"vision_base": "v" * 64, "language_base": "l" * 64}))
        uri = record_uri(root, task, PARTS.key(task))
        made_from = {INITIAL: origin_of(made["start"], root)} if name == "checkpoint" else None
        made[name] = publish(
            folder, f"{uri}/{name}", kind=name, created_by={"step": task, "stage": "video"}, made_from=made_from
        )
        _record(uri, task, {name: made[name]}, {"lines": 30, "version": 4})
    return made


def _record(uri: str, task: str, outputs: dict[str, Reference], values: dict[str, Any]) -> None:
    created_at = "2026-01-01T00:00:00.000+00:00"
    record = StepRecord(
        key=PARTS.key(task),
        name=task,
        outputs=outputs,
        values=values,
        seconds=1.0,
        created_at=created_at,
        commit="c",
        parts=PARTS,
    )
    write_record(uri, record)


def _lineage(request: StepRequest[Any], artifacts: dict[str, Reference]) -> list[dict[str, Any]]:
    stages = [TrainedStage(name="video", checkpoint=artifacts["checkpoint"])]
    return lineage(dataclasses.replace(request, inputs=artifacts), stages, PROMOTION)


def test_bases_are_named_by_the_start_artifact_and_the_configuration(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    nodes = _lineage(request_of_tiny, artifacts)
    assert [(node["kind"], node["name"]) for node in nodes] == [
        ("data", "dataset"),
        ("base", "vision base"),
        ("base", "language base"),
        ("checkpoint", "video"),
        ("evaluation", "evaluation"),
        ("model", "vl3-tiny"),
    ]
    assert nodes[0]["facts"]["samples"] == 30
    assert (nodes[1]["sha256"], nodes[1]["uri"]) == ("v" * 64, "package://vl3.recipes/bases/tiny_vision")
    assert nodes[3]["facts"] == {"steps": 7, "version": 4}


def test_a_record_of_other_values_costs_a_fact_and_no_more(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    for task, name in (("train-video", "checkpoint"), ("check-prerequisites", "start"), ("validate-data", "dataset")):
        _record(record_uri(request_of_tiny.artifacts_uri, task, PARTS.key(task)), task, {name: artifacts[name]}, {})
    nodes = _lineage(request_of_tiny, artifacts)
    assert nodes[0]["facts"]["samples"] is None
    assert nodes[3]["facts"] == {"steps": 7, "version": None}


def test_a_record_that_lacks_an_output_is_named(artifacts: dict[str, Reference]) -> None:
    record = record_of(artifacts["checkpoint"])
    assert record.output("checkpoint") == artifacts["checkpoint"]
    with pytest.raises(StorageError, match=r"of train-video has no output 'training', only \['checkpoint'\]"):
        record.output("training")
