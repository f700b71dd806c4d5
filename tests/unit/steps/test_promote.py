"""Promotion over one registry for all runs: the champion of an earlier run is met by the gates of a later one."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError
from vl3.steps import promote
from vl3.steps.chain import INITIAL, origin_of
from vl3.store.artifacts import fetch, publish
from vl3.store.reference import Reference
from vl3.tracking import client
from vl3.tracking.registry import Registry
from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord, write_record
from vl3.workflow.step import StepRequest, execute, key_parts

TEMPLATE = Path(sys.prefix, "share", "vl3", "mlflow.db")
"""Migrated empty database that set-up makes; without it MLflow migrates here, which takes seconds."""
CATEGORIES = promote.expected_categories
PARTS = KeyParts(config={}, inputs={}, modules={}, libraries={})
MakeRun = Callable[..., StepRequest]


@pytest.fixture
def make_run(request_of_tiny: StepRequest, tmp_path: Path) -> MakeRun:
    """A run that was evaluated: `make_run("a", correct=90)` of 100 answers in every category."""

    def make(name: str, *, correct: int) -> StepRequest:
        root = (tmp_path / name / "artifacts").as_uri()

        def published(what: str, files: dict[str, Any], kind: str, **settings: Any) -> Reference:
            folder = tmp_path / name / f"new-{what}"
            folder.mkdir(parents=True)
            for file_name, content in files.items():
                (folder / file_name).write_text(json.dumps(content))
            created_by = settings.pop("created_by", {})
            uri = f"{root}/steps/{what}/{PARTS.key(what)}/{kind}"
            return publish(folder, uri, kind=kind, created_by=created_by, **settings)

        score = {"accuracy": correct / 100, "correct": correct, "total": 100, "chance": 0.25}
        tasks = dict.fromkeys(CATEGORIES(request_of_tiny.config, request_of_tiny.config.stages), score)
        start = published("start", {"bases.json": {}}, "start")
        parent = start
        for stage in ("multitask", "video"):
            made_from = {INITIAL: origin_of(parent, root)}
            parent = published(
                f"train-{stage}",
                {"w": f"{name} {stage}"},
                "checkpoint",
                created_by={"stage": stage},
                made_from=made_from,
            )
            _record(f"train-{stage}", parent)
        models = [{"name": "video", "tasks": tasks, "mean_accuracy": correct / 100}]
        inputs = {
            "checkpoint": parent,
            "dataset": replace(start, kind="dataset", sha256="d" * 64),
            "evaluation": published("evaluate", {"evaluation.json": {"models": models}}, "evaluation"),
            "validation": published("validate-data", {"validation.json": {"passed": True}}, "validation"),
        }
        config = apply_overrides(request_of_tiny.config, ["promotion.max_regression=0.01"])
        request = replace(request_of_tiny, task="promote", tracking_template=TEMPLATE)
        return replace(request, artifacts_uri=root, run_id=name, inputs=inputs, config=config)

    return make


def _record(task: str, checkpoint: Reference) -> None:
    """What the step that trained a stage says about it."""
    record = StepRecord(
        key=PARTS.key(task),
        name=task,
        outputs={"checkpoint": checkpoint},
        values={"steps": 7},
        seconds=1.0,
        created_at="2026-01-01T00:00:00.000+00:00",
        commit="c",
        parts=PARTS,
    )
    write_record(checkpoint.uri.rpartition("/")[0], record)


def _decision(request: StepRequest) -> dict[str, Any]:
    record, _ = execute(promote.STEP, request, lambda *_: None)
    return json.loads((fetch(record.outputs["promotion"]) / promote.PROMOTION_FILE).read_text())


def test_a_later_run_meets_the_champion_of_an_earlier_one(make_run: MakeRun) -> None:
    first = _decision(make_run("first", correct=95))
    assert (first["state"], first["versions"]) == ("champion", {"multitask": 1, "video": 2})
    worse = _decision(make_run("worse", correct=90))
    assert (worse["state"], worse["reason"]) == ("refused", "gates not passed: no_regression")
    better = make_run("better", correct=97)
    assert (_decision(better)["state"], _decision(better)["version"]) == ("champion", 6)
    registry = Registry(better.tracking_uri, "vl3-tiny")
    assert [row.version for row in registry.list_versions()] == [6, 5, 4, 3, 2, 1]
    assert registry.champion().version == 6
    assert registry.champion_evidence().tasks["chart"].correct == 97


def test_a_store_that_fails_once_costs_nothing_and_one_that_is_away_ends_the_step(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_run("first", correct=95)
    real, failures = Registry.record_evidence, [1]

    def fail_once(self: Registry, *arguments: Any) -> None:
        if failures.pop() if failures else 0:
            raise ClusterError("the server is being restarted")
        real(self, *arguments)

    monkeypatch.setattr(Registry, "record_evidence", fail_once)
    assert _decision(request)["state"] == "champion"
    assert len(Registry(request.tracking_uri, "vl3-tiny").list_versions()) == 2
    monkeypatch.setattr(client, "_TRIES", 2)
    failures += [1, 1, 1]
    with pytest.raises(ClusterError, match="being restarted"):
        execute(promote.STEP, make_run("second", correct=96), lambda *_: None)


def test_a_password_of_the_platform_is_not_in_the_key(make_run: MakeRun) -> None:
    request = make_run("first", correct=95)
    keys = [
        key_parts(promote.STEP, replace(request, injected={"MLFLOW_TRACKING_URI": f"http://{account}host:5000"}))
        for account in ("", "me:hunter2@", "me:other@")
    ]
    assert keys[0] == keys[1] == keys[2]
    assert keys[0].config["tracking_uri"] == "http://host:5000"
