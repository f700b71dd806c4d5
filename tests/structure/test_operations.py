"""The operations page has a row for each way in which a stage can fail on a cluster."""

import re
from pathlib import Path

from vl3.errors import ConfigError
from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import Cause

PAGE = Path(__file__).parents[2] / "docs" / "operations-cluster.md"
ROW = re.compile(r"^\| `(\w+)` \| (\d) \| (\w+) \|", re.MULTILINE)


def test_every_cause_has_a_row_with_its_exit_code_and_retries() -> None:
    rows = {name: (int(code), retry) for name, code, retry in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    known = {
        cause.name: (cause.family.exit_code, cause.retry) for cause in vars(causes).values() if type(cause) is Cause
    }
    assert rows == known
    assert known["out_of_memory"] == (ConfigError.exit_code, "never")
