"""DiffFP on tensors: the same decisions as `vl3.models.difffp`, from patches that are already on a device.

Shapes: P patches of one video · C channels*patch^2 · F frames · M vision tokens of all frames after merge.
"""

import math

import torch
from torch import Tensor

from vl3.errors import DataError


def keep_mask(pixels_PC: Tensor, *, num_frames: int, merge_size: int, threshold: float, min_tokens: int) -> Tensor:
    """Which tokens of one video are kept, bool (M,); see `vl3.models.difffp.keep_mask`.

    Args:
        pixels_PC: raw uint8 patches in the order (t, h/m, w/m, m, m), so a token's pixels lie together.
        num_frames: frames of the video.
        merge_size: side of the square of patches that one token stands for.
        threshold: released scale.
        min_tokens: tokens that each frame keeps at least.

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
        before, after = tokens_FMC[:-1], tokens_FMC[1:]
        delta = torch.maximum(before, after) - torch.minimum(before, after)
        keep_FM[1:] = delta.sum(-1, dtype=torch.int32) > math.floor(threshold * token_numbers / 2)
        short_F1 = keep_FM.sum(1, keepdim=True) < min_tokens
        keep_FM |= short_F1 & (torch.arange(keep_FM.shape[1], device=pixels_PC.device) < min_tokens)
    return keep_FM.flatten()
