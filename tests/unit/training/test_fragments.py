"""The arithmetic of fragments: who owns what, and how others find it again."""

import random

from hypothesis import given
from hypothesis import strategies as st

from vl3.training.fragments import (
    Fragment,
    Piece,
    copies,
    cut_to_files,
    even_share,
    first_gap,
    partition_slice,
)


def pieces_of(sizes: dict[str, int]) -> list[Piece]:
    names = enumerate(sizes.items())
    return [Piece(name=name, start=0, stop=size, flat=i, offset=0) for i, (name, size) in names]


def words(pieces: list[Piece]) -> list[str]:
    return [f"{p.name}[{p.start}:{p.stop}]@{p.flat}+{p.offset}" for p in pieces]


def fragments_of(pieces: list[Piece], kind: str = "weights") -> list[Fragment]:
    return [Fragment(kind=kind, name=p.name, start=p.start, stop=p.stop) for p in pieces]


def test_the_worked_example() -> None:
    whole = pieces_of({"a": 6, "b": 2})
    assert words(even_share(whole, 0, 2)) == ["a[0:4]@0+0"]
    assert words(even_share(whole, 1, 2)) == ["a[4:6]@0+4", "b[0:2]@1+0"]
    assert [partition_slice(7, 4, rank) for rank in range(3)] == [(0, 4), (4, 7), (7, 7)]
    assert [words(file) for file in cut_to_files(pieces_of({"a": 5, "b": 2}), 4)] == [
        ["a[0:4]@0+0"], ["a[4:5]@0+4", "b[0:2]@1+0"],
    ]  # fmt: skip


def test_a_copy_says_from_where_to_where() -> None:
    wanted = [Piece(name="a", start=3, stop=8, flat=0, offset=10)]
    stored = [Fragment(kind="weights", name="a", start=0, stop=6), Fragment(kind="weights", name="a", start=6, stop=9)]
    stored.append(Fragment(kind="exp_avg", name="a", start=0, stop=9))
    found = [
        (copy.fragment.tensor_name, copy.skip, copy.offset, copy.size) for copy in copies("weights", wanted, stored)
    ]
    assert found == [("weights/a[0:6]", 3, 10, 3), ("weights/a[6:9]", 0, 13, 2)]


def test_a_gap_an_overlap_and_a_stranger_are_named() -> None:
    def gap(*ranges: tuple[str, int, int]) -> str:
        stored = [Fragment(kind="weights", name=name, start=start, stop=stop) for name, start, stop in ranges]
        return first_gap(stored, {"a": 6}, ("weights",))

    assert gap(("a", 0, 4), ("a", 4, 6)) == ""
    assert gap(("a", 0, 4), ("a", 5, 6)) == "weights/a[4:5] is in no file"
    assert gap(("a", 0, 5)) == "weights/a[5:6] is in no file"
    assert "weights/a[3:6] overlaps another range" in gap(("a", 0, 4), ("a", 3, 6))
    assert "is outside of its 6 values" in gap(("a", 0, 7))
    assert "is no parameter" in gap(("a", 0, 6), ("c", 0, 1))
    assert first_gap([], {"a": 0}, ("weights",)) == ""


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    writers=st.integers(1, 8),
    readers=st.integers(1, 8),
    max_numbers=st.integers(1, 30),
)
def test_any_number_of_ranks_reads_what_any_other_has_written(
    sizes: list[int], writers: int, readers: int, max_numbers: int
) -> None:
    named = {f"p{i}": size for i, size in enumerate(sizes)}
    whole, rng = pieces_of(named), random.Random(0)
    values = {name: [rng.random() for _ in range(size)] for name, size in named.items()}
    stored: dict[Fragment, list[float]] = {}
    for rank in range(writers):
        for file in cut_to_files(even_share(whole, rank, writers), max_numbers):
            assert sum(piece.size for piece in file) <= max_numbers
            for fragment in fragments_of(file):
                stored[fragment] = values[fragment.name][fragment.start : fragment.stop]
    assert first_gap(stored, named, ("weights",)) == ""
    for rank in range(readers):
        slices = [(name, *partition_slice(size, -(-size // readers), rank)) for name, size in named.items()]
        at, wanted = 0, []
        for name, start, stop in slices:
            wanted.append(Piece(name=name, start=start, stop=stop, flat=0, offset=at))
            at += stop - start
        row = [float("nan")] * at
        for copy in copies("weights", wanted, stored):
            row[copy.offset : copy.offset + copy.size] = stored[copy.fragment][copy.skip : copy.skip + copy.size]
        assert row == [value for name, start, stop in slices for value in values[name][start:stop]]
