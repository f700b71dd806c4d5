"""System metrics while a step runs."""

import threading
from typing import Any

from vl3.tracking.machine import NEXT_STEP, sampled


class Notes:
    """Remembers rows, and says when there are some."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.has_some = threading.Event()

    def log_metrics(self, rows: list[Any], *, times_seconds: list[float], may_drop: bool) -> None:
        self.rows += rows
        assert may_drop
        assert len(times_seconds) == 1
        self.has_some.set()


def test_the_use_of_the_machine_is_noted_as_system_metrics() -> None:
    notes = Notes()
    with sampled(notes, every_seconds=0.01):  # type: ignore[arg-type]
        assert notes.has_some.wait(60)
    step, values = notes.rows[0]
    assert step == NEXT_STEP
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert values["system/system_memory_usage_megabytes"] > 0
    assert all(name.startswith("system/") for name in values)
