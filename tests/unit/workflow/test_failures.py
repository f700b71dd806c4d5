"""Notes of failed tasks in the store, and what status files tell under a local runner."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import ConfigError, DataError, Vl3Error
from vl3.workflow.failures import drop_notes, local_failure, note_failure, noted_failures, refuse_blind_retry
from vl3.workflow.status import now


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return (tmp_path / "artifacts").as_uri()


def _note(uri: str, task: str, family: str = "DataError", message: str = "line 3 is bad") -> None:
    note_failure(uri, "run-1", task=task, family=family, message=message)


def test_the_latest_note_comes_first_and_each_task_has_one(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(["2026-01-01T00:00:01", "2026-01-01T00:00:03", "2026-01-01T00:00:02"])
    monkeypatch.setattr("vl3.workflow.failures.now", lambda: next(times))
    _note(uri, "validate-data")
    _note(uri, "validate-data", message="line 4 is bad")
    _note(uri, "evaluate", "ClusterError", "lost")
    assert [(note.task, note.message) for note in noted_failures(uri, "run-1")] == [
        ("validate-data", "line 4 is bad"),
        ("evaluate", "lost"),
    ]
    assert noted_failures(uri, "run-2") == []


def test_the_exit_handlers_own_failure_is_not_the_runs(uri: str) -> None:
    _note(uri, "finish", "ClusterError", "MLflow is away")
    assert noted_failures(uri, "run-1") == []


@pytest.mark.parametrize(("family", "error"), [("DataError", DataError), ("ConfigError", ConfigError)])
def test_a_retry_that_cannot_help_gets_the_former_error_again(uri: str, family: str, error: type) -> None:
    _note(uri, "validate-data", family)
    with pytest.raises(error, match="line 3 is bad"):
        refuse_blind_retry(uri, "run-1", "validate-data")


@pytest.mark.parametrize("family", ["ClusterError", "StorageError", "Vl3Error"])
def test_a_retry_that_may_help_goes_on(uri: str, family: str) -> None:
    _note(uri, "validate-data", family)
    refuse_blind_retry(uri, "run-1", "validate-data")
    refuse_blind_retry(uri, "run-1", "evaluate")


def test_a_new_attempt_at_the_run_begins_without_notes(uri: str) -> None:
    _note(uri, "validate-data")
    refuse_blind_retry(uri, "run-1", "check-prerequisites")
    refuse_blind_retry(uri, "run-1", "validate-data")
    assert noted_failures(uri, "run-1") == []


def test_a_store_that_cannot_be_cleared_is_left_to_the_first_tasks_own_checks(tmp_path: Path, caplog) -> None:
    refuse_blind_retry("ftp://host/folder", "run-1", "check-prerequisites")
    assert "cannot delete the notes of an earlier attempt" in caplog.text


def test_a_damaged_note_says_nothing(uri: str, tmp_path: Path) -> None:
    _note(uri, "evaluate")
    (path,) = (tmp_path / "artifacts").rglob("evaluate.json")
    path.write_text("{half")
    assert noted_failures(uri, "run-1") == []


def test_a_long_message_is_cut(uri: str) -> None:
    _note(uri, "evaluate", message="x" * 10_000)
    assert len(noted_failures(uri, "run-1")[0].message) == 4000


def test_dropped_notes_are_gone(uri: str) -> None:
    _note(uri, "evaluate")
    drop_notes(uri, "run-1")
    assert noted_failures(uri, "run-1") == []


def _status(folder: Path, task: str, state: str, error: dict | None = None) -> None:
    path = folder / "status" / f"{task}.json"
    path.parent.mkdir(exist_ok=True)
    ended_at = None if state == "running" else now()
    status = {"task": task, "state": state, "started_at": now(), "ended_at": ended_at, "progress": None, "error": error}
    path.write_text(json.dumps(status))


def test_a_failed_status_file_names_the_task(tmp_path: Path) -> None:
    _status(tmp_path, "check-prerequisites", "done")
    _status(tmp_path, "validate-data", "failed", {"family": "DataError", "message": "bad"})
    _status(tmp_path, "finish", "running")
    failure = local_failure(tmp_path)
    assert failure is not None
    assert (failure.task, failure.family, failure.message) == ("validate-data", "DataError", "bad")


def test_a_task_that_still_runs_at_the_end_was_killed(tmp_path: Path) -> None:
    _status(tmp_path, "train-video", "running")
    _status(tmp_path, "finish", "running")
    failure = local_failure(tmp_path)
    assert failure is not None
    assert failure.task == "train-video"
    assert "its process was killed" in failure.message


def test_no_status_file_names_no_task(tmp_path: Path) -> None:
    _status(tmp_path, "finish", "running")
    assert local_failure(tmp_path) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed({"task": "evaluate", "family": "DataError", "message": "bad", "at": "2026-01-01T00:00:00+00:00"}))
def test_a_note_of_any_content_fails_nothing_of_its_own(tmp_path: Path, data: bytes) -> None:
    uri = (tmp_path / "artifacts").as_uri()
    _note(uri, "validate-data")
    (tmp_path / "artifacts" / "runs" / "run-1" / "failures" / "evaluate.json").write_bytes(data)
    assert "validate-data" in [note.task for note in noted_failures(uri, "run-1")]
    try:
        refuse_blind_retry(uri, "run-1", "evaluate")
    except Vl3Error as error:
        assert type(error).__name__ in ("DataError", "ConfigError", "GateError")  # noqa: PT017 - any other fails
