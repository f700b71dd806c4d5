"""DiffFP on tensors takes the decisions of DiffFP on frames."""

import numpy as np
import pytest
import torch

from vl3.config.data import DiffFPScale
from vl3.data.patches import patchify
from vl3.errors import DataError
from vl3.models import difffp, difffp_tensor


@pytest.mark.parametrize("merge_size", [1, 2])
@pytest.mark.parametrize("scale", DiffFPScale)
@pytest.mark.parametrize("threshold", [0.0, 0.002, 0.1])
def test_both_forms_agree(merge_size, threshold, scale):
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (1, 56, 84, 3), dtype=np.uint8), 5, axis=0)
    for index in range(1, 4):
        frames[index] = frames[index - 1]
        frames[index][rng.random(frames[index].shape) < 0.02 * index] ^= 1
    frames[4] = frames[3]
    pixels, _ = patchify(frames, merge_size)
    options = {"merge_size": merge_size, "threshold": threshold, "min_tokens": 2, "scale": scale}
    wanted = difffp.keep_mask(frames, patch_size=14, **options)
    found = difffp_tensor.keep_mask(torch.from_numpy(pixels), num_frames=5, **options)
    assert 0 < wanted.sum() < wanted.size
    assert found.tolist() == wanted.tolist()


def test_patches_that_do_not_divide_into_frames_are_refused():
    with pytest.raises(DataError, match=r"\(10, 588\) patches of torch.uint8 for 3 frames"):
        difffp_tensor.keep_mask(
            torch.zeros(10, 588, dtype=torch.uint8), num_frames=3, merge_size=1, threshold=0.1, min_tokens=1
        )
