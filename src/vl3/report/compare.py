"""Two finished runs side by side: what was set differently, how the loss went, which scores differ beyond chance."""

from pathlib import Path
from typing import Any

from vl3.report.charts import Series, line_chart
from vl3.report.finished_run import FinishedRun
from vl3.report.render import render
from vl3.report.score_changes import score_changes
from vl3.report.text import label
from vl3.system.files import atomic_write_text


def compare_runs(first: FinishedRun, second: FinishedRun) -> dict[str, Any]:
    """The comparison as JSON-ready data.

    Returns:
        `first` and `second` (name, run_id, model), `settings` and `surroundings` (name, and the value of each side that
        has it), `losses` (by stage: the points of each side), `accuracy` (vl3.report.score_changes), `notes`.
    """
    return {
        "first": {"name": first.name, "run_id": first.run_id, "model": first.model},
        "second": {"name": second.name, "run_id": second.run_id, "model": second.model},
        "settings": _differing(first.settings, second.settings),
        "surroundings": _differing(first.surroundings, second.surroundings),
        "losses": [
            {"stage": stage, "first": first.losses.get(stage, []), "second": second.losses.get(stage, [])}
            for stage in dict.fromkeys((*first.losses, *second.losses))
        ],
        "accuracy": score_changes(first.scores, second.scores),
        "notes": _notes(first, second),
    }


def write_comparison(comparison: dict[str, Any], path: Path) -> None:
    """Write the comparison as a page that needs no other file.

    Raises:
        StorageError: it cannot be written.
    """
    first, second = comparison["first"]["name"], comparison["second"]["name"]
    charts = [
        {
            "stage": one["stage"],
            "chart": _chart(one, first, second),
            "ends": [_ends(one["first"]), _ends(one["second"])],
        }
        for one in comparison["losses"]
    ]
    page = render("compare.html.j2", title=f"{first} and {second} · vl3", c=comparison, charts=charts)
    atomic_write_text(path, page)


def _differing(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """{"a": 1, "b": 2} and {"b": 3}: a has only the first side, b has both."""
    rows = []
    for name in dict.fromkeys((*first, *second)):
        sides = {side: values[name] for side, values in (("first", first), ("second", second)) if name in values}
        if len(sides) < 2 or sides["first"] != sides["second"]:
            rows.append({"name": name, **sides})
    return rows


def _notes(first: FinishedRun, second: FinishedRun) -> list[str]:
    notes = []
    if first.run_id == second.run_id:
        notes.append(f"Both are the run {first.run_id}.")
    runs = (first, second)
    notes += [f"{run.name} was not evaluated." for run in runs if not run.model]
    without = [run.name for run in runs if run.model and not run.scores.items]
    if without:
        names = " and ".join(dict.fromkeys(without))
        notes.append(f"Scores are compared as two samples: {names} kept no answers to single questions.")
    if first.model and second.model and first.model != second.model:
        notes.append(f"The last models are compared: {first.model} of {first.name}, {second.model} of {second.name}.")
    return notes


def _ends(points: list[tuple[float, float]]) -> dict[str, float] | None:
    """First and last loss, and the last step."""
    return {"first": points[0][1], "last": points[-1][1], "steps": points[-1][0]} if points else None


def _chart(losses: dict[str, Any], first: str, second: str) -> Any:
    series = [
        Series(name=first, css_class="s-first", points=losses["first"]),
        Series(name=second, css_class="s-second", points=losses["second"]),
    ]
    values = [loss for one in series for _, loss in one.points if loss > 0]
    is_wide = bool(values) and max(values) / min(values) > 20
    story = f"Loss of {first} and of {second} over the steps"
    return line_chart(series, title=f"Loss, {label(losses['stage'])}", description=story, x_label="step", log_y=is_wide)
