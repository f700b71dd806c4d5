"""The order of samples: each kind of the mixture is read in shuffled epochs, and the kinds are merged by weight.

Everything is a pure function of (seed, kind, number). Random numbers come from a hash instead of a stateful generator,
so any part of the sequence can be computed on any machine, and no numpy release changes it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vl3.data.build.index import DatasetIndex
from vl3.errors import DataError

CHUNK_DRAWS = 1024
"""Number of draws that are computed at once; the sequence does not depend on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureKind:
    """One key of the mixture and the rows it draws from."""

    key: str
    share: float
    """Share of the draws; the shares of all kinds sum to 1."""
    rows: np.ndarray


def resolve_mixture(
    index: DatasetIndex, mixture: Mapping[str, float], eligible_rows: np.ndarray
) -> tuple[list[MixtureKind], list[str]]:
    """The kinds that the dataset has samples for, and a note on each that it does not have.

    A `category:source` without samples falls back to its whole category. A category without samples is left out and
    its weight is spread over the others: chart 1, document 2, general_video 1 without any document gives chart 0.5,
    general_video 0.5.

    Raises:
        DataError: none of the kinds has a sample.
    """
    categories = index.column("category")[eligible_rows]
    sources = index.column("source")[eligible_rows]
    found: list[tuple[str, float, np.ndarray]] = []
    notes = []
    for key, weight in mixture.items():
        category, _, source = key.partition(":")
        in_category = categories == category
        rows = eligible_rows[in_category & (sources == source)] if source else eligible_rows[in_category]
        if source and not len(rows) and in_category.any():
            rows = eligible_rows[in_category]
            notes.append(f"{key}: the dataset has no such source, so samples of any {category} source are drawn")
        if len(rows):
            found.append((key, weight, rows))
        else:
            notes.append(f"{key}: the dataset has no such sample, so its weight is spread over the other kinds")
    if not found:
        raise DataError(
            f"none of the kinds {', '.join(mixture)} of the mixture has a usable training sample; the dataset at "
            f"{index.folder} has {', '.join(sorted(set(categories))) or 'no usable sample'}. Change the stage's "
            "mixture or the data."
        )
    total = sum(weight for _, weight, _ in found)
    return [MixtureKind(key=key, share=weight / total, rows=rows) for key, weight, rows in found], notes


class MixtureWalk:
    """The endless sequence of draws. Draw i of a kind is at time (i + jitter_i) / share, with jitter from 0 to 1.

    So among the first n draws each kind has share * n, give or take one or two, in no regular pattern. Draw i of a
    kind with n samples takes sample i mod n of epoch i div n, so no sample comes twice in an epoch of its kind.

    Kind a has share 0.75 and kind b 0.25; with seed 0 the first times are

        a  0.6  1.9  3.6  4.4  5.6  7.4       one in each 1.33 units of time
        b  0.1  4.8  8.1                      one in each 4 units of time
        order: b a a a a b a a ...
    """

    def __init__(self, kinds: list[MixtureKind], seed: int) -> None:
        """Prepare the sequence; nothing is drawn yet."""
        self._kinds = kinds
        self._seed = seed
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and kinds (indexes into the list of kinds) of one chunk, which has about CHUNK_DRAWS draws."""
        times, rows, kinds = [], [], []
        for position, kind in enumerate(self._kinds):
            draws, drawn_at = self._draws(kind, number)
            times.append(drawn_at)
            rows.append(self._rows(position, draws))
            kinds.append(np.full(len(draws), position, dtype=np.int64))
        order = np.argsort(np.concatenate(times), kind="stable")
        return np.concatenate(rows)[order], np.concatenate(kinds)[order]

    def _draws(self, kind: MixtureKind, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and times of the kind's draws in the chunk.

        Share 0.25, chunk 1, times 1024 to 2048: the numbers tried are 254 to 513, two more at each end because of the
        jitter. Those with a time within the chunk stay.
        """
        start, end = number * CHUNK_DRAWS, (number + 1) * CHUNK_DRAWS
        draws = np.arange(max(0, int(start * kind.share) - 2), int(end * kind.share) + 2, dtype=np.int64)
        jitter = _hash_numbers(draws, f"{self._seed}/{kind.key}/jitter") / 2.0**64
        times = (draws + jitter) / kind.share
        inside = (times >= start) & (times < end)
        return draws[inside], times[inside]

    def _rows(self, position: int, draws: np.ndarray) -> np.ndarray:
        """The row of each draw: its place in the shuffled epoch that it belongs to.

        A kind with the rows 10, 20, 30, shuffled to 20 10 30 in epoch 0 and 10 30 20 in epoch 1: the draws 2, 3, 4
        are in the epochs 0, 1, 1 at the places 2, 0, 1, so their rows are 30, 10, 30.
        """
        kind = self._kinds[position]
        epochs, places = np.divmod(draws, len(kind.rows))
        rows = np.empty(len(draws), dtype=np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rows[inside] = self._epoch_order(position, int(epoch))[places[inside]]
        return rows

    def _epoch_order(self, position: int, epoch: int) -> np.ndarray:
        if (position, epoch) not in self._orders:
            kind = self._kinds[position]
            keys = _hash_numbers(np.arange(len(kind.rows)), f"{self._seed}/{kind.key}/epoch/{epoch}")
            stale = [known for known in self._orders if known[0] == position and known[1] < epoch - 1]
            for known in stale:
                del self._orders[known]
            self._orders[position, epoch] = kind.rows[np.argsort(keys, kind="stable")]
        return self._orders[position, epoch]


def _hash_numbers(numbers: np.ndarray, key: str) -> np.ndarray:
    """A 64-bit hash (SplitMix64) of each number, salted with a key, uint64."""
    salt = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
