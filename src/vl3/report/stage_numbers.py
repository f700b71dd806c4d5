"""The numbers of one training stage, computed from the raw events of its worker.

A stage that was interrupted has the events of several attempts. If two attempts logged the same step, the later one is
used, because training continued from it.
"""

import statistics
from typing import Any

from vl3.report.data import StageData

PHASES = ("data", "forward", "backward", "optimizer", "save")
PARTS = ("vision", "projector", "language")


def stage_numbers(data: StageData, number: int) -> dict[str, Any]:
    """All that the report shows about one stage, as plain JSON data; `number` is its number in the run, from 1."""
    points = _metric_points(data.events)
    return {
        "stage": data.stage,
        "number": number,
        "settings": _settings(data.config, data.plan),
        "progress": _progress(data, points),
        "curve": _curve(points),
        "throughput": _throughput(points),
        "time_split": _time_split(points),
        "cost": _cost(data),
        "difffp": _difffp(data, points),
        "mix": _mix(data),
        "bad_samples": [str(name) for event in _of(data.events, "end") for name in event.get("bad_samples", [])],
        "notes": [*data.notes, *(str(event.get("text", "")) for event in _of(data.events, "note"))],
    }


def _of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event.get("type") == kind]


def _metric_points(events: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    by_step = {int(event["step"]): event.get("values", {}) for event in _of(events, "metrics")}
    return sorted(by_step.items())


def _column(points: list[tuple[int, dict[str, float]]], name: str) -> list[float]:
    return [values[name] for _, values in points if values.get(name) is not None]


def _settings(config: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    rates = config.get("learning_rates", {})
    return {
        "learning_rates": {part: rates.get(part) for part in PARTS},
        "packs_per_step": plan.get("packs_per_step"),
        "samples_per_step": plan.get("samples_per_step"),
        "row_fill": plan.get("fill", {}).get("binding"),
        "image_merge_size": config.get("image_merge_size"),
        "video_merge_size": config.get("video_merge_size"),
        "difffp": bool(config.get("difffp", False)),
    }


def _progress(data: StageData, points: list[tuple[int, dict[str, float]]]) -> dict[str, Any]:
    starts, ends = _of(data.events, "start"), _of(data.events, "end")
    losses = _column(points, "loss")
    return {
        "steps_planned": data.plan.get("steps"),
        "steps_done": ends[-1]["steps"] if ends and "steps" in ends[-1] else (points[-1][0] if points else 0),
        "finished": bool(ends),
        "attempts": len(starts),
        "resumed_from_steps": [start["resumed_from_step"] for start in starts if start.get("resumed_from_step")],
        "world_size": starts[-1].get("world_size") if starts else None,
        "startup_seconds": sum(start.get("startup_seconds") or 0.0 for start in starts) if starts else None,
        "seconds": ends[-1].get("seconds") if ends else None,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "supervised_tokens": sum(_column(points, "supervised_tokens")) or None,
    }


def _curve(points: list[tuple[int, dict[str, float]]]) -> dict[str, list[Any]]:
    names = ["loss", "grad_norm", *(f"lr/{part}" for part in PARTS), "tokens_per_second"]
    present = [name for name in names if any(values.get(name) is not None for _, values in points)]
    return {
        "step": [step for step, _ in points],
        **{name: [values.get(name) for _, values in points] for name in present},
    }


def _throughput(points: list[tuple[int, dict[str, float]]]) -> dict[str, float] | None:
    speeds = _column(points, "tokens_per_second")
    if not speeds:
        return None
    found = {"median_tokens_per_second": statistics.median(speeds), "max_tokens_per_second": max(speeds)}
    medians = ("mfu", "tflops_per_second", "data_wait_share", "save_stall_share")
    columns = {name: _column(points, name) for name in medians}
    return found | {name: statistics.median(column) for name, column in columns.items() if column}


def _cost(data: StageData) -> dict[str, Any] | None:
    """Planned and spent, in the same numbers."""
    if data.spent is None:
        return None
    names = ("process_hours", "gpu_hours", "cost")
    planned = data.planned or {}
    return {
        **{name: data.spent.get(name) for name in ("pool", "gpu", "currency", "attempts")},
        "spent": {name: data.spent.get(name) for name in names},
        "planned": {name: planned.get(name) for name in names} if planned else None,
    }


def _time_split(points: list[tuple[int, dict[str, float]]]) -> dict[str, dict[str, float]] | None:
    seconds = {phase: _column(points, f"seconds/{phase}") for phase in PHASES}
    means = {phase: statistics.fmean(column) for phase, column in seconds.items() if column}
    total = sum(means.values())
    if not total:
        return None
    return {phase: {"seconds_per_step": mean, "share": mean / total} for phase, mean in means.items()}


def _difffp(data: StageData, points: list[tuple[int, dict[str, float]]]) -> dict[str, Any] | None:
    before, kept = _column(points, "visual_tokens"), _column(points, "visual_tokens_kept")
    if not before or not kept or not sum(before):
        return None
    return {
        "enabled": bool(data.config.get("difffp", False)),
        "mean_visual_tokens": statistics.fmean(before),
        "mean_visual_tokens_kept": statistics.fmean(kept),
        "kept_share": sum(kept) / sum(before),
    }


def _mix(data: StageData) -> list[dict[str, Any]] | None:
    """Asked and planned share of each kind, and how often a sample of the kind is seen.

    Asked chart 1, document 1, general_video 2, and the plan draws 30 of chart and 10 of general_video and has no
    document: chart is asked with 0.25 and drawn with 0.75, general_video with 0.5 and 0.25, document with 0.25 and 0.
    """
    kinds = data.plan.get("kinds", [])
    if not kinds:
        return None
    asked, drawn = (sum(kind[name] for kind in kinds) for name in ("asked", "drawn"))
    return [
        {
            "kind": kind["key"],
            "asked_share": kind["asked"] / asked,
            "drawn_share": kind["drawn"] / drawn,
            "drawn_samples": kind["drawn"],
            "epochs": kind["epochs"],
        }
        for kind in kinds
    ]
