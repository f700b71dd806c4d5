"""DiffFP on tensors: the same decisions as `vl3.models.difffp`, from patches that are already on a device.

Shapes: P patches of one video · C channels*patch^2 · F frames · M vision tokens of all frames after merge.
"""

import torch
from torch import Tensor

from vl3.config.data import DiffFPScale
from vl3.errors import DataError
from vl3.models.difffp import RLT_WEIGHTS, change_limit


def keep_mask(
    pixels_PC: Tensor,
    *,
    num_frames: int,
    merge_size: int,
    threshold: float,
    min_tokens: int,
    scale: DiffFPScale = DiffFPScale.RELEASED,
) -> Tensor:
    """Which tokens of one video are kept, bool (M,); see `vl3.models.difffp.keep_mask`.

    Args:
        pixels_PC: raw uint8 patches in the order (t, h/m, w/m, m, m), so a token's pixels lie together.
        num_frames: frames of the video.
        merge_size: side of the square of patches that one token stands for.
        threshold: mean change above which a token is kept, in the unit of scale.
        min_tokens: tokens that each frame keeps at least.
        scale: unit of the threshold.

    Raises:
        DataError: the patches are not raw pixels or do not divide into frames and tokens.
    """
    token_numbers = merge_size**2 * pixels_PC.shape[1]
    if pixels_PC.dtype != torch.uint8 or pixels_PC.shape[0] % (num_frames * merge_size**2):
        raise DataError(
            f"DiffFP got {tuple(pixels_PC.shape)} patches of {pixels_PC.dtype} for {num_frames} frames at merge "
            f"{merge_size}; it needs raw uint8 patches that divide into frames and tokens. Check grid and merge size."
        )
    tokens_FMC = pixels_PC.reshape(num_frames, -1, token_numbers)
    keep_FM = torch.ones(tokens_FMC.shape[:2], dtype=torch.bool, device=pixels_PC.device)
    if num_frames > 1:
        keep_FM[1:] = _change_sums(tokens_FMC, merge_size, scale) > change_limit(threshold, token_numbers, scale)
        short_F1 = keep_FM.sum(1, keepdim=True) < min_tokens
        keep_FM |= short_F1 & (torch.arange(keep_FM.shape[1], device=pixels_PC.device) < min_tokens)
    return keep_FM.flatten()


def _change_sums(tokens_FMC: Tensor, merge_size: int, scale: DiffFPScale) -> Tensor:
    """Whole sums of absolute differences to the frame before (F - 1, tokens of a frame)."""
    before, after = tokens_FMC[:-1], tokens_FMC[1:]
    delta = torch.maximum(before, after) - torch.minimum(before, after)
    if scale is DiffFPScale.RELEASED:
        return delta.sum(-1, dtype=torch.int32)
    colours = delta.unflatten(-1, (merge_size**2, 3, -1)).sum((-3, -1), dtype=torch.int64)
    return (colours * torch.tensor(RLT_WEIGHTS, device=colours.device)).sum(-1)
