"""How long a pod may take to end."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.launch.grace import (
    estimate_grace,
    estimated_save_seconds,
    longest_step_seconds,
    measured_save_seconds,
)
from vl3.recipes.catalog import get_recipe


def saved(stall: Any, write: Any, state: str = "saved") -> dict[str, Any]:
    return {"type": "checkpoint", "state": state, "step": 1, "stall_seconds": stall, "write_seconds": write}


@pytest.mark.parametrize(
    ("save_seconds", "step_seconds", "grace"), [(60, 20, 155), (1, 1, 120), (0.5, 300, 316), (5000, 1, 1800)]
)
def test_it_has_room_for_a_step_and_two_checkpoints(save_seconds: float, step_seconds: float, grace: int) -> None:
    assert estimate_grace(save_seconds, step_seconds) == grace


def test_it_is_measured_from_the_last_checkpoints_that_were_written() -> None:
    assert measured_save_seconds([]) is None
    assert measured_save_seconds([saved(9.0, 90.0), *(saved(0.5, float(i)) for i in range(10))]) == 9.5
    assert measured_save_seconds([{"type": "checkpoint", "state": "lost", "step": 3}, saved("1", None)]) is None
    metrics = [{"type": "metrics", "values": {"seconds/step": seconds}} for seconds in (2.0, 8.0, 3.0)]
    assert longest_step_seconds(metrics) == 8.0
    assert longest_step_seconds([]) == 0.0


def test_before_that_it_is_estimated_from_the_weights() -> None:
    config = get_recipe("vl3_7b")
    config = replace(config, launch=replace(config.launch, backend="trainjob"))
    ranks = config.placements["video"].num_processes
    seconds = estimated_save_seconds(15_200_000_000, 2, config, "video")
    assert seconds == pytest.approx(7.6e9 * 12 / ranks / 100e6)
