"""What the workflow's MLflow run has, and how it is called."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.errors import DataError
from vl3.system.provenance import provenance
from vl3.tracking.words import Results
from vl3.workflow.key import KeyParts
from vl3.workflow.step import StepRequest, StepWork
from vl3.workflow.tracking import (
    dataset_name,
    finish_parent_run,
    leftovers_uri,
    note_results,
    open_parent_run,
    open_tracker,
    readable_name,
    source_of,
    submit_command,
)

TEMPLATE = Path(sys.prefix, "share", "vl3", "mlflow.db")
"""Migrated empty database that set-up makes; without it MLflow migrates here, which takes seconds."""
NO_PARTS = KeyParts(config={}, inputs={}, modules={}, libraries={})


@pytest.fixture
def request_here(request_of_tiny: StepRequest) -> StepRequest:
    return replace(request_of_tiny, tracking_template=TEMPLATE)


def _parent(request: StepRequest) -> Any:
    tracker = open_tracker(request)
    return tracker.client.get_run(tracker.workflow.run_id)


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("tiny-20261128-231405-ab12", "tiny 2026-11-28 23:14"),
        ("a-b-20260102-030405-0000", "a-b 2026-01-02 03:04"),
        ("tiny-9fe3ab12cd", "tiny-9fe3ab12cd"),
        ("tiny-20261128-231405-ab12-more", "tiny-20261128-231405-ab12-more"),
    ],
)
def test_a_run_has_a_name_for_people(run_id: str, name: str) -> None:
    assert readable_name(run_id) == name


def test_the_parent_has_what_differs_from_the_recipe_first(request_here: StepRequest) -> None:
    config = apply_overrides(request_here.config, ["seed=7", "stages.video.steps=3"])
    request = replace(request_here, config=config, recipe="tiny")
    open_parent_run(request)
    run = _parent(request)
    assert list(run.data.params)[:2] == ["changed.seed", "changed.stages.video.steps"]
    assert run.data.params["changed.seed"] == run.data.params["seed"] == "7"
    assert run.data.tags["overrides"] == "seed=7, stages.video.steps=3"
    assert "| `stages.video.steps` | `600` | `3` |" in run.data.tags["mlflow.note.content"]


def test_the_results_are_on_the_parent_and_a_failure_says_where(request_here: StepRequest) -> None:
    results = Results(
        state="refused", reason="gates not passed: beats_chance", model="vl3-tiny", version=4, before=0.1,
        after={"video": 0.5}, categories={"chart": 0.5, "streaming": None}, report="/r/report.html",
    )  # fmt: skip
    with open_tracker(request_here).notes("report") as notes:
        note_results(request_here, notes, results)
    run = _parent(request_here)
    assert run.data.metrics == {"accuracy/mean": 0.5, "accuracy/chart": 0.5}
    assert (run.data.tags["verdict"], run.data.tags["model version"]) == ("refused", "vl3-tiny v4")
    tags = {"vl3.state": "FAILED", "vl3.failed_task": "train-video", "vl3.error": "DataError: x"}
    finish_parent_run(request_here, "FAILED", tags)
    run = _parent(request_here)
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"].startswith(
        "The run **failed** in **train-video**: DataError: x\n\nRecipe"
    )


def test_the_runs_of_killed_steps_end_with_the_workflows(request_here: StepRequest) -> None:
    done, killed = open_tracker(request_here), open_tracker(request_here)
    with done.step("validate-data", key="a"):
        pass
    run_ids = [done.reopen_step("validate-data", "a").run_id]
    run_ids += [killed.open_step("train-video", key).run_id for key in ("b", "of an earlier attempt")]
    other = open_tracker(replace(request_here, run_id="another")).open_step("train-video", "c").run_id
    finish_parent_run(request_here, "KILLED", {"vl3.state": "KILLED", "vl3.failed_task": "", "vl3.error": ""})
    states = [done.client.get_run(run_id).info.status for run_id in (*run_ids, other)]
    assert states == ["FINISHED", "KILLED", "KILLED", "RUNNING"]
    run = _parent(request_here)
    assert run.info.status == "KILLED"
    assert run.data.tags["mlflow.note.content"].startswith("The run **was stopped**: it was cancelled, or a pod was")
    assert killed.open_step("train-video", "b").run_id == run_ids[1], "a later attempt continues it"


def test_a_step_does_not_repeat_the_configuration(request_here: StepRequest, tmp_path: Path) -> None:
    request = replace(request_here, run_folder=tmp_path / "run")
    work = StepWork(request=request, parts=NO_PARTS, progress=lambda *_: None)

    def fail() -> None:
        with work.step_run() as step_run:
            step_run.log_params({"stage": "video"})
            raise DataError("stop")

    with pytest.raises(DataError):
        fail()
    tracker = open_tracker(request)
    run = tracker.client.get_run(tracker.reopen_step(request.task, work.key).run_id)
    assert (run.data.params, run.info.status) == ({"stage": "video"}, "FAILED")


def test_leftovers_are_in_the_run_folder_or_beside_the_artifacts(request_here: StepRequest, tmp_path: Path) -> None:
    assert leftovers_uri(request_here) == f"{request_here.artifacts_uri}/untracked/test-run"
    assert leftovers_uri(replace(request_here, run_folder=tmp_path / "a#1")) == f"file://{tmp_path}/a%231/untracked"
    assert dataset_name(replace(request_here, data_uri="s3://bucket/sets/tiny/")) == "tiny"


def test_a_run_here_names_the_command_that_started_it(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    tags = source_of(replace(request_of_tiny, run_folder=tmp_path))
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == (provenance()["command"], "LOCAL")


def test_a_submitted_run_names_the_command_that_submits_it(request_of_tiny: StepRequest) -> None:
    request = replace(request_of_tiny, recipe="tiny", run_folder=None, overrides=("seed=1", "data.max_frames=8"))
    tags = source_of(request)
    assert tags["mlflow.source.type"] == "JOB"
    words = shlex.split(tags["mlflow.source.name"])
    assert words[:3] == ["vl3", "run", "submit"]
    assert words[words.index("--recipe") + 1] == request.recipe
    assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == ["seed=1", "data.max_frames=8"]


def test_the_command_has_no_empty_option() -> None:
    parameters = WorkflowParameters(recipe="tiny", tracking_uri="http://host/x")
    assert submit_command(parameters) == "vl3 run submit --recipe tiny --tracking http://host/x"
