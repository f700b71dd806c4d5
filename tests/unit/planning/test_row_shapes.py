"""Sizes of rows: of real ones, and of those of a plan."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vl3.data.loader.rows import PackedRow
from vl3.data.plan.packing import PACK
from vl3.planning.row_shapes import shape_of_row, shapes_of_packs
from vl3.planning.shapes import RowShape


def test_size_of_a_row(make_row: Callable[..., PackedRow]) -> None:
    assert shape_of_row(make_row(10, 6)) == RowShape(
        length_tokens=24.0,
        length_pairs=14.0**2 + 10.0**2,
        patches=32.0,
        patch_pairs=2 * 16.0**2,
        projected_tokens=8.0,
        supervised_tokens=8.0,
    )


def test_tokens_that_difffp_dropped_after_the_encoder_cost_patches_only(make_row: Callable[..., PackedRow]) -> None:
    row = make_row(10)
    row = replace(row, keep_M=np.array([1, 0, 0, 1], dtype=bool), visual_tokens_kept=2)
    size = shape_of_row(row)
    assert (size.patches, size.patch_pairs, size.projected_tokens) == (16, 256, 2)


def test_tokens_that_are_dropped_before_the_encoder_cost_no_patches(make_row: Callable[..., PackedRow]) -> None:
    row = make_row(10)
    row = replace(row, keep_M=np.array([1, 0, 0, 1], dtype=bool), visual_tokens_kept=2, pixels_PC=row.pixels_PC[:8])
    size = shape_of_row(row)
    assert (size.patches, size.patch_pairs, size.projected_tokens) == (8, 64, 2)


def test_a_row_without_media_has_one_black_patch(make_row: Callable[..., PackedRow]) -> None:
    size = shape_of_row(make_row(10, images=0))
    assert (size.patches, size.patch_pairs, size.projected_tokens, size.length_tokens) == (1, 1, 0, 10)


def test_sizes_of_planned_rows_are_upper_bounds() -> None:
    packs = np.zeros(2, dtype=PACK)
    packs["length_tokens"], packs["visual_tokens"] = (30, 10), (20, 12)  # DiffFP dropped 2 of the second's at least
    packs["length_pairs"], packs["patches"], packs["patch_pairs"] = (900, 100), (80, 48), (6400, 2304)
    first, second = shapes_of_packs(packs)
    assert (first.length_tokens, first.projected_tokens, first.supervised_tokens) == (30, 20, 10)
    assert (second.projected_tokens, second.supervised_tokens) == (10, 0)
    assert (first.patches, second.patch_pairs) == (80, 2304)
    assert RowShape.mean([first, second]).length_tokens == 20
    assert RowShape.largest([first, second]).supervised_tokens == 10
