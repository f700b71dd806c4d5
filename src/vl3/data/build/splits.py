"""Which samples are held out: by content, so that nothing that is evaluated is trained on under another name.

Two samples that share a file belong together, and so does a third that shares one with either. Samples that belong
together are in the same split:

    a: cat.png           a and b share a file, b and c another: one group
    b: cat.png dog.png
    c: copy-of-dog.png   the same bytes as dog.png
    d: car.png           a group of its own

Everything is columns: a dataset of millions of samples takes 32 bytes for each file and 8 for each sample.

Legend: S samples, C contents of all samples one after the other, D different contents.
"""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """The groups of some samples."""

    names_G: np.ndarray
    """The least digest of each group, bytes (G, 32), ascending."""
    of_S: np.ndarray
    """The group of each sample, int64 (S)."""


def group_by_content(digests_C: np.ndarray, starts_S: np.ndarray) -> Groups:
    """Group samples that share a content, directly or through others. The order of the samples does not matter.

    Samples with the contents `cat`, `dog cat`, `dog` and `car`: digests_C has 5 rows, starts_S is 0 1 3 4, and the
    groups are `car` and `cat` (its least name) with of_S = 1 1 1 0.

    Args:
        digests_C: uint8 (C, 32); each sample has at least one.
        starts_S: place of the first content of each sample, int64 (S), ascending.
    """
    if not len(starts_S):
        return Groups(names_G=np.empty((0, 32), np.uint8), of_S=np.empty(0, np.int64))
    order = np.lexsort(digests_C.view(">u8").T[::-1])
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (digests_C[order[1:]] != digests_C[order[:-1]]).any(axis=1)
    numbers_C = np.empty(len(order), dtype=np.int64)
    numbers_C[order] = np.cumsum(is_first) - 1
    names_D = digests_C[order[is_first]]
    parents = np.arange(len(names_D))
    counts_S = np.diff(starts_S, append=len(numbers_C))
    for sample in np.flatnonzero(counts_S > 1).tolist():
        _join(parents, numbers_C[starts_S[sample] : starts_S[sample] + counts_S[sample]].tolist())
    roots_D = _roots(parents)
    kept, of_D = np.unique(roots_D, return_inverse=True)
    return Groups(names_G=names_D[kept], of_S=of_D[numbers_C[starts_S]])


def _join(parents: np.ndarray, numbers: list[int]) -> None:
    """Make one group of the numbers (union-find): the parent of each root becomes the least root."""
    roots = {_find(parents, number) for number in numbers}
    least = min(roots)
    for root in roots:
        parents[root] = least


def _find(parents: np.ndarray, number: int) -> int:
    while (parent := int(parents[number])) != number:
        parents[number] = parents[parent]  # so that the next search is short
        number = parent
    return number


def _roots(parents: np.ndarray) -> np.ndarray:
    """The root of each number, by looks from all numbers at once: the parents 0 0 1 2 give 0 0 0 0."""
    while True:
        above = parents[parents]
        if np.array_equal(above, parents):
            return parents
        parents = above


def choose_heldout(groups: Groups, holdout_fraction: float) -> np.ndarray:
    """Which groups are held out, bool (G): a share by hash; none if there is only one group, or no share is asked for.

    Groups with the hashes 0.02, 0.31 and 0.77, holdout_fraction=0.1: the samples of the first are held out. If no hash
    were below 0.1, the lowest would still be held out; if all were, the highest would stay in training. So a new
    sample moves no other, unless it joins two groups.

    A group with more samples than the whole share stays in training, unless all have as many.
    """
    sizes_G = np.bincount(groups.of_S, minlength=len(groups.names_G))
    if holdout_fraction == 0 or len(sizes_G) < 2:
        return np.zeros(len(sizes_G), dtype=bool)
    may_be = sizes_G <= max(int(sizes_G.min()), holdout_fraction * len(groups.of_S))
    fractions_G = np.array([_hash_fraction(name.tobytes().hex()) for name in groups.names_G])
    allowed = np.flatnonzero(may_be)
    allowed = allowed[np.argsort(fractions_G[allowed], kind="stable")]
    chosen = may_be & (fractions_G < holdout_fraction)
    if not chosen.any():
        chosen[allowed[0]] = True
    if chosen.all():
        chosen[allowed[-1]] = False
    return chosen


def _hash_fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
