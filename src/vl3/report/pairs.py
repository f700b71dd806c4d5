"""What the report shows of paired comparisons and of single items: parts of the evidence, no further statistics."""

from collections.abc import Mapping
from typing import Any

from vl3.report.data import ReportData
from vl3.report.text import label

_DIFFERENCE = ("value", "low", "high")
_COUNTS = ("first", "second", "shared", "won", "lost", "unshared", "verdict")


def pair_rows(pair: Mapping[str, Any], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows of a comparison: each benchmark, its parts below it, then groups of benchmarks.

    Args:
        pair: one of the pairs of evidence.json.
        titles: what people call a benchmark, by its name.

    Returns:
        Rows of `name`, `title`, `level` (`benchmark`, `part` or `group`), `difference` (value, low, high; None if
        nothing could be compared), first, second, shared, won, lost, unshared and verdict.
    """
    rows = []
    for name, found in pair["benchmarks"].items():
        parts = found.get("parts", {})
        title = titles.get(name, label(name))
        rows.append(_row(name, f"{title}, all" if parts else title, "benchmark", found))
        rows += [_row(part, label(part), "part", own) for part, own in parts.items()]
    rows += [_row(name, f"mean of the {name} benchmarks", "group", found) for name, found in pair["groups"].items()]
    return rows


def _row(name: str, title: str, level: str, found: Mapping[str, Any]) -> dict[str, Any]:
    difference = None if found["value"] is None else {key: found[key] for key in _DIFFERENCE}
    counts = {key: found.get(key) for key in _COUNTS}
    return {"name": name, "title": title, "level": level, "difference": difference, **counts}


def between_stages(data: ReportData) -> list[dict[str, Any]] | None:
    """Each comparison of two models of the run, without the champion; None if there is none."""
    champion = (data.evidence.get("champion") or {}).get("model")
    pairs = [pair for pair in data.evidence.get("pairs", ()) if pair["first"] != champion]
    return [
        {"first": one["first"], "second": one["second"], "rows": pair_rows(one, data.titles)} for one in pairs
    ] or None


def champion_numbers(data: ReportData) -> dict[str, Any] | None:
    """The candidate against the champion; None if they were not compared."""
    if data.champion is None:
        return None
    sides = (data.champion.model, data.champion.candidate)
    for pair in data.evidence.get("pairs", ()):
        if (pair["first"], pair["second"]) == sides:
            rows, not_compared = pair_rows(pair, data.titles), pair["not_compared"]
            return {"version": data.champion.version, "model": sides[1], "rows": rows, "not_compared": not_compared}
    return None


def without_score(data: ReportData) -> list[dict[str, Any]] | None:
    """Items of the last model that failed or were not judged: by benchmark and reason, with some names; None if none.

    Returns:
        Rows of `title`, `reason`, `count`, `items` (some ids) and `of` (the benchmark's number of items).
    """
    models = (data.evaluation or {}).get("models") or [{"name": ""}]
    measured = data.evidence.get("models", {}).get(models[-1]["name"], {}).get("benchmarks", {})
    return [
        {"title": data.titles.get(name, label(name)), "of": measure["items"], **reason}
        for name, measure in measured.items()
        for reason in measure["reasons"]
    ] or None


def item_numbers(data: ReportData) -> dict[str, Any]:
    """`extremes` and `changed` of report.json: items with the answers to them; None if there are none."""
    changes = data.shown_items.get("changes") or {}
    changed = [{"benchmark": benchmark, **found} for benchmark, found in changes.items()]
    return {"extremes": data.shown_items.get("extremes") or None, "changed": changed or None}
