"""Metrics against values worked out by hand."""

import pytest

from vl3.evaluation.metrics import is_exact_match, mean_chance, normalise


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


def test_mean_chance_is_the_mean() -> None:
    assert mean_chance([0.25, 0.5]) == 0.375


@pytest.mark.parametrize("chances", [[], [None], [0.25, None], [float("nan"), 0.5]])
def test_mean_chance_is_unknown_where_one_sample_has_none(chances: list[float | None]) -> None:
    assert mean_chance(chances) is None
