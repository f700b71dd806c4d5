"""Rotation of queries and keys by rotary position tables, in one pass forward and one pass backward.

Shapes: T packed tokens · N heads · H head dim. Element j of a head pairs with element j + H/2.
"""

from typing import Any

import torch
from torch import Tensor


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
