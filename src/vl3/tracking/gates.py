"""The gates that a candidate must pass to become champion: rows of data, and four that every candidate must pass.

They fail closed: what is missing, stale or partial refuses. A gate that cannot tell (nobody knows what guessing gives)
says so and passes, but each benchmark needs a gate that can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vl3.config.gates import GateConfig
from vl3.tracking.evidence import Evidence, number
from vl3.tracking.rules import RowVerdict, judge_row

EVIDENCE, FRESH = "evidence", "fresh"
ALWAYS = (EVIDENCE, FRESH, "data_validation", "checkpoint_digest")
"""Gates that no configuration can leave out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """The decision of one gate."""

    name: str
    """Name of the gate."""
    passed: bool
    """Whether nothing speaks against the candidate."""
    value: float | bool | None
    """What was measured, of the worst score if the gate judges each; None if it is missing."""
    threshold: float | bool | None
    """What is required."""
    detail: str
    """Each reason for refusal, or the worst score; and what the gate cannot tell."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "threshold": self.threshold,
            "detail": self.detail,
        }


def gate_names(gates: Mapping[str, GateConfig]) -> list[str]:
    """All gates in the order in which they are shown."""
    return [*ALWAYS, *(name for name in gates if name not in ALWAYS)]


def evaluate_gates(evidence: Evidence, gates: Mapping[str, GateConfig]) -> list[GateResult]:
    """The decision of every gate, in the order in which they are shown."""
    verdicts = {name: judge_row(row, evidence) for name, row in gates.items() if name not in ALWAYS}
    told = {scope for verdict in verdicts.values() for scope in verdict.told}
    return [
        _whole(evidence, told),
        _fresh(evidence),
        _verified("data_validation", evidence.validation_passed, "the data validation"),
        _verified("checkpoint_digest", evidence.checkpoint_verified, "the verification of the checkpoint's digests"),
        *(_result(name, verdict, gates[name].threshold) for name, verdict in verdicts.items()),
    ]


def is_promotable(results: Sequence[GateResult], required: Sequence[str]) -> bool:
    """Whether there is a result of every required gate, and each passed; some are required of every candidate."""
    names = [result.name for result in results]
    return names == list(required) and set(ALWAYS) < set(names) and all(result.passed for result in results)


def gate_table(results: Sequence[GateResult]) -> str:
    """The gates as a text table for a terminal or an error message."""
    rows = [("gate", "result", "measured", "required", "detail")]
    for result in results:
        verdict = "passed" if result.passed else "REFUSED"
        rows.append((result.name, verdict, _shown(result.value), _shown(result.threshold), result.detail))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)]
        lines.append("  ".join([*cells, row[4]]).rstrip())
    return "\n".join(lines)


def _whole(evidence: Evidence, told: set[str]) -> GateResult:
    """Everything that was expected was measured on as many items, and each benchmark has a gate that can tell."""
    reasons = []
    for benchmark, parts in evidence.expected.items():
        measure = evidence.measured.get(benchmark)
        if not isinstance(measure, Mapping):
            reasons.append(f"{benchmark} was not evaluated")
            continue
        own = measure.get("parts")
        found = {"": measure, **(own if isinstance(own, Mapping) else {})}
        reasons += [_lacking(benchmark, part, found.get(part), least) for part, least in parts.items()]
        if benchmark not in evidence.submitted and not any(scope.partition("/")[0] == benchmark for scope in told):
            reasons.append(f"no gate can judge {benchmark}: add one of the rule at_least")
        partial = evidence.partial.get(benchmark)
        if partial:
            reasons.append(f"{benchmark} was asked of a part ({partial[0]})")
    if not evidence.expected:
        reasons.append("no benchmark was asked for")
    reasons = [reason for reason in reasons if reason]
    asked = sum(len(parts) for parts in evidence.expected.values())
    detail = "; ".join(reasons) or f"all {asked} expected scores are there"
    if evidence.submitted:
        detail += f"; cannot tell: only their own servers can score {', '.join(sorted(evidence.submitted))}"
    return GateResult(name=EVIDENCE, passed=not reasons, value=not reasons, threshold=True, detail=detail)


def _lacking(benchmark: str, part: str, measure: Any, least: int) -> str:
    label = f"{benchmark}/{part}" if part else benchmark
    if not isinstance(measure, Mapping):
        return f"{label} was not evaluated"
    items = number(measure.get("items")) or 0
    if items < least:
        return f"{label} has {items:.0f} of {least} items"
    score = number(measure.get("score"))
    if score is None and not measure.get("not_judged"):
        return f"{label} has no score"
    return f"{label} has the score {score:g}, which is not from 0 to 1" if score and not 0 <= score <= 1 else ""


def _fresh(evidence: Evidence) -> GateResult:
    """The scores are those of this checkpoint on this dataset, beside the champion of now."""
    reasons = []
    checkpoints = evidence.made_of.get("checkpoints")
    measured = checkpoints.get(evidence.model) if isinstance(checkpoints, Mapping) else None
    if measured != evidence.checkpoint_sha256:
        reasons.append(
            f"the scores are those of checkpoint {_short(measured)}, the candidate is "
            f"{_short(evidence.checkpoint_sha256)}"
        )
    dataset = evidence.made_of.get("dataset")
    if dataset != evidence.dataset_digest:
        reasons.append(
            f"they were measured on dataset {_short(dataset)}, the run's is {_short(evidence.dataset_digest)}"
        )
    reasons += _other_champion(evidence)
    detail = (
        f"{'; '.join(reasons)}. Start the run again: it evaluates what has changed" if reasons else "all as it is now"
    )
    return GateResult(name=FRESH, passed=not reasons, value=not reasons, threshold=True, detail=detail)


def _other_champion(evidence: Evidence) -> list[str]:
    now, then = evidence.champion, evidence.evaluated_champion
    if now is None:
        return []
    if then.get("version") != now.version:
        compared = f"with champion v{then['version']}" if then.get("version") else "with no champion"
        return [f"the candidate was compared {compared}, and now v{now.version} is champion"]
    checkpoints = evidence.made_of.get("checkpoints")
    name = then.get("model")
    if isinstance(name, str) and isinstance(checkpoints, Mapping) and checkpoints.get(name) != now.checkpoint_sha256:
        measured, registered = _short(checkpoints.get(name)), _short(now.checkpoint_sha256)
        return [f"the champion was evaluated as checkpoint {measured} and is registered as {registered}"]
    return []


def _verified(name: str, passed: bool | None, what: str) -> GateResult:
    outcome = "left no result" if passed is None else "passed" if passed else "failed"
    return GateResult(name=name, passed=passed is True, value=passed, threshold=True, detail=f"{what} {outcome}")


def _result(name: str, verdict: RowVerdict, threshold: float) -> GateResult:
    return GateResult(
        name=name, passed=not verdict.reasons, value=verdict.value, threshold=threshold, detail=verdict.detail
    )


def _shown(value: float | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if value != int(value) or abs(value) <= 1 else f"{value:.0f}"


def _short(digest: Any) -> str:
    return str(digest)[:12] if digest else "unknown"
