"""DiffFP, the differential frame pruner (arXiv 2501.13106 sec. 3.1.2), on decoded frames; imports numpy only.

A token of a video is dropped when its pixels hardly differ from those of the frame before. The released code takes
d = mean|x_k - x_(k-1)| * 255 over the pixels of a merged token, x = (u / 255 - 0.5) / 0.5, and keeps d > threshold.
With integer pixels u that is exactly sum|u_k - u_(k-1)| > threshold * n / 2 for n numbers in a token, so the sum is
taken in integers, ten times faster, and compared once: no rounding decides. The fp32 formulation can differ only where
both sides are equal (possible when threshold * n / 2 is a whole number, as for 0.5; never for 0.1).

Shapes: F frames · H height px · W width px · C channels · M vision tokens of all frames after merge.
"""

import math

import numpy as np

from vl3.errors import DataError

_CHUNK_BYTES = 1 << 19  # pixels compared at once: differences stay in a core's cache


def keep_mask(
    frames_FHWC: np.ndarray, *, patch_size: int, merge_size: int, threshold: float, min_tokens: int
) -> np.ndarray:
    """Which tokens of a video are kept, bool (M,), raster order over each frame, frame by frame.

    The first frame is kept whole; so is a single frame. A frame with fewer than min_tokens changed tokens keeps
    its first min_tokens (top left) besides.

    Args:
        frames_FHWC: uint8 frames, already resized to multiples of patch_size x merge_size.
        patch_size: side of a patch in pixels.
        merge_size: side of the square of patches that one token stands for.
        threshold: released scale (0.1 is 0.05 grey levels on average); 0 drops only what is identical.
        min_tokens: tokens that each frame keeps at least.

    Raises:
        DataError: the frames are not uint8 colour pictures, or their sides do not divide into tokens.
    """
    side_px = patch_size * merge_size
    _check_frames(frames_FHWC, side_px)
    frames, height, width, channels = frames_FHWC.shape
    # sum > limit, for a whole sum: the limit rounded down decides alike.
    limit = math.floor(threshold * side_px * side_px * channels / 2)
    keep_FM = np.ones((frames, (height // side_px) * (width // side_px)), dtype=bool)
    if frames > 1:
        keep_FM[1:] = change_sums(frames_FHWC, side_px) > limit
        force_min_tokens(keep_FM, min_tokens)
    return keep_FM.reshape(-1)


def change_sums(frames_FHWC: np.ndarray, side_px: int) -> np.ndarray:
    """Sum of absolute differences to the frame before, uint32 (F - 1, tokens of a frame)."""
    frames, height, width, channels = frames_FHWC.shape
    rows, columns = height // side_px, width // side_px
    sums = np.empty((frames - 1, rows * columns), dtype=np.uint32)
    flat = np.ascontiguousarray(frames_FHWC).reshape(frames, height, width * channels)
    step = max(1, _CHUNK_BYTES // flat[0].size)
    for start in range(0, frames - 1, step):
        stop = min(start + step, frames - 1)
        before, after = flat[start:stop], flat[start + 1 : stop + 1]
        delta = np.maximum(before, after)
        np.subtract(delta, np.minimum(before, after), out=delta)
        sums[start:stop] = _block_sums(delta, side_px, rows, columns)
    return sums


def force_min_tokens(keep_FM: np.ndarray, min_tokens: int) -> None:
    """Switch on, in place, the first min_tokens of each frame that keeps fewer."""
    short_F = keep_FM.sum(axis=1) < min_tokens
    keep_FM[short_F, :min_tokens] = True


def _block_sums(delta: np.ndarray, side_px: int, rows: int, columns: int) -> np.ndarray:
    """Sums over side_px x side_px squares of (frames, height, width * channels) bytes, (frames, squares)."""
    frames, _, row_bytes = delta.shape
    if row_bytes // columns % 2 or side_px > 128:
        lines = np.add.reduce(delta.reshape(frames, rows, side_px, row_bytes), axis=2, dtype=np.uint32)
    else:
        # Neighbouring bytes of a 16-bit word are added first; 128 rows of two bytes still fit into 16 bits.
        words = delta.view(np.uint16)
        pairs = (words & 0xFF) + (words >> 8)
        lines = np.add.reduce(pairs.reshape(frames, rows, side_px, row_bytes // 2), axis=2)
    blocks = lines.reshape(frames, rows, columns, -1)
    return np.add.reduce(blocks, axis=3, dtype=np.uint32).reshape(frames, rows * columns)


def _check_frames(frames_FHWC: np.ndarray, side_px: int) -> None:
    if frames_FHWC.dtype != np.uint8 or frames_FHWC.ndim != 4 or not len(frames_FHWC):
        raise DataError(
            f"DiffFP got frames of shape {frames_FHWC.shape} and type {frames_FHWC.dtype}; it compares decoded pixels, "
            "uint8 (frames, height, width, channels). Pass the resized frames before normalisation."
        )
    height, width = frames_FHWC.shape[1:3]
    if height % side_px or width % side_px or not height or not width:
        raise DataError(
            f"DiffFP got frames of {height}x{width} px, which do not divide into tokens of {side_px}x{side_px} px. The "
            "mask would not match the encoder's tokens. Resize the frames to multiples of patch x merge first."
        )
