"""Which samples are held out: by content, so that nothing that is evaluated is trained on under another name.

Two samples that share a file belong together, and so does a third that shares one with either. Samples that belong
together are in the same split:

    a: cat.png           a and b share a file, b and c another: one group
    b: cat.png dog.png
    c: copy-of-dog.png   the same bytes as dog.png
    d: car.png           a group of its own
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from vl3.data.build.index import IndexRow


class _Groups:
    """Joined names (union-find). A group is known by its least name, so the order of the joins does not matter."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The least name of a name's group; a new name is a group of its own."""
        path = []
        while (parent := self._parents.setdefault(name, name)) != name:
            path.append(name)
            name = parent
        for passed in path:  # so that the next search is short
            self._parents[passed] = name
        return name

    def join(self, names: Iterable[str]) -> str:
        """Make one group of all names; returns its least name."""
        found = {self.find(name) for name in names}
        least = min(found)
        for name in found:
            self._parents[name] = least
        return least


def group_by_content(rows: Sequence[IndexRow]) -> None:
    """Set the `media_group` of each usable row: the least digest of all files in its group.

    A sample without media belongs to those with the same text.
    """
    groups = _Groups()
    usable = [row for row in rows if row.problem is None]
    for row in usable:
        row.media_group = groups.join(_contents(row))
    for row in usable:
        row.media_group = groups.find(row.media_group)


def _contents(row: IndexRow) -> list[str]:
    return (row.media_sha256 or "").split() or [row.content_sha256 or row.sample_id]


def hold_out(rows: Sequence[IndexRow], holdout_fraction: float) -> str:
    """Hold out a share of the groups by hash; returns `BuildSummary.heldout_from`: `hash`, or `none`.

    Groups with the hashes 0.02, 0.31 and 0.77, holdout_fraction=0.1: the samples of the first are held out. If no hash
    were below 0.1, the lowest would still be held out; if all were, the highest would stay in training. So a new
    sample moves no other, unless it joins two groups.

    A group with more samples than the whole share stays in training, unless all have as many.
    """
    sizes = Counter(row.media_group for row in rows if row.problem is None)
    if holdout_fraction == 0 or len(sizes) < 2:
        return "none"
    largest = max(min(sizes.values()), holdout_fraction * sizes.total())
    groups = sorted((group for group, size in sizes.items() if size <= largest), key=_hash_fraction)
    chosen = {group for group in groups if _hash_fraction(group) < holdout_fraction} or set(groups[:1])
    if len(chosen) == len(sizes):
        chosen.remove(groups[-1])
    for row in rows:
        if row.media_group in chosen:
            row.split = "heldout"
    return "hash"


def _hash_fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
