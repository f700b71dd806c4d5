"""The gates that a candidate must pass to become champion. They fail closed: missing evidence is a refusal."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vl3.config.run import PromotionConfig
from vl3.proportions import wilson_interval
from vl3.tracking.evidence import Evidence, ScoreEvidence

_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """The decision of one gate."""

    name: str
    """Name of the gate."""
    passed: bool
    """Whether the evidence is sufficient."""
    value: float | bool | None
    """What was measured, of the worst category if the gate judges each; None if it is missing."""
    threshold: float | bool | None
    """What is required; None if it differs by category (see detail)."""
    detail: str
    """The worst category, or each reason for refusal."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": self.value,
            "threshold": self.threshold,
            "detail": self.detail,
        }


def evaluate_gates(evidence: Evidence, config: PromotionConfig) -> list[GateResult]:
    """The decision of every gate, in the order in which they are shown."""
    return [
        _mean_accuracy(evidence, config.min_mean_accuracy),
        _task_accuracy(evidence, config.min_task_accuracy),
        _beats_chance(evidence),
        _no_regression(evidence, config.max_regression),
        _samples(evidence),
        _verified("data_validation", evidence.validation_passed, "the data validation"),
        _verified("checkpoint_digest", evidence.checkpoint_verified, "the verification of the checkpoint's digests"),
    ]


GATE_NAMES = (
    "mean_accuracy",
    "task_accuracy",
    "beats_chance",
    "no_regression",
    "samples_per_task",
    "data_validation",
    "checkpoint_digest",
)
"""The gates in the order of evaluate_gates."""


def is_promotable(results: Sequence[GateResult]) -> bool:
    """Whether there is a result of every gate, and every gate passed."""
    return [result.name for result in results] == list(GATE_NAMES) and all(result.passed for result in results)


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


def _mean_accuracy(evidence: Evidence, minimum: float) -> GateResult:
    reasons = [reason for _, reason in _gaps(evidence)]
    mean = evidence.mean_accuracy
    if mean is None or not math.isfinite(mean):
        mean, reasons = None, ["the mean accuracy was not measured", *reasons]
    elif not reasons:
        recomputed = sum(score.accuracy or 0.0 for score in evidence.tasks.values()) / len(evidence.tasks)
        if abs(recomputed - mean) > _TOLERANCE:
            reasons.append(f"the reported mean {mean:.4f} is not the mean {recomputed:.4f} of its categories")
        elif mean < minimum:
            reasons.append(f"{mean:.4f} is below {minimum:.4f}")
    return _result("mean_accuracy", reasons, mean, minimum, f"over {len(evidence.tasks)} categories")


def _task_accuracy(evidence: Evidence, minimum: float) -> GateResult:
    def judge(name: str, score: ScoreEvidence) -> tuple[float, str]:
        accuracy = score.accuracy or 0.0
        return accuracy, f"{name} {accuracy:.4f} is below {minimum:.4f}" if accuracy < minimum else ""

    return _per_category("task_accuracy", evidence, judge, minimum)


def _beats_chance(evidence: Evidence) -> GateResult:
    """The lower end of the accuracy's interval must be above chance; the value is the smallest such margin.

    90 of 100 correct where guessing gives 0.25: 0.826 - 0.25 = 0.576 passes. 4 of 10: 0.168 - 0.25 < 0 is refused.
    """

    def judge(name: str, score: ScoreEvidence) -> tuple[float, str]:
        if score.chance is None or not 0 <= score.chance < 1:
            return -math.inf, f"{name}: chance is unknown" if score.chance is None else f"{name}: chance {score.chance}"
        lower, _ = wilson_interval(score.correct or 0, score.total or 1)
        reason = f"{name} {score.accuracy:.4f} (at least {lower:.4f} with 95 % confidence) against {score.chance:.4f}"
        return lower - score.chance, "" if lower > score.chance else f"{reason} by chance"

    return _per_category("beats_chance", evidence, judge, 0.0)


def _no_regression(evidence: Evidence, max_regression: float) -> GateResult:
    champion = evidence.champion
    if champion is None:
        detail = "there is no champion yet"
        return GateResult(name="no_regression", passed=True, value=None, threshold=-max_regression, detail=detail)
    if not champion.dataset_digest or champion.dataset_digest != evidence.dataset_digest:
        reason = (
            f"champion v{champion.version} was measured on dataset {_short(champion.dataset_digest)}, the candidate on "
            f"{_short(evidence.dataset_digest)}: not comparable. Evaluate the champion on the same dataset"
        )
        return GateResult(name="no_regression", passed=False, value=None, threshold=-max_regression, detail=reason)

    def judge(name: str, score: ScoreEvidence) -> tuple[float, str]:
        former = champion.tasks.get(name)
        if former is None or former.accuracy is None or not math.isfinite(former.accuracy):
            return -math.inf, f"{name}: the champion's accuracy is unknown"
        change = (score.accuracy or 0.0) - former.accuracy
        fell = f"{name} fell from {former.accuracy:.4f} to {score.accuracy:.4f}"
        return change, fell if change < -max_regression - _TOLERANCE else ""

    forgotten = sorted(set(champion.tasks) - set(evidence.tasks))
    extra = [f"{name}: the champion has a score and the candidate has none" for name in forgotten]
    return _per_category("no_regression", evidence, judge, -max_regression, extra=extra)


def _samples(evidence: Evidence) -> GateResult:
    required = evidence.samples_per_task

    def judge(name: str, score: ScoreEvidence) -> tuple[float, str]:
        total = score.total or 0
        return total, f"{name} has {total} of {required} samples" if total < required else ""

    return _per_category("samples_per_task", evidence, judge, required)


def _verified(name: str, passed: bool | None, what: str) -> GateResult:
    outcome = "left no result" if passed is None else "passed" if passed else "failed"
    return GateResult(name=name, passed=passed is True, value=passed, threshold=True, detail=f"{what} {outcome}")


def _per_category(
    name: str,
    evidence: Evidence,
    judge: Callable[[str, ScoreEvidence], tuple[float, str]],
    threshold: float,
    extra: Iterable[str] = (),
) -> GateResult:
    """Judge each category that has a score; one without a score is a refusal. The value is the worst category's."""
    gaps = _gaps(evidence)
    without = {category for category, _ in gaps}
    verdicts = {
        category: judge(category, score) for category, score in evidence.tasks.items() if category not in without
    }
    reasons = [reason for _, reason in gaps] + [reason for _, reason in verdicts.values() if reason] + list(extra)
    worst = min(verdicts, key=lambda category: verdicts[category][0], default=None)
    value = None if worst is None or not math.isfinite(verdicts[worst][0]) else verdicts[worst][0]
    return _result(name, reasons, value, threshold, f"lowest: {worst}")


def _gaps(evidence: Evidence) -> list[tuple[str, str]]:
    """(category, reason) for each category whose score is missing, incomplete or inconsistent."""
    gaps = [(category, f"{category} was not evaluated") for category in _missing(evidence)]
    for category, score in evidence.tasks.items():
        reason = _flaw(score)
        if reason:
            gaps.append((category, f"{category}: {reason}"))
    if not gaps and not evidence.tasks:
        gaps.append(("", "no category was evaluated"))
    return gaps


def _missing(evidence: Evidence) -> list[str]:
    return [category for category in evidence.expected_categories if category not in evidence.tasks]


def _flaw(score: ScoreEvidence) -> str:
    if score.accuracy is None or not math.isfinite(score.accuracy):
        return "accuracy is missing"
    if score.total is None or score.correct is None:
        return "the number of samples or of right answers is missing"
    if score.total <= 0:
        return "no sample was evaluated"
    if abs(score.correct / score.total - score.accuracy) > _TOLERANCE:
        return f"accuracy {score.accuracy:.4f} is not {score.correct}/{score.total}"
    return ""


def _result(name: str, reasons: Sequence[str], value: float | None, threshold: float, good: str) -> GateResult:
    detail = "; ".join(reasons) if reasons else good
    return GateResult(name=name, passed=not reasons, value=value, threshold=threshold, detail=detail)


def _shown(value: float | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if value != int(value) or abs(value) <= 1 else f"{value:.0f}"


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "unknown"
