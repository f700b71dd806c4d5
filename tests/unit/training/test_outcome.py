"""How the processes of a stage ended."""

import pytest

from vl3.training.outcome import first_to_fail

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
  exitcode  : 1 (pid: 10)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TABLE.format(other=-9), ("rank 1", -9)),
        (TABLE.format(other=-15), ("rank 0", 1)),
        ("no table at all", ("torchrun", 7)),
    ],
    ids=["a kill comes before the broken connection it causes", "else the root cause", "torchrun itself"],
)
def test_the_process_that_brought_the_others_down_is_named(text: str, expected: tuple[str, int]) -> None:
    assert first_to_fail(text, 7) == expected
