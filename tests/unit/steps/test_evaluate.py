"""Which models an evaluation asks, and under which numbers their metrics stand."""

import dataclasses
from typing import Any

import pytest

from vl3.recipes.catalog import get_recipe
from vl3.steps import evaluate
from vl3.steps.chain import MODEL, TrainedStage
from vl3.store.reference import Reference
from vl3.workflow.step import StepRequest


def _reference(name: str, kind: str) -> Reference:
    return Reference(uri=f"file:///{name}", sha256="0" * 64, kind=kind, created_by={})


def _names(request: StepRequest[Any], **inputs: Reference) -> list[tuple[str, str | None]]:
    found = evaluate._models(dataclasses.replace(request, inputs=inputs))
    return [(name, reference and reference.uri) for name, reference in found]


def test_a_chain_begins_with_what_it_started_from(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _reference("c", "checkpoint")
    monkeypatch.setattr(evaluate, "trained_stages", lambda last, _: [TrainedStage(name="video", checkpoint=last)])
    bases, given = _reference("bases", "start"), _reference("given", MODEL)
    assert _names(request_of_tiny, start=bases, checkpoint=checkpoint) == [("before", None), ("video", "file:///c")]
    assert _names(request_of_tiny, start=given, checkpoint=checkpoint) == [
        ("before", "file:///given"),
        ("video", "file:///c"),
    ]


def test_a_run_that_trains_nothing_asks_its_model_alone(request_of_tiny: StepRequest[Any]) -> None:
    given = _reference("given", MODEL)
    assert _names(request_of_tiny, start=given, checkpoint=given) == [("model", "file:///given")]


def test_a_metric_stands_at_its_stages_number() -> None:
    config = get_recipe("tiny")
    assert [evaluate._number(config, name) for name in ("before", "model", "video")] == [0, 0, 4]
