"""Which rank counts as a straggler, and which does not."""

import pytest

from vl3.training.straggler import find_straggler


def test_the_slowest_rank_is_found_with_what_it_costs() -> None:
    found = find_straggler([(0.1, 1.0), (0.1, 1.1), (0.1, 1.9), (0.1, 1.0)], 3.2)
    assert found is not None
    assert (found.rank, found.data_seconds, found.forward_seconds) == (2, 0.1, 1.9)
    assert found.median_seconds == pytest.approx(1.1)
    assert found.lost_seconds == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("seconds", "step_seconds"),
    [
        ([(0.1, 1.0), (0.1, 1.3)], 3.0),  # as much as samples of different sizes cause
        ([(0.0, 0.01), (0.0, 0.03), (0.0, 0.01)], 3.0),  # three times as slow, and nobody notices
        ([(0.0, 0.01), (0.0, 0.03), (0.0, 0.01)], 0.07),  # milliseconds of a small model on a busy machine
        ([(0.0, 0.0), (0.0, 0.0)], 1.0),
    ],
)
def test_small_differences_are_none(seconds: list[tuple[float, float]], step_seconds: float) -> None:
    assert find_straggler(seconds, step_seconds) is None


def test_a_rank_that_waits_for_its_rows_is_one() -> None:
    found = find_straggler([(0.0, 1.0), (2.0, 1.0), (0.0, 1.0)], 4.0)
    assert found is not None
    assert (found.rank, found.lost_seconds) == (1, 2.0)
