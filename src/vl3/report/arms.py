"""The arms of an ablation side by side: scores, which differences are beyond chance, and the published numbers.

All arms answered the same questions, so two of them are compared question by question (vl3.report.score_changes). The
published numbers are those of other sizes, data or benchmarks unless the run is that of the paper: they stand beside
ours and are never mixed with them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vl3.report.bars import Bar, bar_chart
from vl3.report.render import render
from vl3.report.score_changes import score_changes, scores_of
from vl3.report.text import label, short_number
from vl3.system.files import atomic_write_text

PAGE, NUMBERS = "report.html", "report.json"
SOURCE = "arXiv 2501.13106, table 9"
"""Where the published numbers are from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmResult:
    """What is known of one arm."""

    name: str
    """Short name."""
    title: str
    """What tables call it."""
    facts: Mapping[str, Any]
    """More about its encoder: name of the fact -> value."""
    models: list[dict[str, Any]]
    """`models` of its evaluation.json: before training, then after each stage."""
    items: Mapping[str, Any]
    """Its items.json."""
    benchmarks: Mapping[str, float | None]
    """Its last model's score by benchmark; None where there is none."""
    published: Mapping[str, float]
    """Published score by benchmark."""
    partial: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the copy of a benchmark lacked, of those that were not whole."""


def compare_arms(arms: Sequence[ArmResult]) -> dict[str, Any]:
    """The comparison as JSON-ready data.

    Returns:
        `arms` (name, title, facts, mean before and after training), `categories` (held-out accuracy of each arm with
        its interval, and the best), `benchmarks` (ours and the published score of each arm), `pairs` (for each two
        arms the differences, vl3.report.score_changes), `published_in`.
    """
    return {
        "arms": [_arm(arm) for arm in arms],
        "categories": _categories(arms),
        "benchmarks": _benchmarks(arms),
        "pairs": [
            {"first": one.name, "second": other.name, **score_changes(_scores(one), _scores(other))}
            for number, one in enumerate(arms)
            for other in arms[number + 1 :]
        ],
        "published_in": SOURCE,
    }


def verdict(comparison: Mapping[str, Any]) -> str:
    """The result in one sentence: which arm has the best mean, and whether that is beyond chance."""
    arms = {arm["name"]: arm for arm in comparison["arms"]}
    ranked = sorted(arms.values(), key=lambda arm: -arm["mean_accuracy"])
    best, second = ranked[0], ranked[1]
    pair = next(one for one in comparison["pairs"] if {one["first"], one["second"]} == {best["name"], second["name"]})
    said = "" if pair["mean"] is None else pair["mean"]["verdict"]
    beyond = "within chance of" if said in ("", "within chance") else "beyond chance ahead of"
    means = ", ".join(f"{arm['name']} {arm['mean_accuracy']:.3f}" for arm in arms.values())
    return f"mean held-out accuracy {means}; {best['name']} is first, {beyond} {second['name']}"


def write_arms_page(comparison: Mapping[str, Any], folder: Path, *, run_name: str) -> None:
    """Write report.html and report.json.

    Raises:
        StorageError: a file cannot be written.
    """
    names = [arm["name"] for arm in comparison["arms"]]
    page = render(
        "arms.html.j2",
        title=f"{run_name} · vl3 ablation",
        c=comparison,
        names=names,
        run_name=run_name,
        verdict=verdict(comparison),
        category_charts=[_category_chart(row, names) for row in comparison["categories"]],
        benchmark_charts=[_benchmark_chart(row, names) for row in comparison["benchmarks"]],
    )
    atomic_write_text(folder / NUMBERS, json.dumps(comparison, indent=2, ensure_ascii=False) + "\n")
    atomic_write_text(folder / PAGE, page)


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "name": arm.name,
        "title": arm.title,
        "facts": dict(arm.facts),
        "mean_before": arm.models[0]["mean_accuracy"],
        "mean_accuracy": arm.models[-1]["mean_accuracy"],
        "stages": {model["name"]: model["mean_accuracy"] for model in arm.models},
    }


def _scores(arm: ArmResult) -> Any:
    return scores_of(arm.models, arm.models[-1]["name"], arm.items)


def _categories(arms: Sequence[ArmResult]) -> list[dict[str, Any]]:
    rows = []
    for category in dict.fromkeys(name for arm in arms for name in arm.models[-1]["tasks"]):
        scores = {arm.name: arm.models[-1]["tasks"].get(category) for arm in arms}
        rows.append(
            {"category": category, "scores": scores, "best": _best({n: s and s["accuracy"] for n, s in scores.items()})}
        )
    return rows


def _benchmarks(arms: Sequence[ArmResult]) -> list[dict[str, Any]]:
    """Ours, where the evaluation measured the benchmark, and the published scores."""
    rows = []
    for benchmark in dict.fromkeys(name for arm in arms for name in arm.published):
        published = {arm.name: arm.published.get(benchmark) for arm in arms}
        ours = {arm.name: arm.benchmarks.get(benchmark) for arm in arms}
        rows.append(
            {
                "benchmark": benchmark,
                "published": published,
                "ours": ours,
                "best_published": _best(published),
                "best_ours": _best(ours),
                "partial": sorted({lack for arm in arms for lack in arm.partial.get(benchmark, ())}),
            }
        )
    return rows


def _best(values: Mapping[str, float | None]) -> list[str]:
    """The names with the highest value: of 1, 2, 2 the last two."""
    known = [value for value in values.values() if value is not None]
    return [name for name, value in values.items() if known and value == max(known)]


def _category_chart(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    scores = row["scores"]
    bars = [
        Bar(
            label=name,
            value=scores[name] and scores[name]["accuracy"],
            interval=scores[name] and (scores[name]["low"], scores[name]["high"]),
        )
        for name in names
    ]
    story = "; ".join(f"{bar.label} {bar.value:.0%}" for bar in bars if bar.value is not None)
    chart = bar_chart(bars, percent=True, title=label(row["category"]), description=story)
    return {"name": label(row["category"]), "chart": chart}


def _benchmark_chart(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    bars = [Bar(label=name, value=row["ours"][name], published=row["published"][name]) for name in names]
    story = "; ".join(
        f"{bar.label} published {short_number(bar.published)}" for bar in bars if bar.published is not None
    )
    return {
        "name": row["benchmark"],
        "chart": bar_chart(bars, percent=False, title=row["benchmark"], description=story),
    }
