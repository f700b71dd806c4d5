"""The size to which images and frames are resized, by the released code's rules; tokens are counted after merging."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vl3.conventions import PATCH_SIZE_PX


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemSize:
    """One image, or one video whose frames all have the size of its first frame."""

    height_px: int
    width_px: int
    num_frames: int
    merge_size: int


def fit_size(
    height_px: int,
    width_px: int,
    *,
    num_items: int,
    merge_size: int,
    patch_size: int = PATCH_SIZE_PX,
    min_tokens: int,
    max_tokens: int,
) -> tuple[int, int]:
    """Height and width in pixels of one of `num_items` images or frames that share `max_tokens`.

    Both sides are multiples of `patch_size * merge_size`. The minimum is enforced even if it exceeds the budget.

    97x203 px, patches of 10 px, 200 tokens for two images: one may have 100 tokens, which is 10000 px2. Rounded to
    100x200 it has 20000 px2, so both sides are divided by sqrt(97 * 203 / 10000) = 1.40 and rounded down: 60x140.

    >>> fit_size(1080, 1920, num_items=1, merge_size=1, min_tokens=16, max_tokens=16384)
    (1078, 1918)
    """
    factor = patch_size * merge_size
    budget_px2 = max(1, max_tokens * factor * factor // num_items)
    height, width = round(height_px / factor) * factor, round(width_px / factor) * factor
    if height * width > budget_px2:
        shrink = math.sqrt(height_px * width_px / budget_px2)
        height = math.floor(height_px / shrink / factor) * factor
        width = math.floor(width_px / shrink / factor) * factor
    min_px2 = min_tokens * factor * factor
    if height * width < min_px2:
        enlarge = math.sqrt(min_px2 / (height_px * width_px))
        height = math.ceil(height_px * enlarge / factor) * factor
        width = math.ceil(width_px * enlarge / factor) * factor
    return height, width


def fit_sizes(
    items: Sequence[ItemSize], *, patch_size: int = PATCH_SIZE_PX, min_tokens: int, max_tokens: int
) -> list[tuple[int, int]]:
    """Size of each item of one sample: by `fit_size` if all have the same merge, else with one common scale."""
    if len({item.merge_size for item in items}) > 1:
        return _fit_mixed(items, patch_size, max_tokens)
    num_items = sum(item.num_frames for item in items)
    return [
        fit_size(
            item.height_px,
            item.width_px,
            num_items=num_items,
            merge_size=item.merge_size,
            patch_size=patch_size,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
        )
        for item in items
    ]


def _fit_mixed(items: Sequence[ItemSize], patch_size: int, max_tokens: int) -> list[tuple[int, int]]:
    """Items with different merges: no minimum, as in the released code, but at least one token.

    Patches of 10 px, max_tokens=50; an image of 100x100 px (merge 1) and two frames of 100x200 px (merge 2) have
    10 * 10 + 2 * 5 * 10 = 200 tokens, four times too many, so all sides are halved and rounded down to multiples
    of 10 and 20: 50x50 for the image, 40x100 for the frames.
    """
    factors = [patch_size * item.merge_size for item in items]
    total_tokens = sum(
        item.num_frames * math.ceil(item.height_px / factor) * math.ceil(item.width_px / factor)
        for item, factor in zip(items, factors, strict=True)
    )
    if total_tokens <= max_tokens:
        return [
            (max(1, round(item.height_px / factor)) * factor, max(1, round(item.width_px / factor)) * factor)
            for item, factor in zip(items, factors, strict=True)
        ]
    shrink = math.sqrt(total_tokens / max_tokens)
    return [
        (
            max(1, math.floor(item.height_px / shrink / factor)) * factor,
            max(1, math.floor(item.width_px / shrink / factor)) * factor,
        )
        for item, factor in zip(items, factors, strict=True)
    ]
