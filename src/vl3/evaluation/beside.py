"""Our scores beside the published ones, on the paper's scale. Joins documents, computes no statistics."""

from collections.abc import Mapping, Sequence
from typing import Any

from vl3.evaluation.published import SIZES, PublishedNumbers, published, size_of

ABOVE, BELOW, WITHIN = "above", "below", "within our interval"


def beside_published(evidence: Mapping[str, Any], model: str, recipe: str) -> list[dict[str, Any]]:
    """One row for each evaluated benchmark that the paper reports, in the order of its tables.

    A score of 0.612 with an interval of 0.590 to 0.634 on a benchmark in percent, where the paper has 59.6: ours is
    61.2, and the paper's number is within our interval.

    Args:
        evidence: content of evidence.json.
        model: name of our model in it.
        recipe: name of the recipe; if it is of one of the paper's sizes, only that size is shown.

    Returns:
        JSON-ready rows: `benchmark`, `title`, `kind`, `metric`, `full` (the end of its scale), `items`, `failed`,
        `not_judged`; `score`, `low` and `high` on the paper's scale, None without a score; `published`, for each size
        `size`, `paper`, `verdict`, `peers` (numbers by name), `footnotes`, `best_peer` (name and number, or None); and
        `differences` of protocol, and `partial` (what the copy that was asked lacks).
    """
    measured = evidence.get("models", {}).get(model, {}).get("benchmarks", {})
    own = size_of(recipe)
    tables = published()
    sizes = [own] if own else list(SIZES)
    partial = evidence.get("made_of", {}).get("partial", {})
    return [
        _row(first, measured[name], [(size, tables[size][name]) for size in sizes], partial.get(name, []))
        for name, first in tables[sizes[0]].items()
        if name in measured
    ]


def _row(
    about: PublishedNumbers,
    measure: Mapping[str, Any],
    numbers: Sequence[tuple[str, PublishedNumbers]],
    partial: Sequence[str],
) -> dict[str, Any]:
    score, low, high = _on_scale(measure, about.scale)
    return {
        "benchmark": about.benchmark,
        "title": about.title,
        "kind": about.kind,
        "metric": about.metric,
        "full": about.full,
        "items": measure["items"],
        "failed": measure["failed"],
        "not_judged": measure["not_judged"],
        "score": score,
        "low": low,
        "high": high,
        "published": [
            {
                "size": size,
                "paper": one.paper,
                "verdict": _verdict(score, low, high, one.paper),
                "peers": dict(one.peers),
                "footnotes": dict(one.footnotes),
                "best_peer": list(one.best_peer) if one.best_peer else None,
            }
            for size, one in numbers
        ],
        "differences": list(about.differences),
        "partial": list(partial),
    }


def _on_scale(measure: Mapping[str, Any], scale: float | None) -> tuple[float | None, float | None, float | None]:
    """Score and interval as published; `headline` is the harness's own number where a mean of items cannot be it."""
    headline = measure.get("headline")
    if measure["score"] is None or (scale is None and headline is None):
        return None, None, None
    if scale is None:
        return headline, None, None
    score, low, high = (measure[name] * scale for name in ("score", "low", "high"))
    return (score if headline is None else headline), low, high


def _verdict(score: float | None, low: float | None, high: float | None, paper: float) -> str | None:
    if score is None:
        return None
    if low is None or high is None:
        return ABOVE if score > paper else BELOW
    return ABOVE if low > paper else BELOW if high < paper else WITHIN
