"""What a step says to MLflow about where its run came from."""

import shlex
from dataclasses import replace
from pathlib import Path

from vl3.config.parameters import WorkflowParameters
from vl3.system.provenance import provenance
from vl3.workflow.step import StepRequest
from vl3.workflow.tracking import source_of, submit_command


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


def test_the_command_has_no_password_and_no_empty_option() -> None:
    parameters = WorkflowParameters(recipe="tiny", tracking_uri="http://me:geheim@host/x")
    assert submit_command(parameters) == "vl3 run submit --recipe tiny --tracking 'http://***@host/x'"
