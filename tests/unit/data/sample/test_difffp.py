"""DiffFP on frames: the released decisions, taken in integers."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.config.data import DiffFPScale
from vl3.data.sample.difffp import keep_mask
from vl3.errors import DataError

RELEASED = {"patch_size": 14, "merge_size": 2, "threshold": 0.1, "min_tokens": 1}


def released_mask(frames, patch_size, merge_size, threshold, min_tokens):
    """The straightforward fp32 formulation on normalised pixels (reference: _get_compression_mask)."""
    side = patch_size * merge_size
    num, height, width, channels = frames.shape
    x = (frames.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    blocks = x.reshape(num, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    tokens = blocks.reshape(num, (height // side) * (width // side), -1)
    change = np.abs(tokens[1:] - tokens[:-1]).mean(-1) * np.float32(255)
    keep = np.concatenate([np.ones((1, tokens.shape[1]), bool), change > threshold])
    for frame in range(num):
        if keep[frame].sum() < min_tokens:
            keep[frame, :min_tokens] = True
    return keep.reshape(-1)


def video(seed=0, frames=6, height=56, width=84, share=0.01):
    """Frames that differ from the one before by one level in a share of the numbers, and by much in one corner."""
    rng = np.random.default_rng(seed)
    out = np.repeat(rng.integers(1, 255, (1, height, width, 3), dtype=np.uint8), frames, axis=0)
    for index in range(1, frames):
        out[index] = out[index - 1]
        out[index][rng.random(out[index].shape) < share * index] ^= 1
        out[index, :28, :28] = rng.integers(0, 256, (28, 28, 3))
    return out


@pytest.mark.parametrize("merge_size", [1, 2])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.1, 0.3, 2.0])
@pytest.mark.parametrize("min_tokens", [0, 1, 3])
def test_decisions_equal_the_fp32_formulation(merge_size, threshold, min_tokens):
    arguments = {"patch_size": 14, "merge_size": merge_size, "threshold": threshold, "min_tokens": min_tokens}
    for seed in range(4):
        frames = video(seed)
        assert np.array_equal(keep_mask(frames, **arguments), released_mask(frames, **arguments))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    frames=st.integers(1, 5),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    share=st.floats(0, 0.1),
)
def test_first_frame_is_whole_and_every_frame_has_its_minimum(seed, frames, rows, columns, share):
    pixels = video(seed, frames, 28 * rows, 28 * columns, share)
    keep = keep_mask(pixels, **RELEASED).reshape(frames, -1)
    assert keep.shape == (frames, rows * columns)
    assert keep[0].all()
    assert (keep.sum(1) >= 1).all()
    assert np.array_equal(keep.reshape(-1), released_mask(pixels, **RELEASED))


def test_one_grey_level_in_more_than_five_percent_of_the_numbers_keeps_a_token():
    """0.1 on the released scale is 0.05 grey levels: 117.6 of the 2352 numbers of a 28 x 28 px token."""
    for changed, kept in ((117, False), (118, True)):
        frames = np.zeros((2, 28, 56, 3), dtype=np.uint8)
        token = np.zeros(2352, dtype=np.uint8)
        token[:changed] = 1
        frames[1, :, 28:] = token.reshape(28, 28, 3)
        assert keep_mask(frames, **RELEASED | {"min_tokens": 0}).tolist() == [True, True, False, kept]


def test_equality_with_the_threshold_drops():
    """Borderline: 588 levels over 2352 numbers are exactly 0.5; the comparison is strict, and exact here."""
    frames = np.zeros((2, 28, 28, 3), dtype=np.uint8)
    frames[1].reshape(-1)[:588] = 1
    arguments = RELEASED | {"threshold": 0.5, "min_tokens": 0}
    assert keep_mask(frames, **arguments).tolist() == [True, False]
    frames[1].reshape(-1)[588] = 1
    assert keep_mask(frames, **arguments).tolist() == [True, True]


def test_threshold_zero_keeps_every_change_and_drops_only_what_is_identical():
    frames = np.zeros((2, 28, 56, 3), dtype=np.uint8)
    frames[1, 27, 55, 2] = 1
    assert keep_mask(frames, **RELEASED | {"threshold": 0.0, "min_tokens": 0}).tolist() == [True, True, False, True]


def test_frames_are_compared_with_the_frame_before_not_with_the_last_kept():
    frames = np.zeros((5, 28, 28, 3), dtype=np.uint8)
    for index in range(5):
        frames[index].reshape(-1)[: 100 * index] = 1  # each step is below 117.6, their sum is not
    assert keep_mask(frames, **RELEASED | {"min_tokens": 0}).tolist() == [True, False, False, False, False]


def test_a_still_frame_keeps_its_first_tokens():
    frames = np.zeros((2, 56, 56, 3), dtype=np.uint8)
    assert keep_mask(frames, **RELEASED | {"min_tokens": 2}).tolist() == [True] * 4 + [True, True, False, False]


def test_an_image_is_untouched():
    assert keep_mask(video(frames=1), **RELEASED).all()


def test_long_frames_are_summed_without_overflow():
    frames = np.zeros((2, 280, 280, 3), dtype=np.uint8)
    frames[1] = 255
    large = {"patch_size": 140, "merge_size": 2, "min_tokens": 0}
    assert keep_mask(frames, **large, threshold=509.0).tolist() == [True, True]
    assert keep_mask(frames, **large, threshold=510.0).tolist() == [True, False]


def test_normalised_frames_are_refused():
    with pytest.raises(DataError, match=r"shape \(2, 28, 28, 3\) and type float32"):
        keep_mask(np.zeros((2, 28, 28, 3), dtype=np.float32), **RELEASED)


def test_frames_that_do_not_divide_into_tokens_are_refused():
    with pytest.raises(DataError, match="frames of 28x42 px, which is not a multiple of the token size, 28x28 px"):
        keep_mask(np.zeros((2, 28, 42, 3), dtype=np.uint8), **RELEASED)


def test_the_module_imports_no_torch():
    code = "import sys, vl3.data.sample.difffp; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def rlt_mask(frames, side, threshold):
    """RLT's statistic in double precision on ImageNet-normalised pixels."""
    x = (frames / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    num, height, width, channels = frames.shape
    blocks = x.reshape(num, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    tokens = blocks.reshape(num, (height // side) * (width // side), -1)
    change = np.abs(tokens[1:] - tokens[:-1]).mean(-1)
    return np.concatenate([np.ones((1, tokens.shape[1]), bool), change > threshold])


@pytest.mark.parametrize("merge_size", [1, 2])
@pytest.mark.parametrize("threshold", [0.003, 0.1, 0.7])
def test_rlt_scale_decides_as_on_imagenet_normalised_pixels(merge_size, threshold):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 4, (1, 2, 3, 1), dtype=np.uint8).repeat(28, 1).repeat(28, 2)
    frames = np.concatenate([video(1), np.clip(video(1)[:1].astype(int) + 3 * levels, 0, 255).astype(np.uint8)])
    arguments = {"patch_size": 14, "merge_size": merge_size, "threshold": threshold, "min_tokens": 0}
    found = keep_mask(frames, **arguments, scale=DiffFPScale.RLT).reshape(len(frames), -1)
    assert 0 < found[1:].sum() < found[1:].size
    assert np.array_equal(found, rlt_mask(frames, 14 * merge_size, threshold))


@pytest.mark.parametrize(("levels", "kept"), [(5, False), (6, True)])
def test_rlt_threshold_is_about_six_grey_levels(levels, kept):
    """0.1 of ImageNet's deviation is 0.1 * 255 / mean(1 / std) = 5.76 grey levels."""
    frames = np.full((2, 28, 28, 3), 100, dtype=np.uint8)
    frames[1] += levels
    assert keep_mask(frames, **RELEASED | {"min_tokens": 0}, scale=DiffFPScale.RLT).tolist() == [True, kept]


def test_rlt_scale_weighs_colours_by_their_deviation():
    """Red has the larger deviation, so the same change weighs less there: 17.5 levels of red, 17.1 of green."""
    for channel, levels, kept in ((0, 17, False), (1, 17, False), (0, 18, True), (1, 18, True)):
        frames = np.zeros((2, 28, 28, 3), dtype=np.uint8)
        frames[1, :, :, channel] = levels
        mean = levels / 255 / (0.229, 0.224)[channel] / 3
        assert (mean > 0.1) is kept
        assert keep_mask(frames, **RELEASED | {"min_tokens": 0}, scale=DiffFPScale.RLT).tolist() == [True, kept]


def test_large_tokens_do_not_overflow_on_the_rlt_scale():
    frames = np.zeros((2, 280, 280, 3), dtype=np.uint8)
    frames[1] = 255
    large = {"patch_size": 140, "merge_size": 2, "min_tokens": 0, "scale": DiffFPScale.RLT}
    assert keep_mask(frames, **large, threshold=4.42).tolist() == [True, True]
    assert keep_mask(frames, **large, threshold=4.43).tolist() == [True, False]
