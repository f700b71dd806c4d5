"""Bands of hashes, and the nearest earlier image."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vl3.config.curation import SelectionStep
from vl3.curation.duplicates import bands, drop_similar, nearest_earlier


def test_bands_cover_all_bits_once() -> None:
    for distance in range(16):
        found = list(bands(distance))
        assert len(found) == distance + 1
        assert found[0][0] == 0
        assert sum(width for _, width in found) == 64
        assert all(at + width == after for (at, width), (after, _) in pairwise(found))


def test_the_worked_example_of_nearest_earlier() -> None:
    found, others, distances = nearest_earlier(
        np.array([0b00, 0b11, 0b01], dtype=np.uint64), np.array([5, 6, 7], dtype=np.uint64), 1
    )
    assert found.tolist() == [7]
    assert others.tolist() == [5]
    assert distances.tolist() == [1]


@pytest.mark.parametrize("distance", [0, 2, 5])
def test_nearest_earlier_is_that_of_comparing_all_pairs(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl3.curation.duplicates._BLOCK", 16)
    random = np.random.default_rng(3)
    hashes = random.integers(0, 1 << 10, 100, dtype=np.uint64)
    positions = random.permutation(100).astype(np.uint64)
    found = dict(zip(*(one.tolist() for one in nearest_earlier(hashes, positions, distance)[:2]), strict=True))
    expected = {}
    for i in range(100):
        near = [
            int(positions[j])
            for j in range(100)
            if positions[j] < positions[i] and bin(int(hashes[i] ^ hashes[j])).count("1") <= distance
        ]
        if near:
            expected[int(positions[i])] = min(near)
    assert found == expected


class _Images:
    """Hashes of images as a round has them, in two parts; notes what is dropped."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = hashes
        self.dropped: dict[int, int] = {}

    def live(self, _: str) -> Iterator[Any]:
        half = len(self._hashes) // 2
        for low, high in ((0, half), (half, len(self._hashes))):
            values = np.array([f"{int(one):016x}" for one in self._hashes[low:high]], dtype=object)
            yield SimpleNamespace(positions_N=np.arange(low, high, dtype=np.uint64), values_N=values)

    @contextmanager
    def dropping(self, _: str, __: str) -> Iterator["_Images"]:
        yield self

    def add(self, positions: np.ndarray, others: np.ndarray, _: np.ndarray) -> None:
        for position, other in zip(positions.tolist(), others.tolist(), strict=True):
            self.dropped[position] = min(other, self.dropped.get(position, other))


@pytest.mark.parametrize("distance", [0, 1, 4, 6])
def test_every_near_image_is_found_by_some_band(distance: int) -> None:
    random_ = np.random.default_rng(distance)
    hashes = random_.integers(0, 2**64, 300, dtype=np.uint64)
    for place in range(100, 300, 2):  # near to an earlier one: 0 to 8 bits differ, anywhere
        bits = random_.choice(64, int(random_.integers(0, 9)), replace=False)
        hashes[place] = hashes[place // 3] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=0)
    images = _Images(hashes)
    step = SelectionStep(kind="near_duplicates", column="phash", max_distance=distance, source="ours: test")
    drop_similar(images, "similar", step, 0)  # type: ignore[arg-type]
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= distance
    expected = {row: int(np.flatnonzero(near[row, :row])[0]) for row in range(300) if near[row, :row].any()}
    assert images.dropped == expected
    assert len(expected) > 5
