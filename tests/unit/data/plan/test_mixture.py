"""The sequence of draws: no repetition within an epoch, shares kept, the same on every machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plans import SIZES, make_rows, write_dataset
from vl3.data.plan.mixture import MixtureKind, MixtureWalk, resolve_mixture
from vl3.data.plan.samples import SampleTable, read_samples
from vl3.errors import DataError


def kinds_of(**sizes: int) -> list[MixtureKind]:
    start, kinds = 0, []
    for key, size in sizes.items():
        kinds.append(MixtureKind(key=key, share=1 / len(sizes), rows=np.arange(start, start + size)))
        start += size
    return kinds


def draws(walk: MixtureWalk, chunks: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [walk.chunk(number) for number in range(chunks)]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([kinds for _, kinds in parts])


def test_the_sequence_is_pinned():
    # Golden: a change here changes every run with the same seed.
    rows, kinds = MixtureWalk(kinds_of(a=5, b=3), seed=7).chunk(0)
    assert rows[:12].tolist() == [6, 1, 5, 3, 2, 7, 0, 7, 4, 6, 5, 2]
    assert kinds[:12].tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(0, 1000))
def test_each_epoch_of_a_kind_has_each_sample_once(sizes, seed):
    kinds = kinds_of(**{f"k{number}": size for number, size in enumerate(sizes)})
    rows, drawn = draws(MixtureWalk(kinds, seed), 2)
    for position, kind in enumerate(kinds):
        mine = rows[drawn == position]
        for start in range(0, len(mine), len(kind.rows)):
            epoch = mine[start : start + len(kind.rows)]
            assert len(set(epoch.tolist())) == len(epoch)
            if len(epoch) == len(kind.rows):
                assert sorted(epoch.tolist()) == kind.rows.tolist()


def test_epochs_are_shuffled_differently():
    rows, _ = draws(MixtureWalk(kinds_of(a=100), seed=0), 1)
    assert rows[:100].tolist() != rows[100:200].tolist()
    assert rows[:100].tolist() != list(range(100))


def test_any_chunk_can_be_had_alone():
    walk = MixtureWalk(kinds_of(a=50, b=700), seed=1)
    for number in range(4):
        walk.chunk(number)
    again = MixtureWalk(kinds_of(a=50, b=700), seed=1)
    assert np.array_equal(walk.chunk(5)[0], again.chunk(5)[0])


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.9, 0.0995, 0.0005)])
def test_after_any_number_of_draws_shares_are_kept_to_two(shares):
    kinds = [
        MixtureKind(key=f"k{number}", share=share, rows=np.arange(number * 100, number * 100 + 90))
        for number, share in enumerate(shares)
    ]
    _, drawn = draws(MixtureWalk(kinds, seed=5), 6)
    for position, share in enumerate(shares):
        counts = np.cumsum(drawn == position)
        assert np.abs(counts - share * np.arange(1, len(drawn) + 1)).max() <= 3


def test_seeds_differ():
    first, second = (draws(MixtureWalk(kinds_of(a=90, b=90), seed), 1)[0] for seed in (0, 1))
    assert first.tolist() != second.tolist()


@pytest.fixture
def table(tmp_path) -> SampleTable:
    return read_samples([write_dataset(tmp_path, make_rows())], SIZES)


def test_a_missing_source_falls_back_and_a_missing_category_is_spread(table):
    everything = np.ones(len(table), dtype=bool)
    kinds, notes = resolve_mixture(table, {"scene_image:caption": 1.0, "chart:ocr": 1.0, "document": 2.0}, everything)
    assert {kind.key: kind.share for kind in kinds} == {"scene_image:caption": 0.5, "chart:ocr": 0.5}
    names = [{table.source_names[source] for source in table.sources[kind.rows]} for kind in kinds]
    assert names == [{("scene_image", "caption")}, {("chart", "qa")}]
    assert notes == [
        "chart:ocr: the dataset has no such source, so samples of any chart source are drawn",
        "document: the dataset has no such sample, so its weight is spread over the other kinds",
    ]


def test_a_sample_that_is_not_eligible_is_of_no_kind(table):
    kinds, _ = resolve_mixture(table, {"chart": 1.0}, np.arange(len(table)) < 100)
    assert len(kinds[0].rows) > 0
    assert kinds[0].rows.max() < 100


def test_a_mixture_without_any_sample_is_refused(table):
    with pytest.raises(DataError, match=r"none of the kinds document of the mixture .* has chart, general_video"):
        resolve_mixture(table, {"document": 1.0}, np.ones(len(table), dtype=bool))
