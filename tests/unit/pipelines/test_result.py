"""What a finished run says of its result."""

import json
from pathlib import Path
from typing import Any

import pytest

from vl3.pipelines.local.result import result_text


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


def _score(correct: int, total: int) -> dict[str, Any]:
    return {"accuracy": correct / total, "correct": correct, "total": total}


def test_the_verdict_is_told_in_a_line(numbers: Path) -> None:
    scores = {"mean_accuracy": {"before": 0.1, "video": 0.9571}}
    numbers.write_text(
        json.dumps({"verdict": {"state": "champion", "reason": "every gate passed"}, "accuracy": scores})
    )
    assert result_text(numbers) == "promotion: champion (every gate passed), mean held-out accuracy 0.957"
    numbers.write_text(json.dumps({"verdict": {"state": "refused", "reason": "no evidence"}, "accuracy": None}))
    assert result_text(numbers) == "promotion: refused (no evidence)"


def test_an_evaluation_tells_its_accuracy_by_category(numbers: Path) -> None:
    categories = [
        {"category": "chart", "scores": {"model": _score(3, 4)}},
        {"category": "text_only", "scores": {"model": _score(1, 8)}},
    ]
    accuracy = {"mean_accuracy": {"model": 0.4375}, "categories": categories}
    numbers.write_text(json.dumps({"verdict": {"state": "none", "reason": "..."}, "accuracy": accuracy}))
    assert result_text(numbers).splitlines() == [
        "held-out accuracy",
        "chart      0.750  3 of 4",
        "text_only  0.125  1 of 8",
        "mean       0.438",
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"verdict": 1}'])
def test_numbers_that_cannot_be_read_cost_a_line(numbers: Path, content: str) -> None:
    numbers.write_text(content)
    assert result_text(numbers).startswith(f"the result cannot be read from {numbers} (")
