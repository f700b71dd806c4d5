"""The vision encoder: any-resolution vision tokenization, AVT (arXiv 2501.13106 sec. 3.1).

A SigLIP tower with 2D-RoPE instead of learned positions takes images and frames of any size as one packed sequence of
patches. Attention does not leave an image or frame. At the end, merge x merge patches become one token.

Shapes: P patches (all items concatenated) · M tokens after merge · I visual items · C channels*patch^2 · V vision
dim · N heads · H head dim. Patch order inside an item: (t, h/m, w/m, m, m).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vl3.errors import DataError
from vl3.models.attention import Segments, attend
from vl3.models.config import EncoderConfig, VisionConfig
from vl3.models.placing import copy_to
from vl3.models.recompute import run_block
from vl3.models.rotary import Tables, rotate_both, tables_of

GROUP_PATCHES = 512
"""Patches that go through the layers together on CPU without gradients; a larger frame goes alone."""


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """Order and positions of the patches of one forward pass, computed from the grids; equal frames are grouped."""

    order_P: Tensor | None
    """Index that sorts the patches into groups of equal frames; None if they already are."""
    restore_M: Tensor | None
    """Index that puts the merged tokens back into the order of the items; None if they already are."""
    merges: tuple[tuple[int, int], ...]
    """(patches, merge size) of each group, in sorted order."""
    segments: Segments
    """The frames, in sorted order."""
    positions_P2: Tensor
    """Row and column of each patch in its frame, in sorted order."""


def plan_patches(
    grid_thw_I3: np.ndarray,
    merge_sizes_I: np.ndarray,
    device: torch.device | str = "cpu",
    keep_M: np.ndarray | None = None,
) -> PatchPlan:
    """Group the items by merge and frame size, so that equal frames are batched without copies.

    Item A is a frame of 2x2 patches (0 to 3) with merge 2, item B a frame of 1x3 patches (4 to 6) with merge 1:

        order_P    4 5 6 0 1 2 3      merge 1 comes first, so B before A
        merges     (3, 1), (4, 2)     tokens B0 B1 B2 A0
        restore_M  3 0 1 2            back to A0 B0 B1 B2

    Args:
        grid_thw_I3: frames, rows and columns of patches of each item.
        merge_sizes_I: merge size of each item.
        device: device of the result.
        keep_M: the tokens whose patches are passed; None if all are. A patch keeps its position in the frame.

    Raises:
        DataError: a grid is empty or is not divisible by its merge size, or the mask has the wrong length.
    """
    check_grids(grid_thw_I3, merge_sizes_I)
    frames_I, heights_I, widths_I = grid_thw_I3.T
    frame_patches_I = heights_I * widths_I
    tokens_I = frames_I * frame_patches_I // merge_sizes_I**2
    if keep_M is None:
        keep_M = np.ones(tokens_I.sum(), dtype=bool)
    check_mask(keep_M, int(tokens_I.sum()))
    kept_I = np.bincount(np.repeat(np.arange(len(tokens_I)), tokens_I)[keep_M], minlength=len(tokens_I))
    order_I = np.lexsort((frame_patches_I, merge_sizes_I))
    is_sorted = bool((np.diff(order_I) == 1).all())
    patches_I = kept_I * merge_sizes_I**2
    lengths_F, positions_P2 = _frames_and_positions(grid_thw_I3[order_I], merge_sizes_I[order_I])
    if not keep_M.all():
        merges_M = np.repeat(merge_sizes_I[order_I], tokens_I[order_I])
        there_P = np.repeat(keep_M[_spans(order_I, tokens_I)], merges_M**2)
        positions_P2 = positions_P2[there_P]
        frame_P = np.repeat(np.arange(len(lengths_F)), lengths_F)
        lengths_F = np.bincount(frame_P[there_P], minlength=len(lengths_F))
    merges = [(int(patches_I[merge_sizes_I == merge].sum()), int(merge)) for merge in np.unique(merge_sizes_I)]
    return PatchPlan(
        order_P=None if is_sorted else copy_to(_spans(order_I, patches_I), device),
        restore_M=None if is_sorted else copy_to(np.argsort(_spans(order_I, kept_I)), device),
        merges=tuple(merges),
        segments=Segments.of_runs(lengths_F[lengths_F > 0].tolist(), device),
        positions_P2=copy_to(positions_P2, device),
    )


def kept_patches(grid_thw_I3: np.ndarray, merge_sizes_I: np.ndarray, keep_M: np.ndarray) -> int:
    """Number of patches of the kept tokens."""
    merges_M = np.repeat(merge_sizes_I, grid_thw_I3.prod(1) // merge_sizes_I**2)
    return int((merges_M[keep_M] ** 2).sum())


def check_mask(keep_M: np.ndarray | Tensor, num_tokens: int) -> None:
    """Raise DataError unless the mask has one entry per token."""
    if tuple(keep_M.shape) != (num_tokens,):
        raise DataError(
            f"the DiffFP mask has shape {tuple(keep_M.shape)} but the grids give {num_tokens} vision tokens. The wrong "
            "tokens would be dropped. Make the mask from the same frames and merge size."
        )


def check_grids(grid_thw_I3: np.ndarray, merge_sizes_I: np.ndarray) -> None:
    """Raise DataError unless each item has a positive grid whose sides are multiples of its merge size."""
    if grid_thw_I3.ndim != 2 or grid_thw_I3.shape[1] != 3 or merge_sizes_I.shape != grid_thw_I3.shape[:1]:
        raise DataError(
            f"grid_thw has shape {grid_thw_I3.shape} and merge_sizes {merge_sizes_I.shape}; they must be (items, 3) "
            "and (items,). Pass one row of each per image or video."
        )
    bad_I = (grid_thw_I3 <= 0).any(1) | (merge_sizes_I <= 0)
    bad_I |= (grid_thw_I3[:, 1:] % np.maximum(merge_sizes_I, 1)[:, None]).any(1)
    if bad_I.any():
        item = int(np.flatnonzero(bad_I)[0])
        raise DataError(
            f"visual item {item} has grid (t, h, w)={tuple(grid_thw_I3[item].tolist())} and merge size "
            f"{merge_sizes_I[item]}; its sides must be positive multiples of the merge size. Resize the media to "
            "multiples of patch x merge."
        )


def _spans(order_I: np.ndarray, sizes_I: np.ndarray) -> np.ndarray:
    """Indexes of the items' elements, with the items in the given order.

    Sizes 4 and 3, so item 0 has the elements 0 to 3 and item 1 has 4 to 6: order 1, 0 gives 4 5 6 0 1 2 3.
    """
    starts_I, sizes = (np.cumsum(sizes_I) - sizes_I)[order_I], sizes_I[order_I]
    return np.arange(sizes.sum()) + np.repeat(starts_I - (np.cumsum(sizes) - sizes), sizes)


def _frames_and_positions(grid_thw_I3: np.ndarray, merge_sizes_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches of each frame, and row and column (P, 2) of each patch, in the order of `data.sample.patches.patchify`.

    One frame of 2x4 patches, merge 2: first block (0,0) (0,1) (1,0) (1,1), second block (0,2) (0,3) (1,2) (1,3).
    """
    frames_I, heights_I, widths_I = grid_thw_I3.T
    lengths_F = np.repeat(heights_I * widths_I, frames_I)
    patches_I = frames_I * heights_I * widths_I
    widths_P, merges_P = np.repeat(widths_I, patches_I), np.repeat(merge_sizes_I, patches_I)
    within_P = np.arange(lengths_F.sum()) - np.repeat(np.cumsum(lengths_F) - lengths_F, lengths_F)
    block_P, inner_P = np.divmod(within_P, merges_P**2)
    block_row_P, block_column_P = np.divmod(block_P, widths_P // merges_P)
    inner_row_P, inner_column_P = np.divmod(inner_P, merges_P)
    rows_P, columns_P = block_row_P * merges_P + inner_row_P, block_column_P * merges_P + inner_column_P
    return lengths_F, np.stack([rows_P, columns_P], axis=1)


class PatchProjection(nn.Conv2d):
    """The checkpoint's convolution (weight V, 3, patch, patch) over flattened patches."""

    def __init__(self, config: EncoderConfig, *, bias: bool = True) -> None:
        side = config.patch_size
        super().__init__(config.num_channels, config.hidden_size, side, stride=side, bias=bias)

    def forward(self, pixels_PC: Tensor) -> Tensor:
        """(P, C) to (P, V); a convolution with stride equal to its kernel size is a linear map of each patch."""
        return functional.linear(pixels_PC, self.weight.flatten(1), self.bias)


class PatchEmbedding(nn.Module):
    """Patches to vectors; named `embeddings.patch_embedding` in the checkpoint."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = PatchProjection(config)

    def forward(self, pixels_PC: Tensor) -> Tensor:
        """(P, C) to (P, V)."""
        return self.patch_embedding(pixels_PC)


class VisionAttention(nn.Module):
    """Full attention inside each frame, with 2D-RoPE on queries and keys where positions are not learned."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads_shape = (config.num_attention_heads, config.head_dim)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_PV: Tensor, rotary: Tables | None, segments: Segments) -> Tensor:
        """(P, V) to (P, V)."""
        q_PNH = self.q_proj(hidden_PV).unflatten(-1, self.heads_shape)
        k_PNH = self.k_proj(hidden_PV).unflatten(-1, self.heads_shape)
        v_PNH = self.v_proj(hidden_PV).unflatten(-1, self.heads_shape)
        if rotary is not None:
            q_PNH, k_PNH = rotate_both(q_PNH, k_PNH, rotary)
        return self.out_proj(attend(q_PNH, k_PNH, v_PNH, segments, causal=False).flatten(-2))


def quick_gelu(values: Tensor) -> Tensor:
    """CLIP's approximation of GELU: x * sigmoid(1.702 x)."""
    return values * torch.sigmoid(1.702 * values)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu": functional.gelu,
    "quick_gelu": quick_gelu,
}


class VisionMLP(nn.Module):
    """Two linear layers with the tower's activation between them."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_PV: Tensor) -> Tensor:
        """(P, V) to (P, V)."""
        return self.fc2(self.activation(self.fc1(hidden_PV)))


class VisionLayer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, hidden_PV: Tensor, rotary: Tables | None, segments: Segments) -> Tensor:
        """(P, V) to (P, V)."""
        hidden_PV = hidden_PV + self.self_attn(self.layer_norm1(hidden_PV), rotary, segments)
        return hidden_PV + self.mlp(self.layer_norm2(hidden_PV))


class VisionBlocks(nn.Module):
    """The blocks; named `encoder.layers` in the checkpoint."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))


class VisionEncoder(nn.Module):
    """Patches of images and frames of any size to vision tokens."""

    smallest_grid = (1, 1)
    """Rows and columns of patches of the smallest picture that it takes."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = PatchEmbedding(config)
        self.encoder = VisionBlocks(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.recompute = "none"
        """What backward computes again: see `vl3.models.recompute`."""

    def forward(
        self,
        pixels_PC: Tensor,
        grid_thw_I3: Tensor | np.ndarray,
        merge_sizes_I: Tensor | np.ndarray,
        keep_M: Tensor | np.ndarray | None = None,
    ) -> Tensor:
        """Vision tokens (M, V), item by item, frame by frame, each merged frame row by row.

        On CPU without gradients, frames go through all layers in groups, so that memory use does not grow with them.

        Args:
            pixels_PC: patches in the order (t, h/m, w/m, m, m) inside an item: uint8 as they are in the picture, or
                normalised to [-1, 1].
            grid_thw_I3: frames, rows and columns of patches of each item; keep it on CPU, where it is read.
            merge_sizes_I: side of the square of patches that becomes one token, for each item.
            keep_M: the tokens whose patches are in `pixels_PC`; only these are computed. None for all.

        Raises:
            DataError: grids do not match the merge sizes or do not add up to the pixels.
        """
        keep = None if keep_M is None else _numpy(keep_M)
        plan = plan_patches(_numpy(grid_thw_I3), _numpy(merge_sizes_I), pixels_PC.device, keep)
        check_pixels(pixels_PC, plan, self.config)
        if torch.is_grad_enabled() or pixels_PC.is_cuda:
            hidden_PV = self._encode(pixels_PC, plan, 0, plan.segments.num_tokens, plan.segments)
            return merge_groups(hidden_PV, plan)
        return self._encode_in_groups(pixels_PC, plan)

    def _encode_in_groups(self, pixels_PC: Tensor, plan: PatchPlan) -> Tensor:
        """Like `merge_groups` of `_encode`, but group by group, so that only one group's activations are in memory."""
        ends_P = np.cumsum([patches for patches, _ in plan.merges])
        num_tokens = sum(patches // merge**2 for patches, merge in plan.merges)
        features_MV = self.post_layernorm.weight.new_empty(num_tokens, self.config.hidden_size)
        place_M = None if plan.restore_M is None else torch.argsort(plan.restore_M)
        first = 0
        for start, stop, segments in plan.segments.groups(GROUP_PATCHES, borders=ends_P.tolist()):
            merge = plan.merges[int(np.searchsorted(ends_P, start, side="right"))][1]
            tokens_MV = merge_blocks(self._encode(pixels_PC, plan, start, stop, segments), merge)
            last = first + len(tokens_MV)
            if place_M is None:
                features_MV[first:last] = tokens_MV
            else:
                features_MV[place_M[first:last]] = tokens_MV
            first = last
        return features_MV

    def _encode(self, pixels_PC: Tensor, plan: PatchPlan, start: int, stop: int, segments: Segments) -> Tensor:
        """Patch vectors after the final norm, before merging, of a range of the plan's sorted patches."""
        there = pixels_PC[start:stop] if plan.order_P is None else pixels_PC[plan.order_P[start:stop]]
        hidden_PV = self.embeddings(normalise(there).to(self.post_layernorm.weight.dtype))
        rotary = rotary_tables(plan.positions_P2[start:stop], self.config)
        kind = self.recompute if self.training else "none"
        for layer in self.encoder.layers:
            hidden_PV = run_block(layer, kind, hidden_PV, rotary, segments)
        return self.post_layernorm(hidden_PV)


def merge_groups(hidden_PV: Tensor, plan: PatchPlan) -> Tensor:
    """Downsample each block of sorted patches to one token (M, V) and put the items back into their order."""
    groups = hidden_PV.split([patches for patches, _ in plan.merges])
    merged = [merge_blocks(group, merge) for group, (_, merge) in zip(groups, plan.merges, strict=True)]
    features_MV = merged[0] if len(merged) == 1 else torch.cat(merged)
    return features_MV if plan.restore_M is None else features_MV.index_select(0, plan.restore_M)


def check_pixels(pixels_PC: Tensor, plan: PatchPlan, config: EncoderConfig) -> None:
    """Raise DataError unless there are as many patches as the grids say, of the encoder's size."""
    expected = (plan.segments.num_tokens, config.patch_dim)
    if tuple(pixels_PC.shape) != expected:
        raise DataError(
            f"pixels have shape {tuple(pixels_PC.shape)} but the grids need {expected} (patches, values of each). "
            "Features would be assigned to the wrong image. Make grid_thw and pixels from the same media."
        )


def normalise(pixels_PC: Tensor) -> Tensor:
    """uint8 pixels to [-1, 1] in fp32, (x / 255 - 0.5) / 0.5 as in the released code; other types are unchanged."""
    return pixels_PC.float().mul_(2 / 255).sub_(1) if pixels_PC.dtype == torch.uint8 else pixels_PC


def merge_blocks(hidden_PV: Tensor, merge_size: int) -> Tensor:
    """Bilinear downsampling of patches in merge-block order by merge_size, (P, V) to (M, V).

    Interpolation to 1/m of the size (align_corners off) samples the centre of each m x m block: the middle patch
    for odd m, the mean of the four around the centre for even m. For m=2 that is the mean of the block, for m=3 patch
    4 of 0 to 8, for m=4 the mean of 5, 6, 9 and 10 of 0 to 15.
    """
    if merge_size == 1:
        return hidden_PV
    blocks_MKV = hidden_PV.unflatten(0, (-1, merge_size**2))
    if merge_size == 2:
        return blocks_MKV.mean(1)
    low, high = (merge_size - 1) // 2, merge_size // 2
    centre = sorted({row * merge_size + column for row in (low, high) for column in (low, high)})
    return blocks_MKV[:, centre].mean(1)


def rotary_tables(positions_P2: Tensor, config: VisionConfig) -> Tables:
    """Cosines and sines of 2D-RoPE, for `rotate_both`.

    The first quarter of the head rotates with the row, the second with the column; the second half repeats the first,
    because rotation pairs element j with j + H/2. Angles are the index in the frame times the frequency, in fp32.

    H=8, rope_theta 10000, so the frequencies are 1 and 0.01; the patch in row 2, column 3 has the angles

        2  0.02  3  0.03  2  0.02  3  0.03      (the sines of the first four are negative)
    """
    spatial_dim = config.head_dim // 2
    exponents = torch.arange(0, spatial_dim, 2, dtype=torch.float32, device=positions_P2.device) / spatial_dim
    angles_PK = (positions_P2[:, :, None].float() * (1.0 / config.rope_theta**exponents)).flatten(1)
    return tables_of(angles_PK)


def _numpy(values: Tensor | np.ndarray) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else values
