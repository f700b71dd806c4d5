"""The live status of a task: what is written is read, and nothing else is taken for a status."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.system.clock import is_time
from vl3.workflow.failures import local_failure
from vl3.workflow.status import StatusFile, read_status

FAILED = {
    "task": "validate-data", "state": "failed", "started_at": "2026-03-01T10:00:00.000+00:00",
    "ended_at": "2026-03-01T10:00:05.000+00:00", "pid": 7, "progress": {"done": 1, "total": 2, "text": "half"},
    "error": {"family": "DataError", "message": "line 3 is bad"},
}  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    status = StatusFile(tmp_path, "evaluate")
    status.progress(1, 2, "half")
    status.finish("failed", error={"family": "DataError", "message": "bad"})
    found = read_status(tmp_path / "status" / "evaluate.json")
    assert found is not None
    assert (found["task"], found["state"], found["error"]) == (
        "evaluate", "failed", {"family": "DataError", "message": "bad"}
    )  # fmt: skip
    assert found["progress"] == {"done": 1, "total": 2, "left_seconds": None, "text": "half"}
    assert is_time(found["ended_at"])


@pytest.mark.parametrize(
    "change",
    [
        {"state": "asleep"}, {"state": ["failed"]}, {"task": 5}, {"started_at": "then"}, {"ended_at": 5},
        {"error": None}, {"error": {"family": "DataError"}}, {"error": "bad"},
        {"progress": {"done": 1, "total": "2", "text": ""}}, {"progress": {"done": 10**400, "total": 1, "text": ""}},
        *({"progress": {"done": 1, "total": 2, "text": "", "left_seconds": value}} for value in ("3", -1, True, 1e300)),
    ],
)  # fmt: skip
def test_what_is_no_status_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(FAILED))
    assert read_status(path) == FAILED
    path.write_text(json.dumps(FAILED | change))
    assert read_status(path) is None
    assert read_status(tmp_path / "gone.json") is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(FAILED))
def test_any_bytes_are_a_status_or_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "status" / "validate-data.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    found, failure = read_status(path), local_failure(tmp_path)
    if found is None:
        assert failure is None
    elif found["state"] == "failed":
        assert failure is not None
        assert (failure.task, failure.family) == (found["task"], found["error"]["family"])
