"""GPU-hours and price of a stage from its events, over attempts of different sizes."""

from dataclasses import replace

import pytest

from vl3.launch.spent import AttemptSpan, spans_of, spent_of
from vl3.recipes.catalog import get_recipe

H200 = replace(get_recipe("vl3_2b").placements["video"], gpu="h200", price_per_gpu_hour=2.5, currency="EUR")


def start(time: float, world_size: int, startup: float) -> dict:
    return {"type": "start", "time": time, "world_size": world_size, "startup_seconds": startup}


def test_an_attempt_lasts_from_its_launch_to_the_last_event_before_the_next_one() -> None:
    events = [
        start(1060.0, 16, 60.0),
        {"type": "metrics", "step": 10, "time": 4600.0},
        {"type": "metrics", "step": 20, "time": 8200.0},
        {"type": "note", "text": "a launcher of another clock wrote this", "time": 99999.0},
        start(9090.0, 8, 90.0),
        {"type": "metrics", "step": 20, "time": 10800.0},
        {"type": "end", "time": 12600.0, "steps": 10},
    ]
    assert spans_of(events) == [AttemptSpan(processes=16, seconds=7200.0), AttemptSpan(processes=8, seconds=3600.0)]
    spent = spent_of(spans_of(events), H200)
    assert (spent.gpu_hours, spent.process_hours, spent.hours, spent.attempts) == (40.0, 40.0, 3.0, 2)
    assert (spent.cost, spent.currency, spent.pool, spent.gpu) == (100.0, "EUR", "h200", "h200")
    assert spent.metrics("spent") == {
        "spent/hours": 3.0,
        "spent/process_hours": 40.0,
        "spent/gpu_hours": 40.0,
        "spent/cost": 100.0,
    }


def test_a_pool_without_gpus_has_process_hours_and_no_price() -> None:
    cpu = get_recipe("tiny").placements["video"]
    spent = spent_of([AttemptSpan(processes=2, seconds=1800.0)], cpu)
    assert (spent.process_hours, spent.gpu_hours, spent.cost, spent.pool) == (1.0, 0.0, None, "cpu")
    assert "spent/cost" not in spent.metrics("spent")
    assert spent_of([AttemptSpan(processes=2, seconds=1800.0)], None).pool == "local"


@pytest.mark.parametrize(
    "events",
    [[], [{"type": "metrics", "step": 1, "time": 5.0}], [{"type": "start", "resumed_from_step": 0}]],
    ids=["none", "no start", "a start of an older version"],
)
def test_events_that_do_not_tell_count_nothing(events: list[dict]) -> None:
    assert spans_of(events) == []
    assert spent_of([], H200).gpu_hours == 0.0
