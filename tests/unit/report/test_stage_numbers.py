"""Numbers of a stage from its raw events."""

import pytest

from vl3.report.data import StageData
from vl3.report.stage_numbers import stage_numbers

PLAN = {
    "steps": 40,
    "packs_per_step": 2,
    "samples_per_step": 12.5,
    "fill": {"length": 0.7, "visual": 0.98, "binding": 0.99},
    "kinds": [
        {"key": "scene_image:caption", "asked": 100.0, "available": 50, "drawn": 100, "epochs": 2.0},
        {"key": "scene_image", "asked": 200.0, "available": 600, "drawn": 300, "epochs": 0.5},
        {"key": "chart", "asked": 100.0, "available": 0, "drawn": 0, "epochs": 0.0},
    ],
}
CONFIG = {
    "learning_rates": {"vision": 1e-3, "projector": 2e-3, "language": None},
    "image_merge_size": 1,
    "video_merge_size": 2,
    "difffp": True,
    "mixture": {"scene_image:caption": 1, "scene_image": 2, "chart": 1},
}


def metrics(step: int, **values: float) -> dict:
    return {"type": "metrics", "step": step, "time": 0.0, "values": values}


def numbers(events: list[dict], **changes: object) -> dict:
    return stage_numbers(StageData(stage="multitask", config=CONFIG, plan=PLAN, events=events, **changes), 3)  # type: ignore[arg-type]


def test_a_later_attempt_replaces_what_an_earlier_one_logged() -> None:
    events = [
        {"type": "start", "resumed_from_step": 0, "world_size": 2, "startup_seconds": 10.0},
        metrics(10, loss=3.0),
        metrics(20, loss=2.0),
        {"type": "start", "resumed_from_step": 10, "world_size": 1, "startup_seconds": 12.0},
        metrics(20, loss=1.9),
        metrics(30, loss=1.0),
        {"type": "end", "seconds": 50.0, "steps": 30, "bad_samples": ["train-7"]},
    ]
    result = numbers(events)
    assert result["curve"] == {"step": [10, 20, 30], "loss": [3.0, 1.9, 1.0]}
    progress = result["progress"]
    assert progress["attempts"] == 2
    assert progress["resumed_from_steps"] == [10]
    assert progress["startup_seconds"] == 22.0
    assert progress["world_size"] == 1
    assert (progress["first_loss"], progress["last_loss"]) == (3.0, 1.0)
    assert (progress["steps_done"], progress["steps_planned"], progress["finished"]) == (30, 40, True)
    assert result["bad_samples"] == ["train-7"]


def test_a_stage_that_was_cut_off_has_done_what_it_logged() -> None:
    progress = numbers([{"type": "start", "world_size": 2}, metrics(10, loss=3.0)])["progress"]
    assert (progress["steps_done"], progress["finished"], progress["seconds"]) == (10, False, None)


def test_a_stage_without_events_has_no_numbers() -> None:
    result = numbers([])
    assert result["progress"]["steps_done"] == 0
    assert result["progress"]["startup_seconds"] is None
    assert [result[name] for name in ("throughput", "time_split", "difffp")] == [None] * 3


def test_time_split_and_throughput_are_means_and_medians() -> None:
    events = [
        metrics(10, tokens_per_second=100.0, **{"seconds/data": 0.1, "seconds/forward": 0.3}),
        metrics(20, tokens_per_second=300.0, **{"seconds/data": 0.3, "seconds/forward": 0.9}),
        metrics(30, tokens_per_second=200.0),
    ]
    result = numbers(events)
    assert result["throughput"] == {"median_tokens_per_second": 200.0, "max_tokens_per_second": 300.0}
    assert result["time_split"]["data"] == pytest.approx({"seconds_per_step": 0.2, "share": 0.25})
    assert result["time_split"]["forward"] == pytest.approx({"seconds_per_step": 0.6, "share": 0.75})


def test_difffp_keeps_the_share_of_all_tokens_not_the_mean_of_shares() -> None:
    events = [
        metrics(10, visual_tokens=100.0, visual_tokens_kept=100.0),
        metrics(20, visual_tokens=300.0, visual_tokens_kept=100.0),
    ]
    assert numbers(events)["difffp"] == {
        "enabled": True,
        "mean_visual_tokens": 200.0,
        "mean_visual_tokens_kept": 100.0,
        "kept_share": 0.5,
    }


def test_settings_are_those_that_the_plan_counted() -> None:
    settings = numbers([])["settings"]
    assert (settings["packs_per_step"], settings["samples_per_step"], settings["row_fill"]) == (2, 12.5, 0.99)


def test_the_mix_is_the_plans_beside_what_was_asked() -> None:
    assert numbers([])["mix"] == [
        {
            "kind": "scene_image:caption",
            "asked_share": 0.25,
            "drawn_share": 0.25,
            "drawn_samples": 100,
            "epochs": 2.0,
        },
        {"kind": "scene_image", "asked_share": 0.5, "drawn_share": 0.75, "drawn_samples": 300, "epochs": 0.5},
        {"kind": "chart", "asked_share": 0.25, "drawn_share": 0.0, "drawn_samples": 0, "epochs": 0.0},
    ]


def test_mfu_waits_and_costs_are_shown_where_they_were_measured() -> None:
    events = [
        metrics(10, tokens_per_second=100.0, mfu=0.30, data_wait_share=0.02, save_stall_share=0.0),
        metrics(20, tokens_per_second=120.0, mfu=0.34, data_wait_share=0.04, save_stall_share=0.01),
        metrics(30, tokens_per_second=110.0, mfu=0.32, data_wait_share=0.03, save_stall_share=0.02),
    ]
    spent = {"pool": "h200", "gpu": "h200", "hours": 1.0, "process_hours": 16.0, "gpu_hours": 16.0, "cost": 40.0}
    spent |= {"currency": "EUR", "attempts": 3}
    result = numbers(events, spent=spent, planned=spent | {"gpu_hours": 12.0, "cost": 30.0})
    assert result["throughput"] == {
        "median_tokens_per_second": 110.0,
        "max_tokens_per_second": 120.0,
        "mfu": 0.32,
        "data_wait_share": 0.03,
        "save_stall_share": 0.01,
    }
    assert result["cost"] == {
        "pool": "h200",
        "gpu": "h200",
        "currency": "EUR",
        "attempts": 3,
        "spent": {"process_hours": 16.0, "gpu_hours": 16.0, "cost": 40.0},
        "planned": {"process_hours": 16.0, "gpu_hours": 12.0, "cost": 30.0},
    }
    assert numbers(events)["cost"] is None
