"""The evidence for a promotion: measured scores, the champion's scores, and what was verified."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from vl3.errors import GateError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreEvidence:
    """Held-out result of one category. None means not measured, and a gate refuses it."""

    accuracy: float | None
    """Share of correct answers, 0 to 1."""
    correct: int | None
    """Correct answers."""
    total: int | None
    """Samples evaluated."""
    chance: float | None
    """Accuracy of guessing among the valid answers."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a score; missing or non-numeric fields become None, so that the gates refuse them by name."""
        accuracy, correct, total, chance = (
            _number(data.get(key)) for key in ("accuracy", "correct", "total", "chance")
        )
        return cls(accuracy=accuracy, correct=_whole(correct), total=_whole(total), chance=chance)

    def to_text(self) -> str:
        """Compact JSON for a tag."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChampionEvidence:
    """The scores of the current champion."""

    version: int
    """Its version in the registry."""
    tasks: Mapping[str, ScoreEvidence]
    """Its scores by category."""
    dataset_digest: str | None
    """Dataset that the scores were measured on; scores on other samples cannot be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything that the gates check."""

    tasks: Mapping[str, ScoreEvidence]
    """Held-out scores by category."""
    mean_accuracy: float | None
    """Mean over the categories, as reported by the evaluation."""
    expected_categories: tuple[str, ...]
    """Categories that must have been evaluated."""
    samples_per_task: int
    """Minimum number of held-out samples of each category."""
    champion: ChampionEvidence | None
    """The current champion; None if there is none yet."""
    validation_passed: bool | None
    """Whether data validation passed; None if unknown."""
    checkpoint_verified: bool | None
    """Whether every file of the checkpoint was hashed and matched its manifest; None if unknown."""
    dataset_digest: str | None = None
    """Dataset that the scores were measured on."""


def scores_from_evaluation(evaluation: Mapping[str, Any], model: str) -> tuple[dict[str, ScoreEvidence], float | None]:
    """Scores by category and the mean of one model of evaluation.json.

    Raises:
        GateError: the evaluation does not include this model.
    """
    models = {entry.get("name"): entry for entry in evaluation.get("models", [])}
    if model not in models:
        raise GateError(
            f"the evaluation does not include the model {model!r} (it has {', '.join(map(str, models)) or 'none'}), so "
            "there is no evidence to promote it. Evaluate it and try again."
        )
    tasks = {name: ScoreEvidence.from_dict(score) for name, score in models[model].get("tasks", {}).items()}
    return tasks, _number(models[model].get("mean_accuracy"))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and value == int(value) else None
