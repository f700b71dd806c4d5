"""Planned and spent, as metrics, tags and in the log."""

from dataclasses import replace

import pytest

from vl3.recipes.catalog import get_recipe
from vl3.steps.stage_cost import planned_seconds, stage_cost

LARGE = get_recipe("vl3_2b")
PRICED = replace(LARGE.placements["video"], gpu="h200", price_per_gpu_hour=2.0)
CLUSTER = replace(
    LARGE,
    launch=replace(LARGE.launch, backend="trainjob"),
    placements=LARGE.placements | {"video": PRICED},
)
EVENTS = [
    {"type": "start", "time": 100.0, "world_size": 16, "startup_seconds": 100.0},
    {"type": "end", "time": 3600.0, "steps": 10},
]


def test_planned_and_spent_stand_side_by_side() -> None:
    cost = stage_cost(CLUSTER, "video", EVENTS, planned_seconds=1800.0)
    metrics = cost.metrics()
    assert (metrics["spent/gpu_hours"], metrics["planned/gpu_hours"]) == (16.0, 8.0)
    assert (metrics["spent/cost"], metrics["planned/cost"]) == (32.0, 16.0)
    assert cost.tags() == {
        "vl3.spent": "16 GPU-hours on pool h200 (32.00 USD)",
        "vl3.planned": "8 GPU-hours on pool h200 (16.00 USD)",
    }
    assert cost.to_dict()["planned"]["gpu_hours"] == 8.0


def test_without_a_plan_only_what_was_spent_is_said() -> None:
    local = stage_cost(LARGE, "video", EVENTS, planned_seconds=None)
    assert local.tags() == {"vl3.spent": "16 process-hours on pool local"}
    assert local.to_dict()["planned"] is None
    assert set(local.metrics()) == {"spent/hours", "spent/process_hours", "spent/gpu_hours"}


class _Facts:
    """The counts of a plan."""

    steps, packs_per_step, samples = 1000, 32, 180_000


def test_the_planner_says_what_a_stage_on_a_known_gpu_takes() -> None:
    seconds = planned_seconds(CLUSTER, "video", _Facts())  # type: ignore[arg-type]
    assert seconds is not None
    twice = type("Twice", (_Facts,), {"steps": 2000})
    assert planned_seconds(CLUSTER, "video", twice()) == pytest.approx(2 * seconds)
    assert 0.1 < seconds / 1000 < 60  # a step of 32 rows on 16 H200


def test_without_a_gpu_that_the_planner_knows_nothing_is_planned(caplog: pytest.LogCaptureFixture) -> None:
    assert planned_seconds(LARGE, "video", _Facts()) is None  # type: ignore[arg-type]
    unknown = replace(CLUSTER, placements=CLUSTER.placements | {"video": replace(PRICED, gpu="h300")})
    assert planned_seconds(unknown, "video", _Facts()) is None  # type: ignore[arg-type]
    assert "GPU 'h300' is unknown" in caplog.text
