"""Which models an evaluation asks, and under which numbers their metrics stand."""

import dataclasses
from typing import Any

import pytest

from vl3.config.placement import EVALUATION
from vl3.errors import ConfigError, StorageError
from vl3.recipes.catalog import get_recipe
from vl3.steps import evaluate
from vl3.steps.chain import MODEL, TrainedStage
from vl3.store.reference import Reference
from vl3.tracking.versions import VersionRow
from vl3.workflow.key import KeyParts
from vl3.workflow.step import StepRequest, StepWork


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


class _Registry:
    """A registry whose champion is given."""

    def __init__(self, champion: Any) -> None:
        self._champion = champion

    def champion(self) -> Any:
        return self._champion


def _asking(request: StepRequest[Any], models: str) -> StepRequest[Any]:
    config = request.config
    evaluation = dataclasses.replace(config.evaluation, models=models)
    return dataclasses.replace(request, config=dataclasses.replace(config, evaluation=evaluation))


def _champion(sha256: str) -> VersionRow:
    return VersionRow(
        version=7,
        aliases=("champion",),
        stage="video",
        source="file:///champion",
        decision="passed",
        mean_accuracy=None,
        created_at=0.0,
        made_from={"checkpoint_sha256": sha256},
        evidence={},
        promotion={},
    )


def test_the_setting_names_the_models(request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, bases = _reference("c", "checkpoint"), _reference("bases", "start")
    chain = [TrainedStage(name="alignment", checkpoint=_reference("a", "checkpoint"))]
    monkeypatch.setattr(
        evaluate, "trained_stages", lambda last, _: [*chain, TrainedStage(name="video", checkpoint=last)]
    )
    champion = dataclasses.replace(_reference("champion", "checkpoint"), sha256="1" * 64)
    monkeypatch.setattr(evaluate, "find", lambda _: champion)
    monkeypatch.setattr(evaluate, "open_registry", lambda _: _Registry(_champion("1" * 64)))
    inputs = {"start": bases, "checkpoint": checkpoint}

    def asked(models: str) -> list[str]:
        return [name for name, _ in _names(_asking(request_of_tiny, models), **inputs)]

    assert asked("before,stages") == ["before", "alignment", "video"]
    assert asked("last") == ["video"]
    assert asked("champion, last") == ["champion", "video"]
    assert asked("champion,before") == ["champion", "before", "video"]
    monkeypatch.setattr(evaluate, "open_registry", lambda _: _Registry(None))
    assert asked("champion,last") == ["video"]
    monkeypatch.setattr(evaluate, "find", lambda _: checkpoint)
    monkeypatch.setattr(evaluate, "open_registry", lambda _: _Registry(_champion("0" * 64)))
    assert asked("champion,last") == ["video"], "the champion is the last one itself"


def test_a_champion_that_is_gone_or_another_one_is_refused(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _asking(request_of_tiny, "champion,last")
    monkeypatch.setattr(evaluate, "trained_stages", lambda last, _: [TrainedStage(name="video", checkpoint=last)])
    monkeypatch.setattr(evaluate, "open_registry", lambda _: _Registry(_champion("1" * 64)))
    inputs = {"start": _reference("bases", "start"), "checkpoint": _reference("c", "checkpoint")}
    for found, said in ((None, "gone"), (_reference("champion", "checkpoint"), "another one")):
        monkeypatch.setattr(evaluate, "find", lambda _, found=found: found)
        with pytest.raises(
            StorageError, match=f"file:///champion: the checkpoint of the champion, version 7, is {said}"
        ):
            _names(request, **inputs)


@pytest.mark.parametrize("models", ["", "stages,stages", "all", "before;last"])
def test_unknown_models_are_refused(request_of_tiny: StepRequest[Any], models: str) -> None:
    with pytest.raises(ConfigError, match=r"must be some of before, stages, last, champion, each once"):
        _asking(request_of_tiny, models)


def _work(request: StepRequest[Any]) -> StepWork[Any]:
    parts = KeyParts(config={}, inputs={}, modules={}, libraries={})
    return StepWork(request=request, parts=parts, progress=lambda *_: None)


def test_the_job_runs_here_unless_it_is_placed(request_of_tiny: StepRequest[Any]) -> None:
    inputs = {"start": _reference("bases", "start"), "dataset": _reference("d", "dataset")}
    request = dataclasses.replace(request_of_tiny, inputs=inputs)
    models = [("before", None), ("video", _reference("c", "checkpoint"))]
    here = evaluate._launch_job(_work(request), models)
    assert (here.backend, here.processes_per_node, here.placement) == ("local", 2, None)
    assert here.document["events_path"] == str(here.events_path)
    config = request.config
    placement = dataclasses.replace(config.placements["video"], nodes=3, min_nodes=1)
    config = dataclasses.replace(
        config,
        launch=dataclasses.replace(config.launch, backend="trainjob"),
        placements={**config.placements, EVALUATION: placement},
    )
    there = evaluate._launch_job(_work(dataclasses.replace(request, config=config)), models)
    assert (there.backend, there.placement, there.node_counts) == ("trainjob", placement, [3, 2, 1])
    assert (there.document["events_path"], there.document["commit"]) == ("", "")
    assert [one["name"] for one in there.document["models"]] == ["before", "video"]
