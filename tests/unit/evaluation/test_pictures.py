"""Which predictions are shown, and what the evaluating process imports."""

import subprocess
import sys

import pytest

from vl3.evaluation.pictures import choose_examples
from vl3.evaluation.result import Answer


def answers(category: str, marks: str, start: int = 0) -> dict[int, Answer]:
    """One answer a character: `x` is wrong, `.` is right."""
    return {
        start + place: Answer(
            sample_id=str(place),
            category=category,
            prompt="?",
            answer="a",
            prediction="",
            correct=mark == ".",
            chance=None,
        )
        for place, mark in enumerate(marks)
    }


@pytest.mark.parametrize(
    ("marks", "rows"),
    [
        ("..........", [0, 1, 2, 3, 4, 5]),
        ("xxxxxxxxxx", [0, 1, 2, 3, 4, 5]),
        ("x....x..xx", [0, 1, 2, 3, 5, 8]),
        ("x........", [0, 1, 2, 3, 4, 5]),
        ("xxxxx..", [0, 1, 2, 3, 5, 6]),
        ("x.", [0, 1]),
    ],
)
def test_six_are_shown_up_to_three_of_them_wrong_where_there_are_right_ones(marks: str, rows: list[int]) -> None:
    assert choose_examples(answers("chart", marks)) == rows


def test_every_category_has_its_own_six() -> None:
    both = answers("chart", "x" * 9) | answers("document", "." * 9, start=100)
    assert choose_examples(both) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103, 104, 105]


def test_the_evaluating_process_itself_needs_no_torch() -> None:
    code = "import sys, vl3.evaluation.runner, vl3.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
