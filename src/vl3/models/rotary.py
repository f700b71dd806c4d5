"""Rotation of queries and keys by rotary position tables, in one pass forward and one pass backward.

Shapes: T packed tokens · N heads · G key-value heads · H head dim · K half of a head. Element j of a head pairs with
element j + H/2.
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from vl3.models.fused import fused_rotate, is_fused

Tables: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines of a forward pass, fp32, as the device's `rotate_both` reads them: halves (T, K) for the fused
kernel, else whole heads (T, 1, H) whose sines are negative in the first half."""


def _swap_halves(x_TNH: Tensor) -> Tensor:
    return x_TNH.roll(x_TNH.shape[-1] // 2, -1)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
        ctx.save_for_backward(cos_T1H, sin_T1H)
        return (x_TNH * cos_T1H).addcmul_(_swap_halves(x_TNH), sin_T1H)

    @staticmethod
    def backward(ctx: Any, grad_TNH: Tensor) -> tuple[Tensor, None, None]:
        cos_T1H, sin_T1H = ctx.saved_tensors
        # The transpose of a rotation rotates the other way: the sines change sign.
        return (grad_TNH * cos_T1H).addcmul_(_swap_halves(grad_TNH), sin_T1H, value=-1), None, None


def tables_of(angles_TK: Tensor) -> Tables:
    """The tables of a rotation by these angles, made once per forward pass and used by every layer.

    Angles 0.5 and 2 of a token (H=4), not fused: cos .878 -.416 .878 -.416, sin -.479 -.909 .479 .909.
    """
    cos_TK, sin_TK = angles_TK.cos(), angles_TK.sin()
    if is_fused(angles_TK):
        return cos_TK, sin_TK
    cos_T1H = torch.cat([cos_TK, cos_TK], dim=-1).unsqueeze(-2)
    return cos_T1H, torch.cat([-sin_TK, sin_TK], dim=-1).unsqueeze(-2)


def rotate_both(q_TNH: Tensor, k_TGH: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
    """Queries and keys, rotated by the tables that `tables_of` made on their device."""
    if is_fused(q_TNH):
        return fused_rotate(q_TNH, k_TGH, *tables)
    return rotate(q_TNH, *tables), rotate(k_TGH, *tables)


def rotate(x_TNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Rotate each head in fp32; the result has x's dtype.

    H=4, a quarter turn of the pair (1, 3), none of the pair (2, 4):

        x  1 2 3 4      cos  0 1 0 1      sin  -1 0 1 0      result  -3 2 1 4

    Args:
        x_TNH: queries or keys.
        cos_T1H: cosines, the same for both halves of the head, fp32.
        sin_T1H: sines, negative in the first half and positive in the second, fp32.
    """
    if x_TNH.dtype == torch.float32:
        return _Rotate.apply(x_TNH, cos_T1H, sin_T1H)
    return _Rotate.apply(x_TNH.float(), cos_T1H, sin_T1H).to(x_TNH.dtype)
