"""Which models an evaluation asks, and under which numbers their metrics stand."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import answered
from vl3.config.placement import BENCHMARKS, EVALUATION
from vl3.errors import ConfigError
from vl3.evaluation.document import read_evidence
from vl3.evaluation.items import items_path, write_items
from vl3.recipes.catalog import get_recipe
from vl3.steps import evaluate
from vl3.steps.chain import MODEL, TrainedStage
from vl3.steps.champion import FoundChampion
from vl3.store.reference import Reference
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


def _asking(request: StepRequest[Any], models: str) -> StepRequest[Any]:
    config = request.config
    evaluation = dataclasses.replace(config.evaluation, models=models)
    return dataclasses.replace(request, config=dataclasses.replace(config, evaluation=evaluation))


def test_the_setting_names_the_models(request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, bases = _reference("c", "checkpoint"), _reference("bases", "start")
    chain = [TrainedStage(name="alignment", checkpoint=_reference("a", "checkpoint"))]
    monkeypatch.setattr(
        evaluate, "trained_stages", lambda last, _: [*chain, TrainedStage(name="video", checkpoint=last)]
    )
    inputs = {"start": bases, "checkpoint": checkpoint}

    def asked(models: str) -> list[str]:
        return [name for name, _ in _names(_asking(request_of_tiny, models), **inputs)]

    assert asked("before,stages") == ["before", "alignment", "video"]
    assert asked("last") == ["video"]
    assert asked("champion, last") == ["video"], "the champion is none of the run's own"
    assert asked("champion,before") == ["before", "video"]


def test_a_champion_that_is_not_to_be_asked_is_named_with_the_reason(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _champion("2" * 64, _reference("champion", "checkpoint"))
    monkeypatch.setattr(evaluate, "find_champion", lambda _: found)
    assert evaluate._asked_champion(_asking(request_of_tiny, "last,champion")) is found
    left_out = evaluate._asked_champion(_asking(request_of_tiny, "last"))
    assert left_out is not None
    assert (left_out.version, left_out.checkpoint) == (3, None)
    assert left_out.why == "evaluation.models does not name it. Add champion there"
    monkeypatch.setattr(evaluate, "find_champion", lambda _: None)
    assert evaluate._asked_champion(_asking(request_of_tiny, "last")) is None


def test_only_a_champion_that_is_asked_is_in_the_key(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "champion_digest", lambda _: "2" * 64)
    assert evaluate.key_parts(_asking(request_of_tiny, "last,champion"))["champion"] == "2" * 64
    assert evaluate.key_parts(_asking(request_of_tiny, "last"))["champion"] == ""


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
    here = evaluate._launch_job(_work(request), models, EVALUATION)
    assert (here.backend, here.processes_per_node, here.placement) == ("local", 2, None)
    assert here.document["events_path"] == str(here.events_path)
    config = request.config
    placement = dataclasses.replace(config.placements["video"], nodes=3, min_nodes=1)
    config = dataclasses.replace(
        config,
        launch=dataclasses.replace(config.launch, backend="trainjob"),
        placements={**config.placements, EVALUATION: placement},
    )
    there = evaluate._launch_job(_work(dataclasses.replace(request, config=config)), models, EVALUATION)
    assert (there.backend, there.placement, there.node_counts) == ("trainjob", placement, [3, 2, 1])
    assert (there.document["events_path"], there.document["commit"]) == ("", "")
    assert [one["name"] for one in there.document["models"]] == ["before", "video"]


def test_benchmarks_are_a_job_of_their_own_in_their_own_environment(
    request_of_tiny: StepRequest[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _reference("mme", "benchmark")
    monkeypatch.setattr(evaluate, "benchmark_copies", lambda _: {"mme": copy})
    monkeypatch.setattr(evaluate, "harness_python", lambda: Path("/eval/bin/python"))
    inputs = {"start": _reference("bases", "start"), "dataset": _reference("d", "dataset")}
    request = dataclasses.replace(request_of_tiny, inputs=inputs)
    models = [("video", _reference("c", "checkpoint"))]
    here = evaluate._launch_job(_work(request), models, BENCHMARKS)
    assert (here.module, here.python) == ("vl3.evaluation.harness.worker", "/eval/bin/python")
    assert here.document["benchmarks"] == [{"name": "mme", "copy": copy.to_dict()}]
    heldout = evaluate._launch_job(_work(request), models, EVALUATION)
    assert (heldout.module, heldout.python, heldout.document["benchmarks"]) == ("vl3.evaluation.worker", "", [])
    assert heldout.work_uri != here.work_uri
    assert heldout.events_path != here.events_path
    config = request.config
    placement = dataclasses.replace(config.placements["video"], image="registry.example/harness:1")
    launch = dataclasses.replace(config.launch, backend="trainjob")
    config = dataclasses.replace(config, launch=launch, placements={**config.placements, BENCHMARKS: placement})
    there = evaluate._launch_job(_work(dataclasses.replace(request, config=config)), models, BENCHMARKS)
    assert (there.backend, there.stage, there.python, there.placement) == ("trainjob", "benchmarks", "", placement)


def _champion(sha256: str, checkpoint: Reference | None = None) -> FoundChampion:
    return FoundChampion(version=3, sha256=sha256, checkpoint=checkpoint, why="" if checkpoint else "it is gone")


def test_the_champion_is_asked_first_unless_it_is_one_of_the_models() -> None:
    given, last = _reference("given", MODEL), dataclasses.replace(_reference("c", "checkpoint"), sha256="1" * 64)
    models = [("before", given), ("video", last)]
    other = dataclasses.replace(_reference("champion", "checkpoint"), sha256="2" * 64)
    assert evaluate._with_champion(models, _champion("2" * 64, other)) == [("champion", other), *models]
    assert evaluate._with_champion(models, _champion("0" * 64, given)) == models  # the run started from it
    assert evaluate._with_champion(models, _champion("2" * 64)) == models  # its checkpoint is gone
    assert evaluate._with_champion(models, None) == models


def test_the_evidence_compares_stages_and_the_champion(request_of_tiny: StepRequest[Any], tmp_path: Path) -> None:
    champion = dataclasses.replace(_reference("champion", "checkpoint"), sha256="2" * 64)
    models = [("champion", champion), ("before", None), ("multitask", _reference("m", "checkpoint"))]
    models.append(("video", _reference("c", "checkpoint")))
    for number, (name, _) in enumerate(models):
        write_items(items_path(tmp_path, name, "heldout"), answered({"chart": 2 + number}, 10))
    request = dataclasses.replace(request_of_tiny, inputs={"dataset": _reference("data", "dataset")})
    evaluate._write_evidence(request, models, _champion("2" * 64, champion), tmp_path)
    found = read_evidence(tmp_path)
    pairs = [(pair["first"], pair["second"], pair["benchmarks"]["heldout"]["won"]) for pair in found["pairs"]]
    assert pairs == [
        ("before", "multitask", 1),
        ("multitask", "video", 1),
        ("before", "video", 2),
        ("champion", "video", 3),
    ]
    assert found["champion"] == {"version": 3, "model": "champion", "why": ""}
    digests = {"champion": "2" * 64, "multitask": "0" * 64, "video": "0" * 64}
    assert found["made_of"] == {"dataset": "0" * 64, "checkpoints": digests, "asked": {}, "partial": {}}


def test_a_champion_without_a_checkpoint_is_named_and_not_compared(
    request_of_tiny: StepRequest[Any], tmp_path: Path
) -> None:
    write_items(items_path(tmp_path, "video", "heldout"), answered({"chart": 2}, 10))
    request = dataclasses.replace(request_of_tiny, inputs={"dataset": _reference("data", "dataset")})
    evaluate._write_evidence(request, [("video", _reference("c", "checkpoint"))], _champion("2" * 64), tmp_path)
    found = read_evidence(tmp_path)
    assert (found["champion"], found["pairs"]) == ({"version": 3, "model": None, "why": "it is gone"}, [])
