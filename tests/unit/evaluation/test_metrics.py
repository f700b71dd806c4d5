"""Metrics against values worked out by hand."""

import pytest

from vl3.evaluation.metrics import is_exact_match, mean_chance, normalise, wilson_interval


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        (" Red\n", "red", True),
        ("1.0-2.0 s", "1.0-2.0 s", True),
        ("red circle", "red", False),
        ("red", "", False),
        ("", "", True),
        ("STRASSE", "straße", True),
    ],
)
def test_exact_match_ignores_ends_and_case_only(prediction: str, answer: str, expected: bool) -> None:
    assert is_exact_match(prediction, answer) is expected


def test_normalise_keeps_inner_spaces() -> None:
    assert normalise("  A  b ") == "a  b"


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, table I, method 3 (Wilson): 81/263, 15/148, 0/20, 1/29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_has_the_published_values(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_without_answers_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mean_chance_is_the_mean() -> None:
    assert mean_chance([0.25, 0.5]) == 0.375


@pytest.mark.parametrize("chances", [[], [None], [0.25, None], [float("nan"), 0.5]])
def test_mean_chance_is_unknown_where_one_sample_has_none(chances: list[float | None]) -> None:
    assert mean_chance(chances) is None
