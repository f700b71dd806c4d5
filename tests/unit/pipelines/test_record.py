"""The record of a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support import documents
from vl3.config.parameters import WorkflowParameters
from vl3.errors import StorageError
from vl3.pipelines.local.record import REQUEST, RunRecord, seconds_between
from vl3.system.files import atomic_write_json
from vl3.system.provenance import provenance

PARAMETERS = WorkflowParameters(recipe="tiny", overrides=("seed=1",))


def _status(task: str, state: str, ended_at: str | None) -> dict:
    return {"task": task, "state": state, "started_at": "2026-01-01T00:00:00.000+00:00", "ended_at": ended_at}


def test_overhead_is_what_no_step_accounts_for(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=["a", "b", "c"])
    record.data["started_at"] = "2026-01-01T00:00:00.000+00:00"
    record.update_task(_status("a", "done", "2026-01-01T00:00:02.500+00:00"))
    record.update_task(_status("b", "reused", "2026-01-01T00:00:00.250+00:00"))
    record.finish(state="succeeded", exit_code=0, error=None, peak_memory_bytes=7)
    data = json.loads((tmp_path / "run.json").read_text())
    assert [(task["name"], task["state"], task["seconds"], task["reused"]) for task in data["tasks"]] == [
        ("a", "done", 2.5, False),
        ("b", "reused", 0.25, True),
        ("c", "waiting", None, False),
    ]
    assert data["overhead_seconds"] == pytest.approx(data["seconds"] - 2.75)
    assert (data["state"], data["exit_code"], data["peak_memory_bytes"]) == ("succeeded", 0, 7)
    assert {name: data[name] for name in provenance()} == provenance()
    assert set(data["versions"]) >= {"python", "torch", "kfp", "mlflow", "deepspeed"}


def test_a_restart_keeps_the_run_id_and_the_earlier_attempts(tmp_path: Path) -> None:
    first = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=["a"])
    first.write()  # and is killed
    second = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=["a"])
    second.finish(state="failed", exit_code=3, error={"family": "DataError", "message": "m"}, peak_memory_bytes=0)
    third = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=["a"])
    assert third.run_id == first.run_id
    assert [(attempt["state"], attempt["exit_code"]) for attempt in third.data["earlier_attempts"]] == [
        ("killed", None),
        ("failed", 3),
    ]
    assert [attempt["commit"] for attempt in third.data["earlier_attempts"]] == [provenance()["commit"]] * 2


def _request(folder: Path, record: RunRecord) -> None:
    """What the runner writes beside the record (watch.py)."""
    request = {"workflow": "train", "parameters": {**record.data["parameters"], "run_id": record.run_id}}
    atomic_write_json(folder / REQUEST, request)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"run_id": 3}', None], ids=str)
def test_a_damaged_record_does_not_lose_the_run_id(damage: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    first = RunRecord(path, workflow="train", parameters=PARAMETERS, tasks=[])
    _request(tmp_path, first)
    if damage is not None:
        path.write_bytes(damage)
    again = RunRecord(path, workflow="train", parameters=PARAMETERS, tasks=[])
    assert (again.run_id, again.data["earlier_attempts"]) == (first.run_id, [])
    other = RunRecord(path, workflow="train", parameters=replace(PARAMETERS, overrides=("seed=2",)), tasks=[])
    assert other.run_id != first.run_id


@pytest.mark.parametrize("change", [{"run_id": "night-7"}, {"run_id": ["a"]}, {"run_id": "../x-20260101-000000-ab12"}])
def test_a_damaged_request_gives_no_run_id(change: dict, tmp_path: Path) -> None:
    first = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    atomic_write_json(tmp_path / REQUEST, {"workflow": "train", "parameters": {**first.data["parameters"], **change}})
    again = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    assert again.run_id.startswith(f"{tmp_path.name}-2")
    assert again.run_id != first.run_id


def test_other_parameters_are_another_run(tmp_path: Path) -> None:
    first = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    first.write()
    same = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    assert same.run_id == first.run_id
    others = {"parameters": WorkflowParameters(recipe="other"), "workflow": "curate"}
    for changed in others:
        asked = {"workflow": "train", "parameters": PARAMETERS} | {changed: others[changed]}
        assert RunRecord(tmp_path / "run.json", **asked, tasks=[]).run_id != first.run_id


@pytest.mark.parametrize("run_id", ["other-20260101-000000-ab12", "before", "..", "it's", ""])
def test_the_id_of_another_run_is_not_taken_over(run_id: str, tmp_path: Path) -> None:
    """The end of a run deletes the TrainJobs of its id."""
    first = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    first.data["run_id"] = run_id
    first.write()
    again = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    assert again.run_id.startswith(f"{tmp_path.name}-")
    assert again.data["earlier_attempts"][0]["run_id"] == run_id


def test_a_given_run_id_is_kept(tmp_path: Path) -> None:
    given = replace(PARAMETERS, run_id="night-7")
    record = RunRecord(tmp_path / "run.json", workflow="train", parameters=given, tasks=[])
    assert record.run_id == "night-7"
    assert "run_id" not in record.data["parameters"]


def test_a_running_task_ends_with_the_run(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=["a"])
    record.update_task(_status("a", "running", None))
    record.finish(state="interrupted", exit_code=130, error=None, peak_memory_bytes=0)
    assert record.data["tasks"][0]["state"] == "interrupted"


def test_times() -> None:
    assert seconds_between("2026-01-01T00:00:00.000+00:00", "2026-01-01T00:01:00.125+00:00") == 60.125


def test_an_unwritable_record_is_explained(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "run.json", workflow="train", parameters=PARAMETERS, tasks=[])
    (tmp_path / "run.json").mkdir()
    with pytest.raises(StorageError, match=r"run\.json: cannot be written"):
        record.write()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=documents.changed(
        {
            "run_id": "run-20260101-000000-ab12", "workflow": "train", "state": "running", "started_at": None,
            "seconds": 1.5, "parameters": {"recipe": "tiny"}, "tasks": [{"name": "a"}],
            "earlier_attempts": [{"run_id": "first"}],
        }
    )
)  # fmt: skip
def test_a_record_of_any_content_keeps_no_run_from_starting(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(data)
    record = RunRecord(path, workflow="train", parameters=PARAMETERS, tasks=["a"])
    record.write()
    assert not {"/", "'"} & set(record.run_id)
    assert record.run_id not in ("", ".", "..")
    assert json.loads(path.read_text())["run_id"] == record.run_id
