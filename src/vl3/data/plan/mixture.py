"""The order of samples: each kind of the mixture is read in shuffled epochs, and the kinds are merged by weight.

Everything is a pure function of (seed, kind, number). Random numbers come from a hash instead of a stateful generator,
so any part of the sequence can be computed on any machine, and no numpy release changes it.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

CHUNK_DRAWS = 1 << 16
"""Number of draws that are computed at once; the sequence does not depend on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureKind:
    """One key of the mixture and the rows it draws from."""

    key: str
    share: float
    """Share of the draws; the shares of all kinds sum to 1. 0 if nothing of it is drawn."""
    rows: np.ndarray
    """Numbers of its samples, int64."""
    max_draws: int | None = None
    """Draws after which it is not drawn again; the others go on at their own pace."""


def choose_rows(key: str, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows in their order, the same ones for every seed: by the hashes of their places."""
    if count == len(rows):
        return rows
    hashes = _hash_numbers(np.arange(len(rows)), f"{key}/cap")
    return rows[np.sort(np.argsort(hashes, kind="stable")[:count])]


class MixtureWalk:
    """The sequence of draws, endless unless every kind has `max_draws`.

    Draw i of a kind is at time (i + jitter_i) / share, with jitter from 0 to 1.

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
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        ends = [math.inf if kind.max_draws is None else kind.max_draws / kind.share for kind in kinds if kind.share]
        self.num_chunks: float = math.ceil(max(ends) / CHUNK_DRAWS) if max(ends) < math.inf else math.inf
        """Chunks that have draws."""

    def chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and kinds (indexes into the list of kinds) of one chunk, which has about CHUNK_DRAWS draws."""
        times, rows, kinds = [], [], []
        for position, kind in enumerate(self._kinds):
            if not kind.share:
                continue
            draws, drawn_at = self._draws(kind, number)
            times.append(drawn_at)
            rows.append(self._rows(position, draws))
            kinds.append(np.full(len(draws), position, dtype=np.int64))
        order = np.argsort(np.concatenate(times), kind="stable")
        return np.concatenate(rows)[order], np.concatenate(kinds)[order]

    def _draws(self, kind: MixtureKind, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and times of the kind's draws in the chunk.

        Share 0.25, chunks of 1024, chunk 1, times 1024 to 2048: the numbers tried are 254 to 513, two more at each end
        because of the jitter. Those with a time within the chunk stay.
        """
        start, end = number * CHUNK_DRAWS, (number + 1) * CHUNK_DRAWS
        draws = np.arange(max(0, int(start * kind.share) - 2), int(end * kind.share) + 2, dtype=np.int64)
        jitter = _hash_numbers(draws, f"{self._seed}/{kind.key}/jitter") / 2.0**64
        times = (draws + jitter) / kind.share
        inside = (times >= start) & (times < end)
        if kind.max_draws is not None:
            inside &= draws < kind.max_draws
        return draws[inside], times[inside]

    def _rows(self, position: int, draws: np.ndarray) -> np.ndarray:
        """The row of each draw: its place in the shuffled epoch that it belongs to.

        A kind with the rows 10, 20, 30, shuffled to 20 10 30 in epoch 0 and 10 30 20 in epoch 1: the draws 2, 3, 4
        are in the epochs 0, 1, 1 at the places 2, 0, 1, so their rows are 30, 10, 30.
        """
        kind = self._kinds[position]
        if not len(draws):
            return draws
        epochs, places = np.divmod(draws, len(kind.rows))
        first, orders = self._epoch_orders(position, int(epochs[0]), int(epochs[-1]))
        return kind.rows[orders[epochs - first, places]]

    def _epoch_orders(self, position: int, first: int, last: int) -> tuple[int, np.ndarray]:
        """Shuffled places of the epochs `first` to `last`, (epochs, samples of the kind), and the number of the first.

        An epoch of n samples is ordered by the hashes of n numbers that no other epoch has: with n = 3, epoch 2 by
        those of 6, 7 and 8. The latest epochs are kept, since most chunks go on in one.
        """
        held = self._orders.get(position)
        if held is None or not held[0] <= first <= last < held[0] + len(held[1]):
            kind = self._kinds[position]
            samples = len(kind.rows)
            numbers = np.arange(first * samples, (last + 1) * samples)
            keys = _hash_numbers(numbers, f"{self._seed}/{kind.key}/epoch").reshape(-1, samples)
            held = self._orders[position] = (first, np.argsort(keys, axis=1, kind="stable"))
        return held


def _hash_numbers(numbers: np.ndarray, key: str) -> np.ndarray:
    """A 64-bit hash (SplitMix64) of each number, salted with a key, uint64."""
    salt = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + salt
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
