"""Questions in units: groups stay whole, the longest come first, and every unit is claimed once."""

from vl3.evaluation.units import UNIT_ROWS, HeldoutRow, make_units, own_first


def row(number: int, *, group: str = "", length: int = 10) -> HeldoutRow:
    return HeldoutRow(
        row=number,
        sample_id=f"s{number:04d}",
        category="chart",
        sha256="0" * 64,
        where=f"heldout.jsonl:{number}",
        group=group,
        length_tokens=length,
    )


def names(units: list[list[HeldoutRow]]) -> list[list[int]]:
    return [[one.row for one in unit] for unit in units]


def test_groups_are_not_cut() -> None:
    rows = [row(number, group="abc"[number // 100]) for number in range(220)]
    assert names(make_units(rows)) == [list(range(100)), list(range(100, 220))]


def test_a_group_of_more_than_a_unit_is_cut() -> None:
    units = make_units([row(number, group="a") for number in range(UNIT_ROWS + 5)])
    assert [len(unit) for unit in units] == [UNIT_ROWS, 5]


def test_long_prompts_come_first_and_make_small_units() -> None:
    rows = [row(0, length=5), row(1, length=300_000), row(2, length=7), row(3, length=300_000)]
    assert names(make_units(rows)) == [[1], [3, 2, 0]]


def test_units_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = [row(number, group="xy"[number % 2], length=number % 7) for number in range(300)]
    assert names(make_units(rows)) == names(make_units(rows[::-1]))


def test_no_rows_make_no_units() -> None:
    assert make_units([]) == []


def test_each_process_begins_with_its_own() -> None:
    assert [list(own_first(5, rank, 2)) for rank in (0, 1)] == [[0, 2, 4, 1, 3], [1, 3, 0, 2, 4]]
