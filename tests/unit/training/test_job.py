"""The job file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.training.job import StageJob, read_job

JOB = StageJob(
    config={"name": "tiny"},
    stage="video",
    dataset={"uri": "file:///data"},
    initial_model=None,
    work_uri="file:///work",
    output_uri="file:///out",
    created_by={"step": "train-video"},
    made_from={},
    code_version="ab" * 32,
    commit="a-commit",
    events_path="/events.jsonl",
    failure_path="/failure.json",
)


def test_job_survives_its_file(tmp_path: Path) -> None:
    job = replace(JOB, initial_model={"uri": "file:///model"})
    job.write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job


def test_unreadable_job_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    with pytest.raises(ConfigError, match=r"job\.json: the stage's job file cannot be read"):
        read_job(path)
    path.write_text(json.dumps({"stage": "video"}))
    with pytest.raises(ConfigError, match=r"must have the fields code_version, commit, config, .*; found stage"):
        read_job(path)
