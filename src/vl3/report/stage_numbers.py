"""The numbers of one training stage, computed from the raw events of its worker.

A stage that was interrupted has the events of several attempts. If two attempts logged the same step, the later one is
used, because training continued from it.
"""

import statistics
from typing import Any

from vl3.report.data import StageData

PHASES = ("data", "forward", "backward", "optimizer")
PARTS = ("vision", "projector", "language")


def stage_numbers(data: StageData, number: int) -> dict[str, Any]:
    """All that the report shows about one stage, as plain JSON data; `number` is its number in the run, from 1."""
    points = _metric_points(data.events)
    return {
        "stage": data.stage,
        "number": number,
        "settings": _settings(data.config),
        "progress": _progress(data, points),
        "curve": _curve(points),
        "throughput": _throughput(points),
        "time_split": _time_split(points),
        "difffp": _difffp(data, points),
        "mix": _mix(data, points),
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


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    rates = config.get("learning_rates", {})
    return {
        "learning_rates": {part: rates.get(part) for part in PARTS},
        "packs_per_step": config.get("packs_per_step"),
        "image_merge_size": config.get("image_merge_size"),
        "video_merge_size": config.get("video_merge_size"),
        "difffp": bool(config.get("difffp", False)),
    }


def _progress(data: StageData, points: list[tuple[int, dict[str, float]]]) -> dict[str, Any]:
    starts, ends = _of(data.events, "start"), _of(data.events, "end")
    losses = _column(points, "loss")
    return {
        "steps_planned": data.config.get("steps"),
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
    return {"median_tokens_per_second": statistics.median(speeds), "max_tokens_per_second": max(speeds)}


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


def _mix(data: StageData, points: list[tuple[int, dict[str, float]]]) -> list[dict[str, Any]] | None:
    """Asked and drawn share of each kind; if the draw was not counted by source, kinds are whole categories.

    Asked chart:a 1, chart:b 1, general_video 2 and drawn chart 30, general_video 10: chart is asked with 0.5 and drawn
    with 0.75, general_video with 0.5 and 0.25.
    """
    drawn = dict(data.mix_drawn) or _last_mix(points)
    asked = dict(data.config.get("mixture", {}))
    if not drawn or not asked:
        return None
    if not any(":" in kind for kind in drawn):
        asked = _by_category(asked)
    asked_total, drawn_total = sum(asked.values()), sum(drawn.values())
    kinds = [*asked, *(kind for kind in drawn if kind not in asked)]
    return [
        {
            "kind": kind,
            "asked_share": asked.get(kind, 0.0) / asked_total,
            "drawn_share": drawn.get(kind, 0) / drawn_total if drawn_total else 0.0,
            "drawn_samples": drawn.get(kind, 0),
        }
        for kind in kinds
    ]


def _last_mix(points: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    drawn: dict[str, float] = {}
    for _, values in points:
        drawn.update({name.removeprefix("mix/"): n for name, n in values.items() if name.startswith("mix/")})
    return drawn


def _by_category(mixture: dict[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for kind, weight in mixture.items():
        category = kind.partition(":")[0]
        total[category] = total.get(category, 0.0) + weight
    return total
