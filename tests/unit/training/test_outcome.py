"""How the processes of a stage ended."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.documents import changed
from vl3.errors import Vl3Error
from vl3.training.outcome import first_to_fail, recorded_failure

TABLE = """
Failures:
[1]:
  time      : 2026-11-23_12:00:00
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {other} (pid: 11)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_12:00:00
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : {root} (pid: 10)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TABLE.format(other=-9, root=1), ("rank 1", -9)),
        (TABLE.format(other=-15, root=1), ("rank 0", 1)),
        (TABLE.format(other=-9, root=-9), ("rank 0", -9)),
        ("no table at all", ("torchrun", 7)),
    ],
    ids=[
        "a kill comes before the broken connection it causes",
        "else the root cause",
        "the first of two that were killed",
        "torchrun itself",
    ],
)
def test_the_process_that_brought_the_others_down_is_named(text: str, expected: tuple[str, int]) -> None:
    assert first_to_fail(text, 7) == expected


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed({"family": "DataError", "message": "line 7 has no answer"}))
def test_a_recorded_failure_of_any_content_is_an_error_of_a_family_or_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "failure.json").write_bytes(data)
    found = recorded_failure(tmp_path / "failure.json")
    assert found is None or isinstance(found, Vl3Error)
    assert recorded_failure(tmp_path / "none.json") is None
