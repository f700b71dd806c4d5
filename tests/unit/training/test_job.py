"""The job file."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from vl3.config.codec import to_dict
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe
from vl3.training.job import StageJob, config_of, read_job

JOB = StageJob(
    config={"name": "tiny"},
    stage_order=["video"],
    stage="video",
    dataset={"uri": "file:///data"},
    plan={"uri": "file:///plan"},
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


def test_a_job_whose_stages_were_sorted_on_the_way_is_refused() -> None:
    config = get_recipe("tiny")
    job = replace(JOB, config=to_dict(config), stage_order=list(config.stages))
    assert list(config_of(job).stages) == ["vision_adaptation", "alignment", "multitask", "video"]
    sorted_on_the_way = StageJob(**json.loads(json.dumps(asdict(job), sort_keys=True)))
    with pytest.raises(ConfigError, match=r"are alignment, multitask, video, vision_adaptation and were vision_adapt"):
        config_of(sorted_on_the_way)
