"""Which values of which parameter a rank owns, and how another set of ranks finds them again (arithmetic, no tensors).

A parameter counts as a row of numbers in its memory order; a *piece* is a range of it that one rank has somewhere in
its memory, a *fragment* a range of it in a file of a checkpoint. Parameters a (6 numbers) and b (2) on two ranks:

    ZeRO 0     every rank has a[0:6] b[0:2], so they share the writing: rank 0 a[0:4], rank 1 a[4:6] b[0:2]
    ZeRO 1, 2  one row a0..a5 b0 b1 is cut in two:                      rank 0 a[0:4], rank 1 a[4:6] b[0:2]
    ZeRO 3     each parameter is cut:                                   rank 0 a[0:3] b[0:1], rank 1 a[3:6] b[1:2]

Written by the last and read by one rank of ZeRO 1: it wants a[0:6], finds a[0:3] and a[3:6], and copies both.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

NUMBER_BYTES = 4
"""All state is fp32."""
WEIGHTS = "weights"
MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = (WEIGHTS, *MOMENTS)
"""What a checkpoint has of every trained parameter: fp32 weights and AdamW's two moments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Values [start, stop) of a parameter, which a rank has at `offset` of its memory number `flat`."""

    name: str
    """The parameter."""
    start: int
    """First value."""
    stop: int
    """One beyond the last value."""
    flat: int
    """Number of the flat tensor that holds them."""
    offset: int
    """Where they begin in it, in numbers."""

    @property
    def size(self) -> int:
        """How many values it has."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragment:
    """Values [start, stop) of one kind of a parameter in a file."""

    kind: str
    """weights, exp_avg or exp_avg_sq."""
    name: str
    """The parameter."""
    start: int
    """First value."""
    stop: int
    """One beyond the last value."""

    @property
    def tensor_name(self) -> str:
        """Its name in a safetensors file: `exp_avg/mm_projector.weight[0:512]`."""
        return f"{self.kind}/{self.name}[{self.start}:{self.stop}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """Values that go from a fragment of a file to a piece of memory, all in numbers."""

    fragment: Fragment
    """The fragment that has them."""
    skip: int
    """Where they begin in the fragment."""
    flat: int
    """The flat tensor that wants them."""
    offset: int
    """Where they begin in it."""
    size: int
    """How many there are."""


def even_share(pieces: Sequence[Piece], rank: int, world_size: int) -> list[Piece]:
    """The part that a rank writes of what every rank has (ZeRO 0): equal ranges of all values in order.

    Pieces a (6 values) and b (2) for rank 1 of 2: all values are 0..8, its half is 4..8, so a[4:6] and b[0:2].
    """
    total = sum(piece.size for piece in pieces)
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    share, begin = [], 0
    for piece in pieces:
        low, high = max(first - begin, 0), min(last - begin, piece.size)
        if low < high:
            share.append(_cut(piece, low, high))
        begin += piece.size
    return share


def partition_slice(size: int, partition: int, rank: int) -> tuple[int, int]:
    """The values of a parameter that a rank has under ZeRO 3, where each has `partition` values, the last ones fewer.

    7 values in partitions of 4: rank 0 has [0, 4), rank 1 [4, 7), a third rank would have none: [7, 7).
    """
    return min(rank * partition, size), min((rank + 1) * partition, size)


def cut_to_files(pieces: Sequence[Piece], max_numbers: int) -> Iterator[list[Piece]]:
    """Pieces for one file after the other, each of at most `max_numbers` values.

    Pieces of 5 and 2 values, at most 4 a file: [0:4] of the first; then [4:5] of the first and all of the second.
    """
    filling: list[Piece] = []
    free = max_numbers
    for piece in pieces:
        low = 0
        while low < piece.size:
            high = min(piece.size, low + free)
            filling.append(_cut(piece, low, high))
            free -= high - low
            low = high
            if free == 0:
                yield filling
                filling, free = [], max_numbers
    if filling:
        yield filling


def first_gap(fragments: Iterable[Fragment], sizes: Mapping[str, int], kinds: Iterable[str]) -> str:
    """The first value that no fragment or more than one has, in words; empty if each is there once.

    a[0:4] a[4:5] of a parameter with 6 values: "weights/a[5:6] is in no file".
    """
    found = defaultdict(list)
    for fragment in fragments:
        found[fragment.kind, fragment.name].append(fragment)
    for kind in kinds:
        for name, size in sizes.items():
            at = 0
            for fragment in sorted(found.pop((kind, name), ()), key=lambda one: (one.start, one.stop)):
                if fragment.start < at or fragment.stop > size or fragment.stop <= fragment.start:
                    return f"{fragment.tensor_name} overlaps another range, or is outside of its {size} values"
                if fragment.start > at:
                    return f"{kind}/{name}[{at}:{fragment.start}] is in no file"
                at = fragment.stop
            if at < size:
                return f"{kind}/{name}[{at}:{size}] is in no file"
    return f"{next(iter(found))} is no parameter" if found else ""


def copies(kind: str, pieces: Iterable[Piece], fragments: Iterable[Fragment]) -> Iterator[Copy]:
    """What fills the pieces from the fragments of a kind.

    A piece a[3:8] at offset 10 of flat 0, from fragments a[0:6] and a[6:9]: 3 values from 3 of the first to 10, and 2
    from 0 of the second to 13.
    """
    stored = defaultdict(list)
    for fragment in fragments:
        if fragment.kind == kind:
            stored[fragment.name].append(fragment)
    for piece in pieces:
        for fragment in stored[piece.name]:
            low, high = max(piece.start, fragment.start), min(piece.stop, fragment.stop)
            if low < high:
                yield Copy(
                    fragment=fragment,
                    skip=low - fragment.start,
                    flat=piece.flat,
                    offset=piece.offset + low - piece.start,
                    size=high - low,
                )


def _cut(piece: Piece, low: int, high: int) -> Piece:
    """Values [low, high) of a piece, counted from its own beginning."""
    return Piece(
        name=piece.name,
        start=piece.start + low,
        stop=piece.start + high,
        flat=piece.flat,
        offset=piece.offset + low,
    )
