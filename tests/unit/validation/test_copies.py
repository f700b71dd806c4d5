"""Rows that repeat others: found on disk as a plain search in memory finds them."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vl3.data.build import parts as parts_module
from vl3.data.build.parts import IndexParts, parts_of_table
from vl3.validation import copies as copies_module
from vl3.validation.copies import COLUMNS, LINKS, Copies, places_of

Row = dict[str, str | None]


def _row(number: int, split: str, content: str | None, files: str | None, *, name: str | None = "") -> Row:
    row: Row = {"sample_id": f"s{number}" if name == "" else name, "split": split, "problem": None}
    return row | {"problem_kind": None, "content_sha256": content, "media_sha256": files, "where": f"t:{number}"}


def _parts(rows: list[Row]) -> IndexParts:
    return parts_of_table(
        pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in (*COLUMNS, "where")})
    )


def _found(rows: list[Row], folder: Path) -> dict[str, list[int]]:
    with Copies(_parts(rows), folder) as copies:
        return {name: others.tolist() for name, others in copies.of_rows(0, len(rows)).items()}


def _searched(rows: list[Row]) -> dict[str, list[int]]:
    """The same by looking at every pair."""
    found = {name: [-1] * len(rows) for name in LINKS}
    usable = [number for number, row in enumerate(rows) if row["problem"] is None]
    for one in usable:
        row = rows[one]
        digests = {*(row["media_sha256"] or "").split(), row["content_sha256"]} - {None, ""}
        for other in reversed(usable):
            its = rows[other]
            if other != one and its["sample_id"] == row["sample_id"] and row["sample_id"]:
                found["same_id"][one] = other
            is_same = its["content_sha256"] == row["content_sha256"] is not None
            if other < one and its["split"] == row["split"] and is_same:
                found["first_copy"][one] = other
            its_digests = {*(its["media_sha256"] or "").split(), its["content_sha256"]}
            if (row["split"], its["split"]) == ("heldout", "train") and digests & its_digests:
                found["held_out_copy"][one] = other
    return found


@pytest.mark.parametrize("seed", range(20))
def test_links_are_those_of_a_plain_search(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "BATCH_ROWS", 7)
    monkeypatch.setattr(copies_module, "BATCH_ROWS", 10)
    rng = random.Random(seed)
    rows = []
    for number in range(60):
        files = " ".join(f"f{rng.randrange(40)}" for _ in range(rng.randrange(4)))
        content = rng.choice([None, *(f"c{rng.randrange(40)}" for _ in range(9))])
        row = _row(number, rng.choice(["train", "train", "heldout"]), content, rng.choice([files, files, None]))
        row["sample_id"] = rng.choice([row["sample_id"], row["sample_id"], f"s{rng.randrange(60)}", None])
        row["problem"] = rng.choice([None, None, None, "refused"])
        rows.append(row)
    assert _found(rows, tmp_path) == _searched(rows)


def test_the_worked_example(tmp_path: Path) -> None:
    splits = {3: "train", 5: "train", 8: "heldout", 9: "heldout"}
    rows = [_row(n, splits.get(n, "train"), "same" if n in splits else f"c{n}", "") for n in range(10)]
    found = _found(rows, tmp_path)
    assert {n: other for n, other in enumerate(found["first_copy"]) if other >= 0} == {5: 3, 9: 8}
    assert {n: other for n, other in enumerate(found["held_out_copy"]) if other >= 0} == {8: 3, 9: 3}
    assert set(found["same_id"]) == {-1}


def test_an_id_equal_to_a_digest_is_no_copy(tmp_path: Path) -> None:
    rows = [_row(0, "train", "c0", "", name="x"), _row(1, "heldout", "x", "", name="y")]
    assert all(set(others) == {-1} for others in _found(rows, tmp_path).values())


def test_others_are_named_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies_module, "BATCH_ROWS", 10)
    rows = [_row(n, "train", f"c{n % 25}", "") for n in range(50)]
    parts = _parts(rows)
    with Copies(parts, tmp_path) as copies:
        others = copies.first_others(4)
        assert copies.num_lines == 50
    assert others.tolist() == [0, 1, 2, 3]
    assert places_of(np.array([1, 3]), parts) == {1: "t:1", 3: "t:3"}
