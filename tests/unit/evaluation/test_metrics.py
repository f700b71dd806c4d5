"""Metrics against values worked out by hand."""

import pytest

from vl3.evaluation.metrics import is_exact_match, mean_chance


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        (" Red\n", "red", True),
        ("1.0-2.0 s", "1.0-2.0 s", True),
        ("red circle", "red", False),
        ("red", "", False),
        ("", "", True),
        ("STRASSE", "straße", True),
        ("A.", "A", True),
        ("Yes.", "yes", True),
        ("4-9.5 s", "4.0-9.5 s", True),
        ("from 4 to 9.5 seconds", "4.0-9.5 s", True),
        ("4-9.4 s", "4.0-9.5 s", False),
        ("a dog", "dog", False),
        ("1.0", "1", False),
    ],
)
def test_exact_match_is_of_what_is_said_not_how_it_is_written(prediction: str, answer: str, expected: bool) -> None:
    assert is_exact_match(prediction, answer) is expected


def test_mean_chance_is_the_mean() -> None:
    assert mean_chance([0.25, 0.5]) == 0.375


@pytest.mark.parametrize("chances", [[], [None], [0.25, None], [float("nan"), 0.5]])
def test_mean_chance_is_unknown_where_one_sample_has_none(chances: list[float | None]) -> None:
    assert mean_chance(chances) is None
