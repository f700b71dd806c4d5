"""The result of an evaluation: scores of each model by category, sample predictions, frequent wrong answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vl3.evaluation.metrics import mean_chance
from vl3.proportions import wilson_interval

MAX_CONFUSIONS = 3
"""Number of wrong answers that are listed for each model and category."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryScore:
    """Accuracy of one model in one category."""

    correct: int
    """Number of right answers by exact match."""
    total: int
    """Number of held-out samples that were asked."""
    chance: float | None
    """Accuracy of guessing among the allowed answers; None if there is no fixed set of answers."""
    failed: int = 0
    """Number of samples that could not be asked, because their media cannot be read or decoded: not in `total`."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.total

    def to_dict(self) -> dict[str, Any]:
        """The score with its 95 % interval as JSON data."""
        low, high = wilson_interval(self.correct, self.total)
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "chance": self.chance,
            "low": low,
            "high": high,
            "failed": self.failed,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScore:
    """Scores of one model."""

    name: str
    """`before` or the name of a stage."""
    tasks: dict[str, CategoryScore]
    """Score by category."""

    @property
    def mean_accuracy(self) -> float:
        """Mean over the categories with equal weights."""
        return sum(task.accuracy for task in self.tasks.values()) / len(self.tasks)

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON data."""
        tasks = {category: score.to_dict() for category, score in self.tasks.items()}
        return {"name": self.name, "tasks": tasks, "mean_accuracy": self.mean_accuracy}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One model's answer to one sample."""

    sample_id: str
    category: str
    prompt: str
    """The question as text, without media."""
    answer: str
    """The right answer."""
    prediction: str
    """The model's answer."""
    correct: bool
    chance: float | None
    """Probability of guessing this sample's answer."""
    media: tuple[str, ...] = ()
    """Names of its media within the dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything in evaluation.json."""

    models: list[ModelScore]
    """Scores in the order in which the models were given."""
    predictions: list[dict[str, Any]]
    """Sample predictions: sample_id, category, prompt, answer, prediction and correct by model, media."""
    confusions: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """The most frequent wrong answers by model and category: answer, prediction, count."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON data."""
        return {
            "models": [model.to_dict() for model in self.models],
            "predictions": self.predictions,
            "confusions": self.confusions,
        }


def score_answers(name: str, answers: list[Answer], failed: Mapping[str, int] | None = None) -> ModelScore:
    """Scores of one model from all its answers; categories keep their order of appearance.

    Args:
        name: name of the model.
        answers: its answers.
        failed: by category, how many samples could not be asked.
    """
    by_category: dict[str, list[Answer]] = {}
    for answer in answers:
        by_category.setdefault(answer.category, []).append(answer)
    tasks = {
        category: CategoryScore(
            correct=sum(answer.correct for answer in group),
            total=len(group),
            chance=mean_chance([answer.chance for answer in group]),
            failed=(failed or {}).get(category, 0),
        )
        for category, group in by_category.items()
    }
    return ModelScore(name=name, tasks=tasks)


def list_items(
    answers: Mapping[str, Mapping[int, Answer]], sha256_by_row: Mapping[int, str]
) -> dict[str, dict[str, Any]]:
    """Which question was answered rightly by which model, so that two evaluations can be compared one by one.

    Two charts, of which the model `video` answers the second one rightly, give

        {"chart": {"ids": ["a", "b"], "sha256": ["...", "..."], "right": {"before": "00", "video": "01"}}}

    Args:
        answers: answers by model and row; all models answered the same rows in the same order.
        sha256_by_row: digest of each sample, because a sample of the same id may have changed.
    """
    rows: dict[str, list[int]] = {}
    for row, answer in next(iter(answers.values())).items():
        rows.setdefault(answer.category, []).append(row)
    first = next(iter(answers.values()))
    return {
        category: {
            "ids": [first[row].sample_id for row in chosen],
            "sha256": [sha256_by_row[row] for row in chosen],
            "right": {name: "".join("01"[by_row[row].correct] for row in chosen) for name, by_row in answers.items()},
        }
        for category, chosen in rows.items()
    }


def count_confusions(answers: list[Answer]) -> dict[str, list[dict[str, Any]]]:
    """The most frequent pairs of right answer and wrong prediction by category."""
    counts: dict[str, dict[tuple[str, str], int]] = {}
    for answer in answers:
        if not answer.correct:
            pairs = counts.setdefault(answer.category, {})
            pair = (answer.answer, answer.prediction)
            pairs[pair] = pairs.get(pair, 0) + 1
    return {category: _most_frequent(pairs) for category, pairs in counts.items()}


def _most_frequent(pairs: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:MAX_CONFUSIONS]
    return [{"answer": answer, "prediction": prediction, "count": count} for (answer, prediction), count in ranked]
