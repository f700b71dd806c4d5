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

PARTS = KeyParts(config={}, inputs={}, modules={}, libraries={})
PROMOTION = {"model": "vl3-tiny", "version": 4, "versions": {"video": 4}, "state": "champion"}


@pytest.fixture
def artifacts(request_of_tiny: StepRequest[Any], tmp_path: Path) -> dict[str, Reference]:
    """One artifact of each task with the record of its step: two stages, the first one from the start artifact."""
    root = request_of_tiny.artifacts_uri
    made: dict[str, Reference] = {}
    tasks = {
        "start": ("import-start", {}),
        "dataset": ("validate-data", {}),
        "alignment": ("train-alignment", {INITIAL: "start", "dataset": "dataset"}),
        "checkpoint": ("train-video", {INITIAL: "alignment", "dataset": "dataset"}),
        "evaluation": ("evaluate", {}),
    }
    for name, (task, parents) in tasks.items():
        folder = tmp_path / f"new-{name}"
        folder.mkdir()
        (folder / "bases.json").write_text(json.dumps({"vision_base": "v" * 64, "language_base": "l" * 64}))
        (folder / "name").write_text(name)
        parts = PARTS
        if name == "evaluation":
            asked = {role: made[role].sha256 for role in ("checkpoint", "dataset")}
            parts = dataclasses.replace(PARTS, inputs=asked)
        uri, is_checkpoint = record_uri(root, task, parts.key(task)), name in ("alignment", "checkpoint")
        made[name] = publish(
            folder,
            f"{uri}/{name}",
            kind="checkpoint" if is_checkpoint else name,
            created_by={"step": task, "stage": task.removeprefix("train-")},
            made_from={role: origin_of(made[parent], root) for role, parent in parents.items()} or None,
        )
        _record(uri, task, {name: made[name]}, {"lines": 30, "version": 4, "steps": 7}, parts)
    return made


def _record(
    uri: str, task: str, outputs: dict[str, Reference], values: dict[str, Any], parts: KeyParts = PARTS
) -> None:
    created_at = "2026-01-01T00:00:00.000+00:00"
    record = StepRecord(
        key=parts.key(task),
        name=task,
        outputs=outputs,
        values=values,
        seconds=1.0,
        created_at=created_at,
        commit="c",
        parts=parts,
    )
    write_record(uri, record)


def _lineage(request: StepRequest[Any], artifacts: dict[str, Reference]) -> list[dict[str, Any]]:
    stages = [
        TrainedStage(name="alignment", checkpoint=artifacts["alignment"]),
        TrainedStage(name="video", checkpoint=artifacts["checkpoint"]),
    ]
    return lineage(dataclasses.replace(request, inputs=artifacts), stages, PROMOTION)


def _parents(nodes: list[dict[str, Any]]) -> dict[str, list[str]]:
    names = {node["key"]: node["name"] for node in nodes}
    assert len(names) == len(nodes)
    return {node["name"]: [names[key] for key in node["parents"]] for node in nodes}


def test_two_bases_and_the_data_join_in_the_first_stage(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    assert _parents(_lineage(request_of_tiny, artifacts)) == {
        "dataset": [],
        "vision base": [],
        "language base": [],
        "alignment": ["vision base", "language base", "dataset"],
        "video": ["alignment", "dataset"],
        "evaluation": ["video", "dataset"],
        "vl3-tiny": ["video", "evaluation"],
    }


def test_an_origin_of_another_run_is_shown_as_it_is_named(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    stages = [TrainedStage(name="video", checkpoint=artifacts["checkpoint"])]  # without the stage before
    nodes = lineage(dataclasses.replace(request_of_tiny, inputs=artifacts), stages, PROMOTION)
    assert _parents(nodes)["video"] == [INITIAL, "dataset"]
    (former,) = [node for node in nodes if node["name"] == INITIAL]
    assert (former["kind"], former["sha256"]) == ("checkpoint", artifacts["alignment"].sha256)
    places = {node["key"]: place for place, node in enumerate(nodes)}
    assert all(places[parent] < places[node["key"]] for node in nodes for parent in node["parents"])


def test_bases_are_named_by_the_start_artifact_and_the_configuration(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    nodes = _lineage(request_of_tiny, artifacts)
    assert [(node["kind"], node["name"]) for node in nodes] == [
        ("data", "dataset"),
        ("base", "vision base"),
        ("base", "language base"),
        ("checkpoint", "alignment"),
        ("checkpoint", "video"),
        ("evaluation", "evaluation"),
        ("model", "vl3-tiny"),
    ]
    assert nodes[0]["facts"]["samples"] == 30
    assert (nodes[1]["sha256"], nodes[1]["uri"]) == ("v" * 64, "package://vl3.recipes/bases/tiny_vision")
    assert nodes[4]["facts"] == {"steps": 7, "version": 4}


def test_a_record_of_other_values_costs_a_fact_and_no_more(
    request_of_tiny: StepRequest[Any], artifacts: dict[str, Reference]
) -> None:
    for task, name in (("train-video", "checkpoint"), ("import-start", "start"), ("validate-data", "dataset")):
        _record(record_uri(request_of_tiny.artifacts_uri, task, PARTS.key(task)), task, {name: artifacts[name]}, {})
    nodes = _lineage(request_of_tiny, artifacts)
    assert nodes[0]["facts"]["samples"] is None
    assert nodes[4]["facts"] == {"steps": None, "version": 4}


def test_a_record_that_lacks_an_output_is_named(artifacts: dict[str, Reference]) -> None:
    record = record_of(artifacts["checkpoint"])
    assert record.output("checkpoint") == artifacts["checkpoint"]
    with pytest.raises(StorageError, match=r"of train-video has no output 'training', only \['checkpoint'\]"):
        record.output("training")
