"""Promotion over one registry for all runs: the champion of an earlier run is met by the gates of a later one."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import answered
from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError
from vl3.evaluation.evidence import make_evidence
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
    champions: dict[int, int] = {}

    def evaluated(checkpoint: Reference, correct: int) -> dict[str, Any]:
        """What the step `evaluate` shows: the candidate beside the champion of now, on the same questions."""
        categories = CATEGORIES(request_of_tiny.config, request_of_tiny.config.stages)
        records = {"video": {"heldout": answered(dict.fromkeys(categories, correct))}}
        checkpoints, facts = {"video": checkpoint.sha256}, None
        champion = Registry(request_of_tiny.tracking_uri, "vl3-tiny", template=TEMPLATE).champion_evidence()
        if champion is not None:
            right = champions[champion.version]
            records["champion"] = {"heldout": answered(dict.fromkeys(categories, right))}
            checkpoints["champion"] = champion.checkpoint_sha256
            facts = {"version": champion.version, "model": "champion", "why": ""}
        champions[2 * len(champions) + 2] = correct  # the version of its last stage, if it is promoted
        made_of = {"dataset": "d" * 64, "checkpoints": checkpoints}
        return make_evidence(records, pairs=[("champion", "video")], champion=facts, made_of=made_of)

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
        shown = evaluated(parent, correct)
        inputs = {
            "checkpoint": parent,
            "dataset": replace(start, kind="dataset", sha256="d" * 64),
            "evaluation": published("evaluate", {"evidence.json": shown}, "evaluation"),
            "validation": published("validate-data", {"validation.json": {"passed": True}}, "validation"),
        }
        overrides = [f"promotion.gates.{name}.threshold=0.01" for name in ("no_regression", "benchmarks_not_worse")]
        config = apply_overrides(request_of_tiny.config, overrides)
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
    assert worse["state"] == "refused"
    assert worse["reason"] == "gates not passed: mean_not_worse, no_regression, benchmarks_not_worse"
    assert worse["champion"] == {"version": 2, "model": "champion", "why": ""}
    better = make_run("better", correct=97)
    assert (_decision(better)["state"], _decision(better)["version"]) == ("champion", 6)
    registry = Registry(better.tracking_uri, "vl3-tiny")
    assert [row.version for row in registry.list_versions()] == [6, 5, 4, 3, 2, 1]
    assert registry.champion().version == 6
    assert registry.champion_evidence().scores["heldout/chart"]["score"] == 0.97
    assert registry.to_compare_with(better.inputs["checkpoint"].sha256).version == 2


def test_evidence_beside_another_champion_is_refused(make_run: MakeRun) -> None:
    assert _decision(make_run("first", correct=95))["state"] == "champion"
    slow = make_run("slow", correct=96)  # evaluated beside v2
    assert _decision(make_run("quick", correct=97))["version"] == 4
    refused = _decision(slow)
    assert refused["state"] == "refused"
    fresh = next(gate for gate in refused["gates"] if gate["name"] == "fresh")
    assert fresh["detail"].startswith("the candidate was compared with champion v2, and now v4 is champion")


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
