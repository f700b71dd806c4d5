"""The vision encoder: order of patches, isolation of frames, downsampling."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from vl3.errors import DataError
from vl3.models.attention import Segments
from vl3.models.encoder import VisionEncoder, merge_blocks, plan_patches, rotary_tables

ITEMS = [(1, 2, 4, 1), (2, 4, 4, 2), (1, 4, 2, 1), (1, 2, 4, 1), (3, 4, 4, 2)]
GRID = np.array([item[:3] for item in ITEMS])
MERGES = np.array([item[3] for item in ITEMS])


@pytest.fixture
def encoder(vision_config):
    torch.manual_seed(0)
    return VisionEncoder(vision_config).eval()


@pytest.fixture
def pixels():
    torch.manual_seed(1)
    return torch.rand(int(GRID.prod(1).sum()), 588) * 2 - 1


def test_positions_follow_merge_blocks():
    positions = plan_patches(np.array([[1, 4, 4]]), np.array([2])).positions_P2.tolist()
    assert positions[:8] == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert positions[8:10] == [[2, 0], [2, 1]]


def test_positions_without_merging_are_raster_order_and_restart_with_each_frame():
    positions = plan_patches(np.array([[2, 2, 3]]), np.array([1])).positions_P2.tolist()
    assert positions[:6] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert positions[6:] == positions[:6]


def test_rotary_turns_the_first_half_by_rows_and_the_second_by_columns(vision_config):
    cos, sin = rotary_tables(torch.tensor([[3, 0]]), vision_config)
    frequencies = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    assert torch.allclose(cos[0, 0, :4], (3 * frequencies).cos())
    assert torch.equal(cos[0, 0, 4:8], torch.ones(4))
    assert torch.allclose(sin[0, 0, 8:12], (3 * frequencies).sin())
    assert torch.allclose(sin[0, 0, :4], -(3 * frequencies).sin())


def test_a_packed_item_equals_the_item_alone(encoder, pixels):
    together = encoder(pixels, GRID, MERGES)
    alone, start = [], 0
    for grid, merge in zip(GRID, MERGES, strict=True):
        stop = start + grid.prod()
        alone.append(encoder(pixels[start:stop], grid[None], merge[None]))
        start = stop
    assert together.shape == (8 + 8 + 8 + 8 + 12, 32)
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_image_and_one_frame_video_agree_and_frames_do_not_see_each_other(encoder, pixels):
    image = encoder(pixels[:16], np.array([[1, 4, 4]]), np.array([2]))
    video = encoder(pixels[:48], np.array([[3, 4, 4]]), np.array([2]))
    assert torch.allclose(video[:4], image, atol=1e-6)


@pytest.mark.parametrize("merge", [1, 2, 3, 4])
def test_merge_blocks_is_bilinear_interpolation(merge):
    rows, columns = 2 * merge, 3 * merge
    image = torch.randn(1, 5, rows, columns)
    wanted = functional.interpolate(image, size=(2, 3), mode="bilinear").flatten(2)[0].T
    blocks = image[0].unflatten(1, (2, merge)).unflatten(3, (3, merge)).permute(1, 3, 2, 4, 0).reshape(-1, 5)
    assert torch.allclose(merge_blocks(blocks, merge), wanted, atol=1e-6)


def test_recomputation_changes_no_gradient(encoder, pixels):
    encoder.train()
    gradients = []
    for encoder.recompute in ("none", "selective", "full"):
        encoder.zero_grad()
        encoder(pixels, GRID, MERGES).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*gradients, strict=True))


def test_a_grid_that_does_not_match_the_pixels_is_refused(encoder, pixels):
    with pytest.raises(DataError, match=r"pixels have shape \(103, 588\) but the grids need \(104, 588\)"):
        encoder(pixels[:-1], GRID, MERGES)


def test_a_side_that_the_merge_does_not_divide_is_refused():
    with pytest.raises(DataError, match=r"visual item 1 has grid .*\(1, 3, 4\) and merge size 2"):
        plan_patches(np.array([[1, 4, 4], [1, 3, 4]]), np.array([2, 2]))


def test_an_empty_grid_is_refused():
    with pytest.raises(DataError, match=r"visual item 0 has grid .*\(0, 4, 4\)"):
        plan_patches(np.array([[0, 4, 4]]), np.array([1]))


def test_one_merge_size_for_each_item_is_demanded():
    with pytest.raises(DataError, match=r"grid_thw has shape \(2, 3\) and merge_sizes \(1,\)"):
        plan_patches(np.array([[1, 4, 4], [1, 4, 4]]), np.array([1]))


def test_pruned_patches_keep_their_place_and_attend_to_the_kept_alone(encoder, pixels):
    """A masked forward over each frame alone, with the kept patches and their positions, is the reference."""
    rng = np.random.default_rng(3)
    tokens = GRID.prod(1) // MERGES**2
    keep = rng.random(tokens.sum()) < 0.5
    keep[np.cumsum(tokens) - tokens] = True
    merges = np.repeat(MERGES, tokens)
    there = np.repeat(keep, merges**2)
    found = encoder(pixels[there], GRID, MERGES, keep)
    assert found.shape == (keep.sum(), 32)
    start = 0
    wanted = []
    for (frames, height, width), merge in zip(GRID, MERGES, strict=True):
        for _ in range(frames):
            of_frame = slice(start, start + height * width)
            positions = plan_patches(np.array([[1, height, width]]), merge[None]).positions_P2[there[of_frame]]
            if len(positions):
                wanted.append(encode_alone(encoder, pixels[of_frame][there[of_frame]], positions, merge))
            start += height * width
    assert torch.allclose(found, torch.cat(wanted), atol=1e-5)


def encode_alone(encoder, pixels, positions, merge):
    hidden = encoder.embeddings(pixels)
    for layer in encoder.encoder.layers:
        hidden = layer(hidden, rotary_tables(positions, encoder.config), Segments.of_runs([len(pixels)]))
    return merge_blocks(encoder.post_layernorm(hidden), int(merge))


def test_nothing_pruned_is_the_normal_path(encoder, pixels):
    everything = np.ones(int((GRID.prod(1) // MERGES**2).sum()), dtype=bool)
    assert torch.equal(encoder(pixels, GRID, MERGES, everything), encoder(pixels, GRID, MERGES))


def test_groups_without_gradients_change_nothing(encoder, pixels, monkeypatch):
    wanted = encoder(pixels, GRID, MERGES)
    monkeypatch.setattr("vl3.models.encoder.GROUP_PATCHES", 20)
    with torch.no_grad():
        assert torch.allclose(encoder(pixels, GRID, MERGES), wanted, atol=1e-5)


def test_raw_and_normalised_pixels_agree(encoder, pixels):
    raw = ((pixels + 1) * 127.5).round().to(torch.uint8)
    assert torch.allclose(encoder(raw, GRID, MERGES), encoder(raw.float() / 127.5 - 1, GRID, MERGES), atol=1e-5)


def test_a_mask_of_another_length_is_refused(encoder, pixels):
    with pytest.raises(DataError, match=r"mask has shape \(43,\) but the grids give 44 vision tokens"):
        encoder(pixels, GRID, MERGES, np.ones(43, dtype=bool))
