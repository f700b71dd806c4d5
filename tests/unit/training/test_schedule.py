"""The learning rate by step."""

import pytest

from vl3.training.schedule import learning_rate_factor


def factors(steps: int, warmup_ratio: float, min_ratio: float) -> list[float]:
    return [
        learning_rate_factor(step, steps=steps, warmup_ratio=warmup_ratio, min_ratio=min_ratio) for step in range(steps)
    ]


def test_rate_rises_to_the_peak_and_falls_as_a_cosine() -> None:
    assert factors(8, 0.5, 0.0) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_rate_ends_above_its_floor_and_no_step_is_wasted() -> None:
    rates = factors(100, 0.03, 0.1)
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0.1 < rates[-1] < 0.101


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert factors(4, 0.0, 0.0) == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_warm_up_of_the_whole_stage_is_only_linear() -> None:
    assert factors(4, 1.0, 0.0) == [0.25, 0.5, 0.75, 1.0]
