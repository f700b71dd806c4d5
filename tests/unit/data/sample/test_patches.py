"""Patch order."""

import numpy as np
import pytest

from vl3.data.sample.patches import patchify


def _coordinates(frames: int, height: int, width: int) -> np.ndarray:
    """Pixels that say where they are: (frame, row, column) as the three channels."""
    grid = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    return np.stack(grid, axis=-1).astype(np.uint8)


def test_merge_1_is_raster_order():
    pixels, grid = patchify(_coordinates(2, 28, 42), 1)
    assert grid == (2, 2, 3)
    assert pixels.shape == (12, 588)
    assert pixels.dtype == np.uint8
    corners = pixels.reshape(12, 3, 14, 14)[:, :, 0, 0].tolist()
    assert corners[:6] == [[0, 0, 0], [0, 0, 14], [0, 0, 28], [0, 14, 0], [0, 14, 14], [0, 14, 28]]
    assert corners[6] == [1, 0, 0]


def test_merge_2_is_block_major():
    pixels, grid = patchify(_coordinates(1, 56, 56), 2)
    assert grid == (1, 4, 4)
    corners = pixels.reshape(16, 3, 14, 14)[:, 1:, 0, 0].tolist()
    assert corners[:8] == [[0, 0], [0, 14], [14, 0], [14, 14], [0, 28], [0, 42], [14, 28], [14, 42]]
    assert corners[8] == [28, 0]


def test_values_of_a_patch_are_channel_row_column():
    pixels, _ = patchify(_coordinates(1, 14, 14), 1)
    values = pixels.reshape(3, 14, 14)
    assert values[1, 5, 9] == 5
    assert values[2, 5, 9] == 9


@pytest.mark.parametrize("merge", [1, 2])
def test_an_image_and_a_one_frame_video_agree(merge):
    image = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    one, _ = patchify(image[None], merge)
    two, grid = patchify(np.stack([image, image]), merge)
    assert grid == (2, 4, 6)
    assert np.array_equal(two, np.concatenate([one, one]))
