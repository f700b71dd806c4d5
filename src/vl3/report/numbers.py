"""The numbers of the report, computed once from ReportData; report.json contains them and report.html shows them.

They are rounded to six significant digits here, so that both files have exactly the same values.
"""

import math
from typing import Any

from vl3.config.codec import flatten, to_dict
from vl3.report.data import ChainStep, ReportData, StageData
from vl3.report.pairs import between_stages, champion_numbers, item_numbers, without_score
from vl3.report.score_changes import score_changes, scores_of
from vl3.report.stage_numbers import stage_numbers

SIGNIFICANT_DIGITS = 6


def report_numbers(data: ReportData) -> dict[str, Any]:
    """The content of report.json: plain JSON data, with NaN and infinity as strings."""
    numbers = {
        "run": to_dict(data.run),
        "verdict": to_dict(data.verdict),
        "chain": _chain(data),
        "stages": [stage_numbers(stage, number) for number, stage in enumerate(data.stages, 1)],
        "settings": flatten(data.settings),
        "accuracy": _accuracy(data),
        "published": data.published or None,
        "between_stages": between_stages(data),
        "champion": champion_numbers(data),
        **item_numbers(data),
        "without_score": without_score(data),
        "predictions": (data.evaluation or {}).get("predictions") or None,
        "confusions": (data.evaluation or {}).get("confusions") or {},
        "gates": to_dict(data.gates),
        "validation": to_dict(data.validation),
        "lineage": to_dict(data.lineage) or None,
        "missing": dict(data.missing),
    }
    return _rounded(numbers)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return _rounded_float(value)
    return value


def _rounded_float(value: float) -> float | str:
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() or abs(value) >= 10**SIGNIFICANT_DIGITS:
        return round(value, 3)
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _chain(data: ReportData) -> dict[str, Any] | None:
    if not data.chain:
        return None
    begin = min((step.started_at for step in data.chain if step.started_at is not None), default=None)
    steps = [_chain_step(step, begin) for step in data.chain]
    worked = sum(step["seconds"] or 0.0 for step in steps)
    outside = None if data.wall_seconds is None else max(0.0, data.wall_seconds - worked)
    return {"wall_seconds": data.wall_seconds, "step_seconds": worked, "outside_seconds": outside, "steps": steps}


def _chain_step(step: ChainStep, begin: float | None) -> dict[str, Any]:
    offset = step.started_at - begin if step.started_at is not None and begin is not None else None
    seconds = step.seconds
    if seconds is None and step.started_at is not None and step.ended_at is not None:
        seconds = step.ended_at - step.started_at
    return {
        "name": step.name,
        "state": step.state,
        "offset_seconds": offset,
        "seconds": seconds,
        "produced_in_seconds": step.produced_in_seconds,
        "note": step.note,
    }


def _accuracy(data: ReportData) -> dict[str, Any] | None:
    models = (data.evaluation or {}).get("models") or []
    if not models:
        return None
    names = [model["name"] for model in models]
    categories = list(dict.fromkeys(category for model in models for category in model["tasks"]))
    last, former = names[-1], names[-2] if len(names) > 1 else None
    changes = score_changes(*(scores_of(models, name, data.items) for name in (former, last))) if former else None
    return {
        "models": names,
        "mean_accuracy": {model["name"]: model["mean_accuracy"] for model in models},
        "mean_chance": _mean_chance(models[-1]["tasks"]),
        "last_change": _without_shares(changes["mean"]) if changes and changes["mean"] else None,
        "categories": [_category_row(category, models, data, changes) for category in categories],
    }


def _without_shares(change: dict[str, Any]) -> dict[str, Any]:
    """A change without the two shares, which are in the table anyway."""
    return {name: value for name, value in change.items() if name not in ("first", "second")}


def _mean_chance(tasks: dict[str, Any]) -> float | None:
    chances = [task.get("chance") for task in tasks.values()]
    return sum(chances) / len(chances) if chances and None not in chances else None


def _category_row(
    category: str, models: list[dict[str, Any]], data: ReportData, changes: dict[str, Any] | None
) -> dict[str, Any]:
    scores = {model["name"]: model["tasks"][category] for model in models if category in model["tasks"]}
    left_out = [stage.stage for stage in data.stages if not _trains(stage, category)]
    change = changes["tasks"].get(category) if changes else None
    return {
        "category": category,
        "chance": next((score["chance"] for score in scores.values() if score.get("chance") is not None), None),
        "total": max(score["total"] for score in scores.values()),
        "left_out_by": left_out,
        "left_out_at_the_end": bool(data.stages) and data.stages[-1].stage in left_out,
        "last_change": _without_shares(change) if change else None,
        "scores": scores,
    }


def _trains(stage: StageData, category: str) -> bool:
    """Whether a stage draws samples of a category, as far as its plan is known."""
    kinds = stage.plan.get("kinds")
    return kinds is None or any(kind["drawn"] and category in kind["categories"] for kind in kinds)
