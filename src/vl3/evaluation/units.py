"""How the questions are shared: in units of whole groups, each taken by the process that is first to claim it.

Two processes and six units: the first begins with 0 2 4 and the second with 1 3 5. Whoever has finished its own takes
what is left of the other's. The next model is asked in the same order, so that a process mostly has the media in memory
that it decoded before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vl3.data.build.index import DatasetIndex

UNIT_ROWS = 128
"""Questions of a unit: small enough to be shared evenly, large enough that its longest answer hardly counts."""
UNIT_TOKENS = 500_000
"""Tokens of a unit's prompts: of long videos it has fewer questions."""


class Claims(Protocol):
    """Who answers what."""

    def take(self, name: str) -> bool:
        """Whether this process is the first to claim the unit."""


class OwnClaims:
    """Of a process without others."""

    def take(self, name: str) -> bool:  # noqa: ARG002 (the signature of Claims)
        """See Claims."""
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldoutRow:
    """A row of the index, as far as its place in the order depends on it."""

    row: int
    sample_id: str
    category: str
    sha256: str
    """Digest of the sample: question, answer and media."""
    where: str
    """File and line of its annotation."""
    group: str
    """Digests of its media; empty if it has none."""
    length_tokens: int
    """Length of the sample with merge 1."""


def heldout_rows(index: DatasetIndex, rows: Sequence[int]) -> list[HeldoutRow]:
    """Facts of some rows of an index."""
    names = ("sample_id", "category", "sha256", "where", "media_sha256")
    ids, categories, digests, places, media = (index.column(name) for name in names)
    tokens = [index.column(name) for name in ("text_tokens", "image_tokens_m1", "kept_tokens_m1")]
    return [
        HeldoutRow(
            row=row,
            sample_id=ids[row],
            category=categories[row],
            sha256=digests[row],
            where=places[row],
            group=media[row] or "",
            length_tokens=int(sum(column[row] for column in tokens)),
        )
        for row in rows
    ]


def make_units(rows: Sequence[HeldoutRow]) -> list[list[HeldoutRow]]:
    """The rows in units, the longest first; rows with the same media are in the same one, unless they are too many.

    Groups of 100, 100 and 20 rows make two units: the first two groups would have 200 rows, so the second begins a new
    unit, which takes the third too.
    """
    groups: dict[str, list[HeldoutRow]] = {}
    for row in rows:
        groups.setdefault(row.group or f"#{row.sample_id}", []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (-max(row.length_tokens for row in item[1]), item[0]))
    units: list[list[HeldoutRow]] = [[]]
    tokens = 0
    for _, group in ordered:
        for part in _parts(sorted(group, key=lambda row: row.sample_id)):
            size = sum(row.length_tokens for row in part)
            if units[-1] and (len(units[-1]) + len(part) > UNIT_ROWS or tokens + size > UNIT_TOKENS):
                units.append([])
                tokens = 0
            units[-1] += part
            tokens += size
    return [unit for unit in units if unit]


def own_first(count: int, rank: int, world_size: int) -> Iterator[int]:
    """Numbers of the units in the order in which a process claims them: 5 units, rank 1 of 2: 1 3 0 2 4."""
    mine = range(rank, count, world_size)
    yield from mine
    yield from (number for number in range(count) if number not in mine)


def _parts(group: list[HeldoutRow]) -> Iterator[list[HeldoutRow]]:
    for start in range(0, len(group), UNIT_ROWS):
        yield group[start : start + UNIT_ROWS]
