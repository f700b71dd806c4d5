"""The driver of a build on Ray: what it reads, makes, prints and fails with; actors are tested with data/build."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.corpus import make_corpus
from vl3.config.codec import to_dict
from vl3.data.build.executors import Processes
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.pod import build
from vl3.pod.build import BUILD_ENTRIES, FAILURE_PREFIX, JOB_VARIABLE, main
from vl3.recipes.tiny import tiny
from vl3.store.artifacts import publish
from vl3.store.bases import base_folder
from vl3.workflow.code import code_version


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A build of a few samples, made by a process in place of actors."""
    monkeypatch.setattr(build, "RayActors", lambda address: Processes(workers=1))
    config, start = tiny(), tmp_path / "start"
    start.mkdir()
    (start / TOKENIZER_FILE).write_bytes((base_folder(config.model.language_base) / TOKENIZER_FILE).read_bytes())
    made_by = {"step": "test", "key": "0", "run": "test"}
    reference = publish(start, (tmp_path / "published").as_uri(), kind="start", created_by=made_by)
    return {
        "config": to_dict(config),
        "data_uri": (tmp_path / "data").as_uri(),
        "work_uri": (tmp_path / "work").as_uri(),
        "start": reference.to_dict(),
        "identity": "one",
        "code_version": code_version(BUILD_ENTRIES),
    }


def environment(job: dict[str, Any]) -> dict[str, str]:
    return {JOB_VARIABLE: json.dumps(job)}


def said(text: str) -> dict[str, Any]:
    (line,) = [line for line in text.splitlines() if line.startswith(FAILURE_PREFIX)]
    found: dict[str, Any] = json.loads(line.removeprefix(FAILURE_PREFIX))
    return found


def test_units_are_made_and_progress_is_told(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_corpus(tmp_path / "data", "--seed", "1", "--heldout", "1", "--scale", "0.005")
    assert main(environment(job)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("vl3-event ")]
    last = json.loads(lines[-1].removeprefix("vl3-event "))
    assert (last["type"], last["done"]) == ("progress", last["total"])
    assert list((tmp_path / "work").rglob("unit.json"))


def test_data_without_annotations_are_an_error_of_the_data(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert main(environment(job)) == 3
    assert said(capsys.readouterr().out)["family"] == "DataError"


def test_other_code_than_the_launcher_s_is_refused(job: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(environment(job | {"code_version": "0" * 64})) == 2
    found = said(capsys.readouterr().out)
    assert found["family"] == "ConfigError"
    assert "launched by other code of vl3 (version 000000000000)" in found["message"]


@pytest.mark.parametrize("text", [None, "", "not json", "{}", '{"config": {}}', "[1]"])
def test_what_is_no_job_is_refused(text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main({} if text is None else {JOB_VARIABLE: text}) == 2
    assert "VL3_JOB is not a build's job" in said(capsys.readouterr().out)["message"]
