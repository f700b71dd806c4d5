"""Sizes of rows that are there: those that a rank computes, and those of a plan."""

import numpy as np

from vl3.data.loader.rows import PackedRow
from vl3.planning.shapes import RowShape


def shape_of_row(row: PackedRow) -> RowShape:
    """The size of a row that a rank is about to compute.

    An image of 4 patches in a sample of 6 tokens, and a sample of 3 without one: 9 tokens, 36 + 9 pairs, 4 patches
    and 16 pairs of them.
    """
    lengths_S = np.diff(row.cu_seqlens).astype(np.float64)
    frames_F = _patches_of_frames(row)
    return RowShape(
        length_tokens=float(lengths_S.sum()),
        length_pairs=float((lengths_S**2).sum()),
        patches=float(frames_F.sum()),
        patch_pairs=float((frames_F**2).sum()),
        projected_tokens=float(row.visual_tokens_kept),
        supervised_tokens=float(row.supervised_tokens),
    )


def shapes_of_packs(packs: np.ndarray) -> list[RowShape]:
    """The sizes of planned rows, from vl3.data.plan.packing.PACK (packs,).

    A plan does not count the tokens that are supervised or that DiffFP keeps. All tokens beyond the vision tokens are
    taken as supervised and all vision tokens as kept, which are upper bounds.
    """
    visual = np.minimum(packs["visual_tokens"], packs["length_tokens"]).astype(np.float64)
    text = packs["length_tokens"] - visual
    columns = (packs["length_tokens"], packs["length_pairs"], packs["patches"], packs["patch_pairs"], visual, text)
    names = RowShape.__slots__
    return [
        RowShape(**dict(zip(names, map(float, row), strict=True)))
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _patches_of_frames(row: PackedRow) -> np.ndarray:
    """Patches that the encoder sees of each image or frame, float64 (frames): of all, or only of the kept tokens."""
    if not len(row.grid_thw_I3):
        return np.ones(1)  # a row without media runs the encoder on one black patch
    frames_I, heights_I, widths_I = row.grid_thw_I3.T
    lengths_F = np.repeat(heights_I * widths_I, frames_I)
    if len(row.pixels_PC) == lengths_F.sum():
        return lengths_F.astype(np.float64)
    merges_F = np.repeat(row.merge_sizes_I, frames_I)
    tokens_F = lengths_F // merges_F**2
    kept_F = np.bincount(np.repeat(np.arange(len(tokens_F)), tokens_F)[row.keep_M], minlength=len(tokens_F))
    return (kept_F * merges_F**2).astype(np.float64)
