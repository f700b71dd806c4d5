"""DiffFP, the differential frame pruner (arXiv 2501.13106 sec. 3.1.2), on decoded frames; imports numpy only.

A token of a video is dropped when its pixels hardly differ from those of the frame before. The released code computes
d = mean|x_k - x_(k-1)| * 255 over the pixels of a merged token, x = (u / 255 - 0.5) / 0.5, and keeps d > threshold.
With integer pixels u that is exactly sum|u_k - u_(k-1)| > threshold * n / 2 for n values in a token. So we sum
integers, which is ten times faster, and compare once, without rounding. The fp32 formula can differ only where both
sides are equal (possible when threshold * n / 2 is a whole number, as for 0.5; never for 0.1).

The scale "rlt" uses the unit of RLT (arXiv 2411.05222): the mean absolute difference of pixels normalised by
ImageNet's mean and deviation, x = (u / 255 - mean) / std, for which RLT's threshold is 0.1. Multiplied by
255 * 229 * 224 * 225 / 1000 the sum over a token is a whole number again, so this comparison is exact too. Only the
unit comes from RLT: each frame is compared with the frame before, not in pairs (tubelets).

Shapes: F frames · H height px · W width px · C channels · M vision tokens of all frames after merge.
"""

import math
from fractions import Fraction

import numpy as np

from vl3.config.data import DiffFPScale
from vl3.errors import DataError

RLT_WEIGHTS = (224 * 225, 229 * 225, 229 * 224)
"""Weights of the red, green and blue differences: 1 / std for ImageNet's 0.229, 0.224 and 0.225, as whole numbers."""
_RLT_UNIT = Fraction(255 * 229 * 224 * 225, 1000)
_CHUNK_BYTES = 1 << 19  # pixels compared at once: small enough for a core's cache


def keep_mask(
    frames_FHWC: np.ndarray,
    *,
    patch_size: int,
    merge_size: int,
    threshold: float,
    min_tokens: int,
    scale: DiffFPScale = DiffFPScale.RELEASED,
) -> np.ndarray:
    """Which tokens of a video are kept, bool (M,): frame by frame, each frame row by row.

    All tokens of the first frame are kept. A frame with fewer than min_tokens changed tokens also keeps its first
    min_tokens (top left).

    Two frames of two tokens of one pixel each, threshold 2, so that a token's sum must exceed 2 * 3 / 2 = 3:

        frame 0  (10 10 10) (50 50 50)    kept: True  True
        frame 1  (10 10 13) (50 52 52)    change sums 3 and 4, kept: False True
        with threshold 20 and min_tokens=1 the second frame keeps True False

    Args:
        frames_FHWC: uint8 frames, already resized to multiples of patch_size x merge_size.
        patch_size: side of a patch in pixels.
        merge_size: side of the square of patches that becomes one token.
        threshold: mean change above which a token is kept, in the unit of scale; 0 drops only what is identical.
        min_tokens: each frame keeps at least this many tokens.
        scale: unit of the threshold: 0.1 is 0.05 grey levels as released and about 5.8 grey levels in RLT's.

    Raises:
        DataError: the frames are not uint8 colour pictures, or their sides are not multiples of a token's side.
    """
    side_px = patch_size * merge_size
    _check_frames(frames_FHWC, side_px)
    frames, height, width, channels = frames_FHWC.shape
    keep_FM = np.ones((frames, (height // side_px) * (width // side_px)), dtype=bool)
    if frames > 1:
        changes = change_sums(frames_FHWC, side_px, scale)
        keep_FM[1:] = changes > change_limit(threshold, side_px * side_px * channels, scale)
        force_min_tokens(keep_FM, min_tokens)
    return keep_FM.reshape(-1)


def change_limit(threshold: float, token_numbers: int, scale: DiffFPScale) -> int:
    """The largest change sum with which a token is still dropped.

    A token of 28 x 28 pixels and 3 channels has 2352 values: 0.1 * 2352 / 2 = 117.6, so a sum of 118 keeps it.

    Args:
        threshold: mean change, in the unit of scale.
        token_numbers: number of values in a token, pixels times channels.
        scale: unit of the threshold.

    >>> change_limit(0.1, 2352, DiffFPScale.RELEASED)
    117
    """
    unit = Fraction(1, 2) if scale is DiffFPScale.RELEASED else _RLT_UNIT
    return math.floor(Fraction(str(threshold)) * token_numbers * unit)


def change_sums(frames_FHWC: np.ndarray, side_px: int, scale: DiffFPScale = DiffFPScale.RELEASED) -> np.ndarray:
    """Sums of absolute differences from the frame before, (F - 1, tokens of a frame), to compare with `change_limit`.

    uint8 has no negative numbers, so |a - b| is max(a, b) - min(a, b): 250 and 3 differ by 247, not by 9.
    """
    frames, height, width, channels = frames_FHWC.shape
    rows, columns = height // side_px, width // side_px
    released = scale is DiffFPScale.RELEASED
    sums = np.empty((frames - 1, rows * columns), dtype=np.uint32 if released else np.int64)
    flat = np.ascontiguousarray(frames_FHWC).reshape(frames, height, width * channels)
    step = max(1, _CHUNK_BYTES // flat[0].size)
    for start in range(0, frames - 1, step):
        stop = min(start + step, frames - 1)
        before, after = flat[start:stop], flat[start + 1 : stop + 1]
        delta = np.maximum(before, after)
        np.subtract(delta, np.minimum(before, after), out=delta)
        block_sums = _block_sums if released else _weighted_block_sums
        sums[start:stop] = block_sums(delta, side_px, rows, columns)
    return sums


def force_min_tokens(keep_FM: np.ndarray, min_tokens: int) -> None:
    """Set the first min_tokens of each frame that keeps fewer to True, in place."""
    short_F = keep_FM.sum(axis=1) < min_tokens
    keep_FM[short_F, :min_tokens] = True


def _block_sums(delta: np.ndarray, side_px: int, rows: int, columns: int) -> np.ndarray:
    """Sums over squares of side_px x side_px pixels; delta is bytes (frames, height, width * channels).

    One frame of two squares, side_px=2, one channel:

        1 2 | 3 4      sums over rows: 6 8 | 10 12      sums: 14 22
        5 6 | 7 8
    """
    frames, _, row_bytes = delta.shape
    if row_bytes // columns % 2 or side_px > 128:
        lines = np.add.reduce(delta.reshape(frames, rows, side_px, row_bytes), axis=2, dtype=np.uint32)
    else:
        # Faster: first add the two bytes of each 16-bit word (0x0201 becomes 3). 128 rows of 2 * 255 fit in 16 bits.
        words = delta.view(np.uint16)
        pairs = (words & 0xFF) + (words >> 8)
        lines = np.add.reduce(pairs.reshape(frames, rows, side_px, row_bytes // 2), axis=2)
    blocks = lines.reshape(frames, rows, columns, -1)
    return np.add.reduce(blocks, axis=3, dtype=np.uint32).reshape(frames, rows * columns)


def _weighted_block_sums(delta: np.ndarray, side_px: int, rows: int, columns: int) -> np.ndarray:
    """Like `_block_sums`, with each colour multiplied by its weight on RLT's scale."""
    frames, _, row_bytes = delta.shape
    kind = np.uint16 if side_px <= 257 else np.uint32  # 257 rows of 255 fit in 16 bits
    lines = np.add.reduce(delta.reshape(frames, rows, side_px, row_bytes), axis=2, dtype=kind)
    colours = np.add.reduce(lines.reshape(frames, rows, columns, side_px, 3), axis=3, dtype=np.int64)
    return (colours @ np.array(RLT_WEIGHTS, dtype=np.int64)).reshape(frames, rows * columns)


def _check_frames(frames_FHWC: np.ndarray, side_px: int) -> None:
    if frames_FHWC.dtype != np.uint8 or frames_FHWC.ndim != 4 or not len(frames_FHWC):
        raise DataError(
            f"DiffFP got frames of shape {frames_FHWC.shape} and type {frames_FHWC.dtype}, but it compares decoded "
            "pixels, uint8 (frames, height, width, channels). Pass the resized frames before normalisation."
        )
    height, width = frames_FHWC.shape[1:3]
    if height % side_px or width % side_px or not height or not width:
        raise DataError(
            f"DiffFP got frames of {height}x{width} px, which is not a multiple of the token size, {side_px}x{side_px} "
            "px. The mask would not match the encoder's tokens. Resize the frames to multiples of patch x merge first."
        )
