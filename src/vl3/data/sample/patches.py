"""Cuts frames into rows of patches, in the order of the released image processor.

Legend: F frames, H height, W width, C channels or the 588 values of a patch, P patches, M merged tokens.
"""

import numpy as np

from vl3.conventions import PATCH_SIZE_PX


def patchify(
    frames_FHWC: np.ndarray, merge_size: int, patch_size: int = PATCH_SIZE_PX
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Cut frames into patches; the patches that become one token are next to each other.

    One frame of 4x4 patches, merge_size=2 (patches numbered row by row):

        0 1 | 2 3
        4 5 | 6 7        order: 0 1 4 5   2 3 6 7   8 9 12 13   10 11 14 15
        8 9 | 10 11
        12 13 | 14 15

    Args:
        frames_FHWC: uint8 RGB; both sides are multiples of `patch_size * merge_size`.
        merge_size: side of the square of patches that later becomes one token.
        patch_size: side of a patch in pixels.

    Returns:
        pixels_PC: uint8 (F*h*w, 3*patch_size**2), patches in order (frame, block row, block column, row and column
            within the block), values of a patch in order (channel, row, column).
        grid: (F, h, w) in patches.
    """
    num_frames, height_px, width_px, channels = frames_FHWC.shape
    grid_h, grid_w = height_px // patch_size, width_px // patch_size
    blocks = frames_FHWC.reshape(
        num_frames,
        grid_h // merge_size,
        merge_size,
        patch_size,
        grid_w // merge_size,
        merge_size,
        patch_size,
        channels,
    )
    pixels_PC = blocks.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(
        num_frames * grid_h * grid_w, channels * patch_size * patch_size
    )
    return np.ascontiguousarray(pixels_PC), (num_frames, grid_h, grid_w)
