"""How one row of the gates is judged against the evidence. Comparisons only: all statistics are in the evidence."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vl3.config.gates import (
    ABOVE_CHANCE,
    ANSWERED,
    AT_LEAST,
    EVERY,
    ITEMS,
    JUDGED,
    NOT_WORSE,
    PARTS,
    GateConfig,
)
from vl3.tracking.evidence import Evidence, number

_TOLERANCE = 1e-9
_NAMED = 6
"""Reasons of one gate that are written out; the report has every score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowVerdict:
    """What a row says."""

    value: float | None
    """The worst of what was measured."""
    reasons: list[str]
    """Why it refuses; none if it passes."""
    detail: str
    """The reasons, or the worst score; and what the gate cannot tell."""
    told: frozenset[str]
    """Benchmarks and parts whose score it could judge, or could if there were a champion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finding:
    """What a rule says of one score."""

    value: float | None = None
    """What is compared with the threshold."""
    reason: str = ""
    """Why it is refused."""
    unknown: str = ""
    """Why the rule cannot tell."""


_Measures = dict[str, Any]
"""What was measured by benchmark, BENCHMARK/PART or group; None if it is missing."""
_Rule = Callable[[GateConfig, str, Mapping[str, Any]], _Finding]


def judge_row(row: GateConfig, evidence: Evidence) -> RowVerdict:
    """The verdict of one gate.

    A row over the parts a, b and c of which b is below the threshold is refused for b; its value is that of b.
    """
    if row.rule == NOT_WORSE:
        return _against_champion(row, evidence)
    measures = _chosen(row, evidence.measured, evidence.groups, evidence)
    return _verdict(row, measures, {AT_LEAST: _at_least, ABOVE_CHANCE: _above_chance}.get(row.rule, _counted))


def _chosen(row: GateConfig, measured: Mapping[str, Any], groups: Mapping[str, Any], evidence: Evidence) -> _Measures:
    """The scores that a scope names. What is expected and missing is None, and so is what the scope alone names."""
    if row.scope == EVERY:
        every = dict.fromkeys((*evidence.expected, *measured))
        return {name: measured.get(name) for name in every if name not in evidence.submitted}
    benchmark, slash, part = row.scope.partition("/")
    if slash:
        parts = _parts(measured.get(benchmark))
        expected = [name for name in evidence.expected.get(benchmark, {}) if name]
        names = dict.fromkeys((*expected, *parts)) if row.scope.endswith(PARTS) else [part]
        return {f"{benchmark}/{name}": parts.get(name) for name in names} or {row.scope: None}
    if benchmark in measured or benchmark not in groups:
        return {benchmark: measured.get(benchmark)}
    if row.rule in (ANSWERED, JUDGED, ITEMS):  # counted in each benchmark of the group
        return {name: measured.get(name) for name in groups[benchmark].get("benchmarks", ())}
    return {benchmark: {**groups[benchmark], "score": groups[benchmark].get("value")}}


def _verdict(row: GateConfig, measures: _Measures, rule: _Rule, extra: list[str] | None = None) -> RowVerdict:
    findings = {
        label: rule(row, label, measure)
        if isinstance(measure, Mapping)
        else _Finding(reason=f"{label} was not evaluated")
        for label, measure in measures.items()
    }
    reasons = [*(extra or ()), *(found.reason for found in findings.values() if found.reason)]
    values = {label: found.value for label, found in findings.items() if found.value is not None}
    worst = min(values, key=lambda label: values[label], default=None)
    unknown = [found.unknown for found in findings.values() if found.unknown]
    good = f"lowest: {worst}" if worst and len(values) > 1 else ""
    parts = [_joined(reasons) or good, f"cannot tell: {_joined(unknown)}" if unknown else ""]
    return RowVerdict(
        value=None if worst is None else values[worst],
        reasons=reasons,
        detail="; ".join(filter(None, parts))
        or ("nothing of this kind was evaluated" if not measures else "as required"),
        told=_told(values, measures) if row.rule in (AT_LEAST, ABOVE_CHANCE, NOT_WORSE) else frozenset(),
    )


def _told(values: Iterable[str], measures: _Measures) -> frozenset[str]:
    """The scores that were judged; a group's mean judges each of its benchmarks."""
    return frozenset(one for label in values for one in (label, *measures[label].get("benchmarks", ())))


def _joined(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    return "; ".join(reasons[:_NAMED]) + more


def _judged_value(row: GateConfig, measure: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """(what was measured, what is judged: the same, or its bound at the row's confidence)."""
    value = number(measure.get(name))
    if row.confidence is None:
        return value, value
    bounds = measure.get("at_least")
    return value, number(bounds.get(str(row.confidence))) if isinstance(bounds, Mapping) else None


def _sure(row: GateConfig, bound: float) -> str:
    return "" if row.confidence is None else f" (at least {bound:.4f} with {row.confidence:.1%} confidence)"


def _no_score(label: str, measure: Mapping[str, Any]) -> str:
    unjudged = number(measure.get("not_judged")) or 0
    if unjudged:
        return f"{label} has no score: {unjudged:.0f} of {number(measure.get('items')) or 0:.0f} items are not judged"
    lacking = measure.get("lacking")
    return f"{label} has no score" + (f", because {', '.join(map(str, lacking))} has none" if lacking else "")


def _at_least(row: GateConfig, label: str, measure: Mapping[str, Any]) -> _Finding:
    score, judged = _judged_value(row, measure, "score")
    if score is None or judged is None:
        return _Finding(reason=_no_score(label, measure))
    refused = judged < row.threshold - _TOLERANCE
    below = f"{label} {score:.4f}{_sure(row, judged)} is below {row.threshold:.4f}"
    return _Finding(value=judged, reason=below if refused else "")


def _above_chance(row: GateConfig, label: str, measure: Mapping[str, Any]) -> _Finding:
    """The bound of the score must be above guessing; the value is by how much.

    90 of 100 right where guessing gives 0.25: 0.826 - 0.25 = 0.576. 500 of 500 open answers, of which the most frequent
    is right 3 times: 0.992 - 0.006. Captions, judged by degrees: nobody knows, so the gate cannot tell.
    """
    score, judged = _judged_value(row, measure, "score")
    if score is None or judged is None:
        return _Finding(reason=_no_score(label, measure))
    chance, source = number(measure.get("chance")), "chance"
    if chance is None:
        chance, source = number(measure.get("guess")), "the best constant answer, since chance is unknown"
    if chance is None:
        return _Finding(unknown=f"{label}: chance is unknown, and a constant answer may be partly right")
    if not 0 <= chance < 1:
        return _Finding(reason=f"{label}: {source} gives {chance:g}, so a score says nothing")
    refused = judged - chance <= row.threshold + _TOLERANCE
    reason = f"{label} {score:.4f}{_sure(row, judged)} against {chance:.4f} by {source}"
    return _Finding(value=judged - chance, reason=reason if refused else "")


def _counted(row: GateConfig, label: str, measure: Mapping[str, Any]) -> _Finding:
    items = number(measure.get("items")) or 0.0
    if not items:
        return _Finding(reason=f"{label} has no items")
    if row.rule == ITEMS:
        few = f"{label} has {items:.0f} of {row.threshold:.0f} items"
        return _Finding(value=items, reason=few if items < row.threshold else "")
    name, word = ("failed", "failed") if row.rule == ANSWERED else ("not_judged", "were not judged")
    count = number(measure.get(name))
    if count is None:
        return _Finding(reason=f"{label} does not say how many items {word}")
    share = 1 - count / items
    found = measure.get("reasons")
    first = found[0].get("reason", "") if isinstance(found, list) and found and isinstance(found[0], Mapping) else ""
    few = f"{count:.0f} of {items:.0f} items of {label} {word}" + (f" ({first})" if first else "")
    return _Finding(value=share, reason=few if share < row.threshold - _TOLERANCE else "")


def _against_champion(row: GateConfig, evidence: Evidence) -> RowVerdict:
    champion = evidence.champion
    if champion is None:
        measures = _chosen(row, evidence.measured, evidence.groups, evidence)
        there = {label: measure for label, measure in measures.items() if isinstance(measure, Mapping)}
        return RowVerdict(value=None, reasons=[], detail="there is no champion yet", told=_told(there, there))
    compared = evidence.evaluated_champion
    name = compared.get("model")
    pair = evidence.pair(name) if isinstance(name, str) and compared.get("version") == champion.version else None
    if pair is None:
        why = compared.get("why") if compared.get("version") == champion.version else ""
        reason = f"champion v{champion.version} was not evaluated beside the candidate{f': {why}' if why else ''}"
        return RowVerdict(value=None, reasons=[reason], detail=reason, told=frozenset())
    lacking = pair.get("not_compared")
    extra = [f"{one} was evaluated of only one of both" for one in lacking] if isinstance(lacking, list) else []
    measures = _chosen(row, _mapping(pair, "benchmarks"), _mapping(pair, "groups"), evidence)
    return _verdict(row, measures, _not_worse, extra if row.scope == EVERY else [])


def _not_worse(row: GateConfig, label: str, difference: Mapping[str, Any]) -> _Finding:
    value, judged = _judged_value(row, difference, "value")
    unshared, unjudged = (number(difference.get(name)) or 0 for name in ("unshared", "not_judged"))
    if unshared:
        return _Finding(reason=f"{label}: {unshared:.0f} questions were asked only of one of both")
    if unjudged:
        return _Finding(reason=f"{label}: {unjudged:.0f} questions are not judged")
    if value is None or judged is None:
        return _Finding(reason=f"{label}: the difference is unknown")
    first, second = (number(difference.get(name)) for name in ("first", "second"))
    scores = "" if first is None or second is None else f" from {first:.4f} to {second:.4f}"
    fell = f"{label} changed by {value:+.4f}{_sure(row, judged)}{scores}"
    return _Finding(value=judged, reason=fell if judged < -row.threshold - _TOLERANCE else "")


def _parts(measure: Any) -> Mapping[str, Any]:
    return _mapping(measure, "parts") if isinstance(measure, Mapping) else {}


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}
