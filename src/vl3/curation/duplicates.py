"""Equal files, and images whose perceptual hashes differ in few bits: of each set the first is kept.

Hashes within d bits agree in at least one of d+1 bands (one changed bit cannot be in two of them):

    d=1, two bands of 4 bits     1010 0110 and 1010 0111     the left bands are equal, so the pair is compared
    d=1                          1010 0110 and 1000 0111     no band is equal, and they differ in two bits

So only images with an equal band are compared. All records are on disk, a bucket at a time in memory.

Legend: N images · U different hashes with one band.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vl3.config.curation import SelectionStep
from vl3.curation.whole import Drops, Whole
from vl3.system.cores import usable_cores
from vl3.validation.spill import Spill

HASH_BITS = 64
_BUCKETS = 256
_BLOCK = 2048
Near: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions, the earlier ones that they are near to, and the distances."""
_EQUAL = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<u8")])
_HASH = np.dtype([("hash", "<u8"), ("position", "<u8")])


def drop_equal(whole: Whole, name: str, _: SelectionStep, __: int) -> None:
    """Drop every image whose file stands at an earlier position."""
    with (
        whole.dropping(name, "the same file as {other}") as drops,
        tempfile.TemporaryDirectory(prefix="vl3-equal-") as folder,
        Spill(Path(folder, "digests"), _EQUAL, _BUCKETS) as spill,
    ):
        for live in whole.live("sha256"):
            records = np.zeros(len(live.positions_N), dtype=_EQUAL)
            digests = [bytes.fromhex(one) for one in live.values_N]
            halves = np.frombuffer(b"".join(one[:16] for one in digests), dtype=">u8").reshape(-1, 2)
            records["high"], records["low"], records["position"] = halves[:, 0], halves[:, 1], live.positions_N
            spill.add(records, (records["high"] >> np.uint64(56)).astype(np.int64))
        for bucket in range(_BUCKETS):
            _drop_equal_in(spill.read(bucket), drops)


def _drop_equal_in(records: np.ndarray, drops: Drops) -> None:
    if not len(records):
        return
    records = records[np.lexsort((records["position"], records["low"], records["high"]))]
    is_new = np.ones(len(records), dtype=bool)
    is_new[1:] = (records["high"][1:] != records["high"][:-1]) | (records["low"][1:] != records["low"][:-1])
    first = records["position"][np.maximum.accumulate(np.where(is_new, np.arange(len(records)), 0))]
    drops.add(records["position"][~is_new], first[~is_new], np.zeros(int((~is_new).sum())))


def drop_similar(whole: Whole, name: str, step: SelectionStep, _: int) -> None:
    """Drop every image with an earlier one whose hash differs in at most `max_distance` bits."""
    with (
        whole.dropping(name, f"differs in {{value}} of {HASH_BITS} bits from {{other}}") as drops,
        tempfile.TemporaryDirectory(prefix="vl3-similar-") as folder,
    ):
        hashes_at = Path(folder, "hashes")
        with Spill(hashes_at, _HASH, _BUCKETS) as firsts:
            _collapse(whole, step.column, firsts, drops, Path(folder))
            for shift, width in bands(step.max_distance):
                with Spill(Path(folder, f"band-{shift}"), _HASH, _BUCKETS) as spill:
                    for bucket in range(_BUCKETS):
                        records = firsts.read(bucket)
                        spill.add(records, _band(records["hash"], shift, width, _BUCKETS))
                    search = partial(_near_in, shift=shift, width=width, max_distance=step.max_distance)
                    for found in _over_buckets(search, spill):
                        for group in found:
                            drops.add(*group)


def bands(max_distance: int) -> Iterator[tuple[int, int]]:
    """Lowest bit and width of each band: for 1 they are (0, 32) and (32, 32), for 2 (0, 22), (22, 21) and (43, 21)."""
    count, at = max_distance + 1, 0
    for number in range(count):
        width = HASH_BITS // count + (number < HASH_BITS % count)
        yield at, width
        at += width


def nearest_earlier(hashes_U: np.ndarray, positions_U: np.ndarray, max_distance: int) -> Near:
    """Of hashes that are all compared: those with an earlier one near by, which is the earliest, and the distance.

    Hashes 0b00, 0b11, 0b01 at the positions 5, 6, 7 with max_distance=1: position 7 is near 5 (1 bit) and near 6; the
    earliest is 5. Position 6 differs from 5 in two bits.
    """
    order = np.argsort(positions_U, kind="stable")
    hashes, positions = hashes_U[order], positions_U[order]
    found, others, distances = [], [], []
    for low in range(0, len(hashes), _BLOCK):
        rows = hashes[low : low + _BLOCK]
        best = np.full(len(rows), len(hashes), dtype=np.int64)
        for start in range(0, low + len(rows), _BLOCK):
            columns = hashes[start : min(start + _BLOCK, low + len(rows))]
            is_near = np.bitwise_count(rows[:, None] ^ columns[None, :]) <= max_distance
            is_near &= (np.arange(len(columns)) + start)[None, :] < (np.arange(len(rows)) + low)[:, None]
            candidates = np.where(is_near.any(axis=1), is_near.argmax(axis=1) + start, len(hashes))
            best = np.minimum(best, candidates)
        has = best < len(hashes)
        found.append(positions[low : low + len(rows)][has])
        others.append(positions[best[has]])
        distances.append(np.bitwise_count(rows[has] ^ hashes[best[has]]).astype(np.float32))
    return np.concatenate(found), np.concatenate(others), np.concatenate(distances)


def _collapse(whole: Whole, column: str, firsts: Spill, drops: Drops, folder: Path) -> None:
    """Keep the first image of each hash for the bands; the others are dropped here. So a million white images cost
    no million squared.
    """
    with Spill(folder / "all", _HASH, _BUCKETS) as spill:
        for live in whole.live(column):
            records = np.zeros(len(live.positions_N), dtype=_HASH)
            records["hash"] = np.array([int(one, 16) for one in live.values_N], dtype=np.uint64)
            records["position"] = live.positions_N
            spill.add(records, _band(_mixed(records["hash"]), 0, HASH_BITS, _BUCKETS))
        for bucket in range(_BUCKETS):
            records = spill.read(bucket)
            records = records[np.lexsort((records["position"], records["hash"]))]
            _, first, inverse = np.unique(records["hash"], return_index=True, return_inverse=True)
            is_first = np.zeros(len(records), dtype=bool)
            is_first[first] = True
            again = records[~is_first]
            drops.add(again["position"], records["position"][first][inverse[~is_first]], np.zeros(len(again)))
            firsts.add(records[is_first], np.full(int(is_first.sum()), bucket, dtype=np.int64))


def _over_buckets(search: Callable[[np.ndarray], list[Near]], spill: Spill) -> Iterator[list[Near]]:
    """Search each bucket, as many at once as there are cores: numpy compares without Python's lock."""
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[list[Near]]] = deque()
        for bucket in range(_BUCKETS):
            waiting.append(pool.submit(search, spill.read(bucket)))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _near_in(records: np.ndarray, *, shift: int, width: int, max_distance: int) -> list[Near]:
    """What `nearest_earlier` finds among records with an equal band."""
    values = _bits(records["hash"], shift, width)
    order = np.argsort(values, kind="stable")
    edges = np.flatnonzero(np.diff(values[order])) + 1
    groups = [one for one in np.split(records[order], edges) if len(one) > 1]
    return [nearest_earlier(one["hash"], one["position"], max_distance) for one in groups]


def _bits(hashes: np.ndarray, shift: int, width: int) -> np.ndarray:
    mask = np.uint64((1 << width) - 1)
    return (hashes >> np.uint64(shift)) & mask


def _band(hashes: np.ndarray, shift: int, width: int, num_buckets: int) -> np.ndarray:
    """The bucket of each hash's band; equal bands are in one bucket."""
    return (_mixed(_bits(hashes, shift, width)) % np.uint64(num_buckets)).astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread values over all bits, so that buckets are alike: hashes of photos are not."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(29))
