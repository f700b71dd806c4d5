"""Intervals and tests of shares against published values, scipy and what must hold for any counts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vl3.proportions import (
    Difference,
    PairedCounts,
    holm,
    independent_difference,
    mean_difference,
    paired_difference,
    wilson_interval,
)

COUNTS = st.builds(
    PairedCounts, **dict.fromkeys(("both", "only_first", "only_second", "neither"), st.integers(0, 60))
).filter(lambda counts: counts.total > 0)


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


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, p. 2635, method 10, with the sign of second - first.
        ((36, 12, 2, 0), -0.3404, -0.0569),
        ((20, 12, 2, 16), -0.3292, -0.0562),
    ],
)
def test_paired_interval_has_the_published_values(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    both, only_first, only_second, neither = counts
    found = paired_difference(PairedCounts(both=both, only_first=only_first, only_second=only_second, neither=neither))
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)
    assert found.value == pytest.approx((only_second - only_first) / 50)


def test_independent_interval_has_the_published_values() -> None:
    found = independent_difference((56, 70), (48, 80))  # Newcombe 1998, p. 873, table II (a), method 10
    assert (found.low, found.high) == pytest.approx((-0.3339, -0.0524), abs=5e-5)


@given(counts=COUNTS)
def test_paired_test_is_the_exact_one(counts: PairedCounts) -> None:
    found, split = paired_difference(counts), counts.only_first + counts.only_second
    expected = stats.binomtest(counts.only_first, split).pvalue if split else 1.0
    assert found.p_value == pytest.approx(expected)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.variance > 0


@given(
    first=st.tuples(st.integers(0, 40), st.integers(1, 40)), second=st.tuples(st.integers(0, 40), st.integers(1, 40))
)
def test_independent_test_is_fishers(first: tuple[int, int], second: tuple[int, int]) -> None:
    (right_1, total_1), (right_2, total_2) = ((min(pair), max(pair)) for pair in (first, second))
    found = independent_difference((right_1, total_1), (right_2, total_2))
    table = [[right_1, total_1 - right_1], [right_2, total_2 - right_2]]
    assert found.p_value == pytest.approx(stats.fisher_exact(table).pvalue)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9


@given(counts=COUNTS)
def test_exchanging_the_models_turns_the_sign(counts: PairedCounts) -> None:
    turned = PairedCounts(
        both=counts.both, only_first=counts.only_second, only_second=counts.only_first, neither=counts.neither
    )
    one, other = paired_difference(counts), paired_difference(turned)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


def test_same_answers_differ_by_nothing_and_are_not_certain() -> None:
    found = paired_difference(PairedCounts(both=40, only_first=0, only_second=0, neither=0))
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.low < 0 < found.high


def test_mean_of_differences_adds_their_variances() -> None:
    one = Difference(value=0.02, low=-0.02, high=0.06, p_value=0.3, variance=0.0004)
    found = mean_difference([one] * 10)
    assert found.value == pytest.approx(0.02)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.02 / math.sqrt(10), rel=1e-3)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(math.sqrt(10)))


def test_holm_corrects_for_the_number_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
