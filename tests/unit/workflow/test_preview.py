"""What a run would do, told without running anything."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import DataError
from vl3.store.reference import Reference
from vl3.system.uris import file_path
from vl3.workflow.preview import TaskPreview, TaskWiring, preview
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork, execute

TASKS = (
    TaskWiring(name="start", step="start", part="", inputs={}),
    TaskWiring(name="train-a", step="train", part="a", inputs={"initial": ("start", "out")}),
    TaskWiring(name="train-b", step="train", part="b", inputs={"initial": ("train-a", "out")}),
    TaskWiring(name="report", step="report", part="", inputs={"one": ("train-a", "out"), "two": ("train-b", "out")}),
)
Preview = Callable[..., dict[str, TaskPreview]]


def run(work: StepWork) -> StepOutcome:
    with work.fresh_folder("out") as folder:
        (folder / "what").write_text(f"{work.request.task} {work.parts.config}")
        return StepOutcome(outputs={"out": work.publish(folder, "out", kind="test")})


def refuse(request: StepRequest) -> dict[str, object]:
    raise DataError("the data folder does not exist")


STEPS = {
    "start": Step(entries=("vl3.errors",), run=run, key_parts=lambda _: {}, reusable=False),
    "train": Step(
        entries=("vl3.errors",),
        run=run,
        key_parts=lambda request: {"seed": request.config.seed},
        cost=lambda record: f"It costs {'much' if record.seconds < 60 else 'more'}",
    ),
    "report": Step(entries=("vl3.errors",), run=run, key_parts=lambda _: {}),
}


@pytest.fixture
def request_for(request_of_tiny: StepRequest) -> Callable[..., StepRequest]:
    def make(task: TaskWiring, inputs: dict[str, Reference], *overrides: str) -> StepRequest:
        config = apply_overrides(request_of_tiny.config, overrides)
        return dataclasses.replace(request_of_tiny, task=task.name, inputs=inputs, config=config)

    return make


@pytest.fixture
def look(request_for: Callable[..., StepRequest]) -> Preview:
    """The previews by task, for a configuration with overrides and steps that are changed."""

    def call(*overrides: str, **changed: Step) -> dict[str, TaskPreview]:
        steps = STEPS | changed
        found = preview(TASKS, steps.__getitem__, lambda task, inputs: request_for(task, inputs, *overrides))
        return {one.task: one for one in found}

    return call


@pytest.fixture
def finished(request_for: Callable[..., StepRequest]) -> dict[str, dict[str, Reference]]:
    """The outputs of a run that went through."""
    outputs: dict[str, dict[str, Reference]] = {}
    for task in TASKS:
        inputs = {name: outputs[maker][output] for name, (maker, output) in task.inputs.items()}
        outputs[task.name] = execute(STEPS[task.step], request_for(task, inputs), lambda *_: None)[0].outputs
    return outputs


def lines(previews: dict[str, TaskPreview]) -> dict[str, str]:
    return {name: one.line for name, one in previews.items()}


def test_before_the_first_run_only_what_needs_nothing_is_known(look: Preview) -> None:
    assert lines(look()) == {
        "start": "would run: it does so in every run",
        "train-a": "would run: waits for the output of start",
        "train-b": "would run: waits for the output of train-a",
        "report": "would run: waits for the output of train-a, train-b",
    }


def test_after_a_run_everything_is_reused(look: Preview, finished: object, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    previews = look()
    assert previews["start"].line == "would run: it does so in every run"
    assert [one.is_reused for one in previews.values()] == [False, True, True, True]
    assert previews["report"].line.startswith("reused: finished 20")
    assert sorted(path for path in tmp_path.rglob("*")) == before, "nothing is written"


def test_a_changed_field_is_named_and_what_follows_waits(look: Preview, finished: object) -> None:
    previews = look("seed=5")
    assert previews["train-a"].line == "would run: config seed 0 -> 5"
    assert previews["train-a"].warning == ""
    assert previews["train-b"].line == "would run: waits for the output of train-a"


def test_changed_code_is_named_with_what_it_costs(look: Preview, finished: object) -> None:
    previews = look(train=dataclasses.replace(STEPS["train"], entries=("vl3.errors", "vl3.lifeline")))
    assert previews["train-a"].line == "would run: code changed in vl3.lifeline (new)"
    assert "differs in code alone: code changed in vl3.lifeline (new). It costs much." in previews["train-a"].warning


def test_damaged_outputs_are_said(look: Preview, finished: dict[str, dict[str, Reference]]) -> None:
    (file_path(finished["train-b"]["out"].uri) / "what").write_text("else")
    assert look()["train-b"].line == "would run: the outputs of the finished one are gone or damaged"


def test_what_cannot_be_told_is_said(look: Preview) -> None:
    previews = look(start=dataclasses.replace(STEPS["start"], key_parts=refuse))
    assert previews["start"].line == ("would run: cannot be determined: the data folder does not exist")
