"""What the report step takes from the promotion and puts beside the report."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import evidence
from vl3.steps import report
from vl3.steps.chain import TrainedStage
from vl3.steps.promote import _compared_with
from vl3.steps.report import _champion, _copy_docs
from vl3.store.artifacts import publish
from vl3.store.reference import Reference
from vl3.workflow.step import StepRequest


def test_the_champion_reaches_the_report_by_its_name_in_the_evidence() -> None:
    given = evidence(champion={"chart": 95, "streaming": 80})
    found, reason = _champion({"champion": _compared_with(given), "candidate": "video"})
    assert (found, reason) == ({"version": 3, "model": "champion", "candidate": "video"}, "")


def test_a_champion_that_was_not_evaluated_is_named_with_the_reason() -> None:
    given = evidence(champion={"chart": 95, "streaming": 80})
    document = {**given.document, "champion": {"version": 3, "model": None, "why": "its checkpoint is gone"}}
    gone = _compared_with(dataclasses.replace(given, document=document))
    found, reason = _champion({"champion": gone, "candidate": "video"})
    assert found is None
    assert reason == "Champion v3 was not evaluated beside the candidate: its checkpoint is gone."


def test_without_a_champion_the_report_says_so() -> None:
    found, reason = _champion({"champion": _compared_with(evidence()), "candidate": "video"})
    assert found is None
    assert reason.startswith("The candidate was compared with no champion")


def test_data_docs_are_copied_beside_the_report(request_of_tiny: StepRequest[Any], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data_docs"
    folder.mkdir(parents=True)
    for name in ("index.html", "lines.html", "notes.txt"):
        (folder / name).write_text(name)
    uri = f"{request_of_tiny.artifacts_uri}/validation"
    reference = publish(tmp_path / "new", uri, kind="validation-report", created_by={"step": "validate-data"})
    request = dataclasses.replace(request_of_tiny, inputs={"validation": reference})
    assert _copy_docs(request, tmp_path / "report") == "data_docs/index.html"
    copied = sorted(path.name for path in (tmp_path / "report" / "data_docs").iterdir())
    assert copied == ["index.html", "lines.html"]


def test_the_plan_of_each_stage_is_a_task_of_the_chain(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> Reference:
        return Reference(uri=f"file:///steps/{name}", sha256="0" * 64, kind="test", created_by={})

    plans = {"file:///steps/a": made("plan-a"), "file:///steps/b": None}  # b is of an earlier version
    monkeypatch.setattr(report, "plan_of", lambda checkpoint, _: plans[checkpoint.uri])
    names = ("start", "dataset", "validation", "evaluation", "promotion")
    request = dataclasses.replace(request_of_tiny, inputs={name: made(name) for name in names})
    stages = [TrainedStage(name=name, checkpoint=made(name)) for name in ("a", "b")]
    chain = [reference.uri.rpartition("/")[2] for reference in report._one_of_each_task(request, stages)]
    assert chain == ["start", "dataset", "validation", "plan-a", "a", "b", "evaluation", "promotion"]
