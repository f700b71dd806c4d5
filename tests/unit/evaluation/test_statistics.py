"""Intervals of means and differences: coverage on simulated data, scipy's bootstrap, clusters, parts, seeds."""

import numpy as np
import pytest
from scipy import stats

from vl3.evaluation import statistics
from vl3.evaluation.statistics import Estimate, Scored, estimate, mean_of


def scored(values: np.ndarray, cluster_size: int = 1) -> list[Scored]:
    return [Scored(value=float(value), cluster=str(place // cluster_size)) for place, value in enumerate(values)]


def difference(values: np.ndarray, name: str = "a", **settings: int) -> Estimate:
    return estimate(scored(values, **settings), name=name, bounds=(-1.0, 1.0))


def test_the_worked_examples_of_the_docstring() -> None:
    same = difference(np.zeros(40))
    assert same.value == 0
    assert same.interval() == pytest.approx((-0.07, 0.07), abs=0.011)
    changes = difference(np.array([1.0] * 2 + [-1.0] * 12 + [0.0] * 86))
    assert changes.value == pytest.approx(-0.1)
    assert changes.interval() == pytest.approx((-0.17, -0.02), abs=0.015)


def test_the_interval_is_that_of_scipys_bootstrap_where_pseudo_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    values = np.clip(rng.normal(0.05, 0.3, 600), -1, 1)
    low, high = difference(values).interval()
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (low, high) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(
    ("total", "won", "lost"), [(30, 0.1, 0.1), (100, 0.02, 0.02), (100, 0.01, 0.06)], ids=["few", "rare", "worse"]
)
def test_95_percent_intervals_cover_the_truth(
    total: int, won: float, lost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 simulated comparisons at least 184 have the true difference in the interval (P < 0.03 % if 95 % do)."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(200):
        drawn = rng.random(total)
        low, high = difference(
            np.where(drawn < won, 1.0, np.where(drawn < won + lost, -1.0, 0.0)), str(trial)
        ).interval()
        covered += low <= won - lost <= high
    assert covered >= 180


def test_questions_about_one_video_count_as_little_as_they_are_alike() -> None:
    """Ten answers to each of 20 videos that are all right or all wrong: the interval is that of 20 answers."""
    by_video = np.repeat(np.arange(20) % 2, 10).astype(float)
    together = estimate(scored(by_video, cluster_size=10), name="a", bounds=(0.0, 1.0))
    apart = estimate(scored(by_video), name="a", bounds=(0.0, 1.0))
    width, narrow = (one.interval()[1] - one.interval()[0] for one in (together, apart))
    assert (together.clusters, together.questions, apart.clusters) == (20, 200, 200)
    assert width / narrow == pytest.approx(10**0.5, rel=0.12)


def test_parts_have_equal_weights() -> None:
    rows = [Scored(value=1.0, cluster=f"a{number}", part="a") for number in range(90)]
    rows += [Scored(value=0.0, cluster=f"b{number}", part="b") for number in range(10)]
    assert estimate(rows, name="a", bounds=(0.0, 1.0), by_part=True).value == 0.5
    assert estimate(rows, name="a", bounds=(0.0, 1.0)).value == pytest.approx(0.9)


def test_a_medium_with_questions_of_two_parts_is_drawn_whole() -> None:
    rows = [
        Scored(value=float(number % 2), cluster=str(number), part=part) for number in range(40) for part in ("a", "b")
    ]
    found = estimate(rows, name="a", bounds=(0.0, 1.0), by_part=True)
    assert (found.value, found.clusters) == (0.5, 40)
    half = estimate(rows[::2], name="a", bounds=(0.0, 1.0))
    spread = found.draws_R.std() / half.draws_R.std()
    assert spread == pytest.approx(1.0, rel=0.1)  # the second part repeats the first and adds nothing


def test_bounds_are_one_sided_and_wider_for_more_confidence() -> None:
    found = difference(np.array([1.0, -1.0, 0.0, 0.0] * 25))
    bounds = [found.at_least(confidence) for confidence in (0.8, 0.9, 0.95, 0.975, 0.99)]
    assert bounds == sorted(bounds, reverse=True)
    assert found.at_least(0.975) == pytest.approx(found.interval(0.95)[0])
    assert found.to_dict()["at_least"]["0.95"] == found.at_least(0.95)


def test_equal_records_give_equal_numbers_whatever_else_is_estimated() -> None:
    values = np.random.default_rng(2).random(50)
    first = difference(values, "b")
    difference(values, "other")
    assert first.to_dict() == difference(values, "b").to_dict()
    assert first.interval() != difference(values, "c").interval()


def test_drawing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50)
    whole = difference(values).draws_R
    monkeypatch.setattr(statistics, "_CELLS", 500)
    assert np.array_equal(whole, difference(values).draws_R)


def test_the_mean_of_benchmarks_is_surer_than_each() -> None:
    rng = np.random.default_rng(3)
    each = [difference(rng.choice([-1.0, 0.0, 1.0], 200), str(number)) for number in range(4)]
    mean = mean_of(each)
    assert mean.value == pytest.approx(np.mean([one.value for one in each]))
    assert mean.draws_R.std() == pytest.approx(np.mean([one.draws_R.std() for one in each]) / 2, rel=0.1)
    assert mean.questions == 800


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_the_pseudo_questions_at_both_ends_weigh_the_same(bounds: tuple[float, float]) -> None:
    scored = [Scored(value=bounds[number % 2], cluster=str(number)) for number in range(4)]
    found = estimate(scored, name="even", bounds=bounds)
    assert found.draws_R.mean() == pytest.approx(sum(bounds) / 2, abs=0.02)
