"""What is held out: groups by content, of which few move when samples are added."""

import random

import pytest

from vl3.data.build.index import IndexRow
from vl3.data.build.splits import group_by_content, hold_out


def row(name: str, files: str = "") -> IndexRow:
    return IndexRow(
        sample_id=name, split="train", where=name, media_sha256=files, content_sha256=f"content of {name}"
    )


def split(rows: list[IndexRow], fraction: float) -> dict[str, str]:
    for each in rows:
        each.split = "train"
    group_by_content(rows)
    hold_out(rows, fraction)
    return {each.sample_id: each.split for each in rows}


def test_samples_that_share_files_over_others_are_one_group():
    rows = [row("a", "cat"), row("b", "dog cat"), row("c", "dog"), row("d", "car"), row("e"), row("f")]
    rows[5].content_sha256 = rows[4].content_sha256
    group_by_content(rows)
    assert [each.media_group for each in rows] == ["cat", "cat", "cat", "car", *["content of e"] * 2]


def test_groups_do_not_depend_on_the_order():
    edges = [(f"{n}", f"d{n} d{n + 1 if n % 10 else n}") for n in range(200)]
    groups = []
    for seed in range(3):
        rows = [row(name, files) for name, files in random.Random(seed).sample(edges, len(edges))]
        group_by_content(rows)
        groups.append({each.sample_id: each.media_group for each in rows})
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[0].values())) == 21


def test_a_long_chain_is_one_group_in_no_time():
    rows = [row(f"{n}", f"d{n:06d} d{n + 1:06d}") for n in reversed(range(50_000))]
    group_by_content(rows)
    assert {each.media_group for each in rows} == {"d000000"}


def test_a_refused_line_joins_nothing():
    rows = [row("a", "cat"), row("b", "cat dog"), row("c", "dog")]
    rows[1].problem = "refused"
    group_by_content(rows)
    assert [each.media_group for each in rows] == ["cat", "", "dog"]


@pytest.mark.parametrize(("fraction", "count", "heldout"), [(0.0, 4, 0), (0.0001, 4, 1), (1.0, 4, 3), (0.5, 1, 0)])
def test_at_least_one_sample_is_held_out_and_one_kept(fraction, count, heldout):
    rows = [row(str(n)) for n in range(count)]
    group_by_content(rows)
    assert hold_out(rows, fraction) == ("hash" if heldout else "none")
    assert sum(each.split == "heldout" for each in rows) == heldout


def test_a_group_larger_than_the_share_stays_in_training():
    """Whatever its hash: 60 of 100 samples share one picture under 40 seeds of names."""
    for seed in range(40):
        rows = [row(f"{n}", f"{seed}-{max(n, 60)}") for n in range(101)]
        splits = split(rows, 0.1)
        assert {splits[str(n)] for n in range(61)} == {"train"}
        assert 1 <= list(splits.values()).count("heldout") <= 15


def test_where_all_share_one_file_nothing_is_held_out():
    rows = [row(f"{n}", f"d{n} d{(n + 1) % 40}") for n in range(40)]
    group_by_content(rows)
    assert hold_out(rows, 0.1) == "none"


def test_new_samples_move_no_others():
    rows = [row(f"{n}", f"d{n // 2}") for n in range(2000)]
    before = split(rows[:1000], 0.1)
    after = split(rows, 0.1)
    assert {name: after[name] for name in before} == before
    assert 0.07 < list(after.values()).count("heldout") / 2000 < 0.13
