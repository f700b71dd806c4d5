"""Bands of hashes, and the nearest earlier image."""

from itertools import pairwise

import numpy as np
import pytest

from vl3.curation.duplicates import bands, nearest_earlier


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
