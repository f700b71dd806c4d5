"""Which differences between two models' scores are beyond chance: the stages of a run, a champion, two runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vl3.proportions import (
    Difference,
    PairedCounts,
    holm,
    independent_difference,
    mean_difference,
    paired_difference,
    wilson_interval,
)

SIGNIFICANCE = 0.05
"""A difference is beyond chance if its p value, corrected for the number of tasks, is below this."""
BETTER, WORSE, WITHIN_CHANCE = "better", "worse", "within chance"
"""What a difference says about the second model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One model's scores."""

    counts: Mapping[str, tuple[int, int]]
    """Right answers and all answers by category."""
    items: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Whether each question was answered rightly, by category and question; a category may lack them."""


def scores_of(models: list[dict[str, Any]], name: str, items: Mapping[str, Any] | None = None) -> Scores:
    """One model's scores in an evaluation.

    Args:
        models: `models` of evaluation.json.
        name: the model.
        items: content of items.json, if the evaluation has one.
    """
    tasks = next(model["tasks"] for model in models if model["name"] == name)
    counts = {category: (task["correct"], task["total"]) for category, task in tasks.items()}
    return Scores(counts=counts, items={category: _by_question(one, name) for category, one in (items or {}).items()})


def _by_question(asked: Mapping[str, Any], model: str) -> dict[str, bool]:
    """A question is its id and its content: a sample that was changed under its id is another question."""
    questions = zip(asked["ids"], asked["sha256"], asked["right"].get(model, ""), strict=False)
    return {f"{name} {sha256}": answer == "1" for name, sha256, answer in questions}


def score_changes(first: Scores, second: Scores) -> dict[str, Any]:
    """The difference, second minus first, in each category that both have, and of the mean over these.

    The questions of a category are compared one by one if the model that was asked fewer of them was asked no others.
    Category p values are corrected for their number (Holm). With 100 questions each, 88 and 90 right answers are
    within chance; 60 and 90 are better.

    Returns:
        JSON-ready data: `tasks` (by category: first, second, difference, questions, paired, p_value, verdict), `mean`
        (the same of the mean, None if no category can be compared) and `not_compared` (categories of only one).
    """
    shared = [name for name in second.counts if name in first.counts and _asked(first, name) and _asked(second, name)]
    found = {name: _difference(first, second, name) for name in shared}
    corrected = holm([difference.p_value for difference, _ in found.values()])
    tasks = {}
    for name, p_value in zip(shared, corrected, strict=True):
        difference, paired = found[name]
        tasks[name] = {
            "first": _share(*first.counts[name]),
            "second": _share(*second.counts[name]),
            "difference": _shown(difference, p_value),
            "questions": paired,
            "paired": paired is not None,
            "verdict": _verdict(difference, p_value),
        }
    return {
        "tasks": tasks,
        "mean": _mean([difference for difference, _ in found.values()], tasks),
        "not_compared": sorted({*first.counts, *second.counts} - set(shared)),
    }


def _asked(scores: Scores, category: str) -> bool:
    correct, total = scores.counts[category]
    return 0 <= correct <= total and total > 0


def _difference(first: Scores, second: Scores, category: str) -> tuple[Difference, int | None]:
    """The difference, and the number of questions that were compared one by one; None if they were not."""
    one, other = first.items.get(category, {}), second.items.get(category, {})
    shared = [question for question in one if question in other]
    if not shared or len(shared) < min(len(one), len(other)):
        return independent_difference(first.counts[category], second.counts[category]), None
    pairs = [(one[question], other[question]) for question in shared]
    counts = PairedCounts(
        both=pairs.count((True, True)),
        only_first=pairs.count((True, False)),
        only_second=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )
    return paired_difference(counts), len(shared)


def _share(correct: int, total: int) -> dict[str, Any]:
    low, high = wilson_interval(correct, total)
    return {"accuracy": correct / total, "correct": correct, "total": total, "low": low, "high": high}


def _shown(difference: Difference, p_value: float) -> dict[str, float]:
    return {"value": difference.value, "low": difference.low, "high": difference.high, "p_value": p_value}


def _verdict(difference: Difference, p_value: float) -> str:
    if p_value >= SIGNIFICANCE or difference.value == 0:
        return WITHIN_CHANCE
    return BETTER if difference.value > 0 else WORSE


def _mean(differences: list[Difference], tasks: dict[str, Any]) -> dict[str, Any] | None:
    if not differences:
        return None
    mean = mean_difference(differences)
    accuracies = {
        side: sum(task[side]["accuracy"] for task in tasks.values()) / len(tasks) for side in ("first", "second")
    }
    return {**accuracies, "difference": _shown(mean, mean.p_value), "verdict": _verdict(mean, mean.p_value)}
