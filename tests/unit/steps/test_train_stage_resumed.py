"""The training step with real processes: stopped and started again on other numbers of them, and with other code."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.steps.test_train_stage import PretendedRun
from vl3.config.codec import from_dict
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import ClusterError
from vl3.steps import train_stage
from vl3.store.artifacts import fetch, find
from vl3.training.events import read_events
from vl3.workflow import step as step_module
from vl3.workflow.step import StepRequest, execute

pytestmark = pytest.mark.slow
STEPS = 60
"""Enough that a stage is still at work when it is stopped."""
STOPPED = "the test has seen enough"
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> PretendedRun:
    pretended = PretendedRun()
    monkeypatch.setattr("vl3.workflow.step.StepWork.step_run", lambda self: pretended)
    return pretended


@pytest.fixture
def run(request_of_tiny: StepRequest, stage_inputs: Any, tracked: PretendedRun, tmp_path: Path) -> Run:
    """Runs the step until its stage has done a step, or to its end; returns the stage's events."""

    def call(
        name: str, processes: int, *overrides: str, stop_at: int | None = None, commit: str = "a-commit"
    ) -> list[dict[str, Any]]:
        job = stage_inputs.job(tmp_path / name)
        settings = [
            f"launch.processes_per_node={processes}", f"stages.vision_adaptation.steps={STEPS}",
            "stages.vision_adaptation.packs_per_step=4", "engine.log_every_steps=1",
            "engine.checkpoint_every_steps=10", *overrides,
        ]  # fmt: skip
        packs = [f"stages.{stage}.packs_per_step=4" for stage in ("alignment", "multitask", "video")]
        config = apply_overrides(from_dict(RunConfig, job.config), [*packs, *settings])
        plan = stage_inputs.plan(tmp_path / name, config)
        request = dataclasses.replace(
            request_of_tiny,
            task="train-vision-adaptation",
            part="vision_adaptation",
            config=config,
            artifacts_uri=(tmp_path / name / "artifacts").as_uri(),
            inputs={"dataset": stage_inputs.dataset, "plan": plan, "initial": stage_inputs.start},
            commit=commit,
        )

        def watch(done: int, total: int, text: str) -> None:
            if stop_at is not None and done >= stop_at and text.startswith("loss"):
                raise ClusterError(STOPPED)

        if stop_at is not None:
            with pytest.raises(ClusterError, match=STOPPED):
                execute(train_stage.STEP, request, watch)
            (path,) = (tmp_path / name / "artifacts" / "work" / request.task).glob("*/events.jsonl")
            return read_events(path)
        record, _ = execute(train_stage.STEP, request, watch)
        return read_events(fetch(record.outputs["training"]) / "events.jsonl")

    return call


def refuse(*_: object) -> None:
    raise ClusterError(STOPPED)


def metrics(events: list[dict[str, Any]], *names: str) -> dict[int, tuple[float, ...]]:
    return {e["step"]: tuple(e["values"][name] for name in names) for e in events if e["type"] == "metrics"}


def starts(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(event["world_size"], event["resumed_from_step"]) for event in events if event["type"] == "start"]


def test_a_stage_goes_on_at_two_then_one_then_four_processes(run: Run, tmp_path: Path) -> None:
    unbroken = run("unbroken", 2)
    run("moved", 2, stop_at=10)
    run("moved", 1, "engine.zero_stage=0", stop_at=30)
    moved = run("moved", 4, "launch.threads_per_process=2", "engine.recompute=full")

    worlds, resumed = zip(*starts(moved), strict=True)
    assert worlds == (2, 1, 4)
    assert resumed[0] == 0
    assert 10 <= resumed[1] < resumed[2] < STEPS
    same = ("supervised_tokens", "visual_tokens", "visual_tokens_kept", "mix/scene_image", "mix/text_only")
    assert metrics(moved, *same) == metrics(unbroken, *same), "the samples of each step are the same"
    assert sorted(metrics(moved, "loss")) == list(range(1, STEPS + 1))
    losses, expected = metrics(moved, "loss"), metrics(unbroken, "loss")
    largest = max(abs(losses[step][0] / expected[step][0] - 1) for step in losses)
    print(f"largest relative difference of a loss: {largest:.2e}")
    assert largest < 1e-4
    assert len(list((tmp_path / "moved" / "artifacts" / "steps" / "train-vision-adaptation").glob("*.json"))) == 1

    events = run("moved", 2)
    assert starts(events) == starts(moved), "what is finished is not trained again for another number of processes"


def test_a_stage_goes_on_after_a_change_of_the_code(
    run: Run, tracked: PretendedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run("one", 1, stop_at=10, commit="before")
    real = step_module.module_digests
    monkeypatch.setattr(step_module, "module_digests", lambda entries: real(entries) | {"vl3.fresh": "0"})
    events = run("one", 1, commit="after")
    (_, first), (_, resumed) = starts(events)
    assert first == 0
    assert 10 <= resumed < STEPS
    notes = [event["text"] for event in events if event["type"] == "note" and "other code" in event["text"]]
    assert len(notes) == 1
    assert notes[0].startswith(f"resumes at step {resumed} with other code: checkpoint written by commit before")
    assert ", now commit after (version " in notes[0]
    assert tracked.tags["vl3.code_changes"].startswith(f"step {resumed}: commit before (version ")
    (path,) = (tmp_path / "one" / "artifacts" / "steps" / "train-vision-adaptation").glob("*/checkpoint")
    published = find(path.as_uri())
    assert published is not None
    assert published.created_by["code_changes"] == tracked.tags["vl3.code_changes"]

    monkeypatch.setattr(step_module, "module_digests", lambda entries: real(entries) | {"vl3.fresh": "1"})
    monkeypatch.setattr(train_stage, "launch", refuse)
    with caplog.at_level(logging.WARNING), pytest.raises(ClusterError, match=STOPPED):
        run("one", 1)
    (warning,) = [entry.message for entry in caplog.records if "differs in code alone" in entry.message]
    assert "code changed in vl3.fresh. Training it again costs about " in warning
    assert " on 1 process, as the finished one took. To keep it, run the code of that commit." in warning
    assert "(commit after)" in warning
