"""Norm, rotation, SwiGLU and cross entropy as one kernel each on a GPU (liger-kernel's, in Triton), eager elsewhere.

A GPU that runs these operation by operation spends a quarter of a training step on moving their results through memory.
Each function here picks by device; both ways give the same numbers within the precision of the type
(tests/unit/models/test_fused.py runs the kernels in Triton's interpreter, tests/gpu on a device).

Shapes: T tokens or patches · D width · F inner width · N heads · G key-value heads · H head dim · K half of a head ·
W vocabulary. A leading T may stand for rows of tokens (B, Q).
"""

import logging
import shutil
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger("vl3.models")


@cache
def has_kernels() -> bool:
    """Whether the kernels are installed; without them a GPU computes the same, but slower, and that is logged once."""
    missing = [name for name in ("triton", "liger_kernel") if find_spec(name) is None]
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        missing.append("a C compiler")
    if missing:
        log.warning(
            "%s not installed: norms, rotations, SwiGLU and the head's loss run without fused kernels on this GPU, "
            "which costs about a quarter of a step. Install liger-kernel with triton, gcc and Python's headers.",
            " and ".join(missing),
        )
    return not missing


def is_fused(tensor: Tensor) -> bool:
    """Whether this tensor's operations run as fused kernels."""
    return tensor.is_cuda and has_kernels()


class _RmsNorm(torch.autograd.Function):
    """RMSNorm that keeps only its input and one number per token for backward.

    With x = 3 4, weight 1 1 and eps 0: mean square 12.5, so 1 / root mean square is .2828 and the result .849 1.131.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x32_TD = x_TD.float()
        scale_T1 = torch.linalg.vector_norm(x32_TD, dim=-1, keepdim=True).square_()
        scale_T1 = scale_T1.div_(x_TD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_TD, weight_D, scale_T1)
        return (x32_TD * scale_T1).to(x_TD.dtype).mul_(weight_D)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x_TD, weight_D, scale_T1 = ctx.saved_tensors
        normed_TD = x_TD.float() * scale_T1
        grad_D = None
        if ctx.needs_input_grad[1]:
            grad_D = (grad_TD * normed_TD).flatten(0, -2).sum(0).to(weight_D.dtype)
        # Along x itself the norm cancels every change: that part of the gradient is taken away.
        scaled_TD = grad_TD.float() * weight_D
        along_T1 = torch.linalg.vecdot(scaled_TD, normed_TD).unsqueeze(-1).div_(x_TD.shape[-1])
        return scaled_TD.addcmul_(normed_TD, along_T1, value=-1).mul_(scale_T1).to(x_TD.dtype), grad_D, None


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Each vector divided by its root mean square (in fp32), rounded to its dtype, times the weight."""
    if is_fused(x_TD):
        return fused_rms_norm(x_TD, weight_D, eps)
    return _RmsNorm.apply(x_TD, weight_D, eps)


def fused_rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """`rms_norm` as one kernel. Not in place: the gradient that it gets may be the residual's as well."""
    from liger_kernel.ops.rms_norm import LigerRMSNormFunction  # here: importing it takes seconds

    return LigerRMSNormFunction.apply(x_TD, weight_D, eps, 0.0, "llama", False)


def swiglu(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """silu(gate) * up."""
    if is_fused(gate_TF):
        return fused_swiglu(gate_TF, up_TF)
    return functional.silu(gate_TF) * up_TF


def fused_swiglu(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """`swiglu` as one kernel. Backward writes over its inputs, so it can run once."""
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    return LigerSiLUMulFunction.apply(gate_TF, up_TF)


def fused_rotate(q_TNH: Tensor, k_TGH: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated by one kernel, in fp32 inside. See `vl3.models.rotary.rotate_both`.

    The kernel works in place, and recomputation keeps the outputs of matrix products, of which queries and keys are
    one: it gets copies, or they would be rotated twice.
    """
    from liger_kernel.ops.rope import LigerRopeFunction

    is_packed = q_TNH.dim() == 3
    if is_packed:
        q_TNH, k_TGH, cos_TK, sin_TK = (x.unsqueeze(0) for x in (q_TNH, k_TGH, cos_TK, sin_TK))
    copies = (x.clone(memory_format=torch.contiguous_format).transpose(1, 2) for x in (q_TNH, k_TGH))
    turned = LigerRopeFunction.apply(*copies, cos_TK, sin_TK, None, 1, q_TNH.shape[-1])
    q, k = (x.transpose(1, 2) for x in turned)
    return (q.squeeze(0), k.squeeze(0)) if is_packed else (q, k)


def cross_entropy_sum(logits_TW: Tensor, targets_T: Tensor, *, with_gradient: bool) -> Tensor:
    """Sum of the cross entropy, fp32. With a gradient, the logits are overwritten by the sum's gradient.

    Logits 0 0 with target 0: the loss is log 2 = .693, and the logits become -.5 .5.
    """
    if is_fused(logits_TW):
        return fused_cross_entropy_sum(logits_TW, targets_T, with_gradient=with_gradient)
    target_T1 = targets_T.unsqueeze(1)
    scores_TW = logits_TW.float()  # the same memory if it is fp32
    total_T1 = scores_TW.logsumexp(-1, keepdim=True)
    loss = (total_T1 - scores_TW.gather(1, target_T1)).sum()
    if with_gradient:
        scores_TW.sub_(total_T1).exp_().scatter_add_(1, target_T1, torch.full_like(total_T1, -1))
        if logits_TW.dtype != torch.float32:
            logits_TW.copy_(scores_TW)
    return loss


def fused_cross_entropy_sum(logits_TW: Tensor, targets_T: Tensor, *, with_gradient: bool) -> Tensor:
    """`cross_entropy_sum` as one kernel.

    Liger's own functions around the kernel count the targets with `.item()`, which would make the CPU wait for the GPU
    in every chunk; the kernel needs the count only for a mean.
    """
    from liger_kernel.ops import cross_entropy as ops

    rows, width = logits_TW.shape
    loss_T = torch.zeros(rows, dtype=torch.float32, device=logits_TW.device)
    ops.liger_cross_entropy_kernel[(rows,)](
        X_ptr=logits_TW,
        X_stride=logits_TW.stride(-2),
        Y_ptr=targets_T,
        Y_stride=targets_T.stride(-1),
        weight_ptr=None,
        loss_ptr=loss_T,
        z_loss_ptr=None,
        loss_stride=loss_T.stride(-1),
        token_accuracy_ptr=None,
        token_accuracy_stride=0,
        predicted_tokens_ptr=None,
        predicted_tokens_stride=0,
        n_cols=width,
        n_non_ignore=rows,
        sum_non_ignore_weight=rows,
        weight_sum=0.0,
        ignore_index=-100,
        lse_square_scale=0.0,
        label_smoothing=0.0,
        reduction="sum",
        softcap=None,
        RETURN_Z_LOSS=False,
        RETURN_TOKEN_ACCURACY=False,
        RETURN_PREDICTED_TOKENS=False,
        BLOCK_SIZE=min(ops.MAX_FUSED_SIZE, 1 << (width - 1).bit_length()),
        HAS_WEIGHT=False,
        HAS_SOFTCAPPING=False,
        HAS_GRADIENTS=with_gradient,
        num_warps=32,
    )
    return loss_T.sum()
