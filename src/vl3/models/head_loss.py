"""The head's loss in chunks of tokens, whose gradients are computed in the same pass.

152k words x 16k tokens are 10 GB of logits, in fp32. Here one chunk of them exists at a time: its gradient overwrites
it and is multiplied into the gradients of hidden states and head at once, so that backward only scales them. Three
matrix products instead of the four that recomputing the logits in backward takes.

liger-kernel's fused linear cross entropy does the same in chunks of 64 tokens at this vocabulary (it bounds a chunk by
the size of the hidden states), each of which reads and writes the head's whole gradient, and counts the targets with
`.item()`. Chunks of 2048 are 0.6 GB in bf16 and keep the products large.

Shapes: T supervised tokens · D text dim · W vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from vl3.models.fused import cross_entropy_sum

GPU_CHUNK_TOKENS = 2048
"""Tokens whose logits are in memory at once on a GPU."""
CPU_CHUNK_NUMBERS = 1 << 22
"""Logits that are in memory at once on CPU: 16 MiB, of which the caches hold a part."""
_MIN_CHUNK_TOKENS = 64
_SCALED_ROWS = 1 << 14
"""Rows of a gradient that are scaled at once, in fp32."""


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, weight_WD: Tensor, targets_T: Tensor) -> Tensor:
        needs_hidden, needs_weight, _ = ctx.needs_input_grad
        grad_hidden_TD = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight_WD = torch.zeros_like(weight_WD) if needs_weight else None
        losses = [torch.zeros((), dtype=torch.float32, device=hidden_TD.device)]
        size = chunk_tokens(hidden_TD.device, weight_WD.shape[0])
        for first in range(0, len(hidden_TD), size):
            part_TD, targets = hidden_TD[first : first + size], targets_T[first : first + size]
            logits_TW = part_TD @ weight_WD.T
            losses.append(cross_entropy_sum(logits_TW, targets, with_gradient=needs_hidden or needs_weight))
            if grad_hidden_TD is not None:
                torch.mm(logits_TW, weight_WD, out=grad_hidden_TD[first : first + size])
            if grad_weight_WD is not None:
                grad_weight_WD.addmm_(logits_TW.T, part_TD)
        ctx.save_for_backward(*(x for x in (grad_hidden_TD, grad_weight_WD) if x is not None))
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        saved = iter(ctx.saved_tensors)
        hidden, weight = ((next(saved) if needed else None) for needed in ctx.needs_input_grad[:2])
        for gradient in (hidden, weight):
            for part in gradient.split(_SCALED_ROWS) if gradient is not None else ():
                part.copy_(part.float() * grad)  # `mul_` would round the factor to bf16: .2 % of every gradient
        return hidden, weight, None


def head_loss_sum(hidden_TD: Tensor, weight_WD: Tensor, targets_T: Tensor) -> Tensor:
    """Sum of the cross entropy of `hidden @ weight.T` against the targets, fp32. Backward can run once.

    Args:
        hidden_TD: final hidden states of the tokens that predict the targets.
        weight_WD: the head, in the same dtype.
        targets_T: ids of the next tokens, all within the vocabulary.
    """
    return _HeadLoss.apply(hidden_TD, weight_WD, targets_T)


def chunk_tokens(device: torch.device, vocab_size: int) -> int:
    """Tokens of a chunk: 2048 on a GPU; on CPU 128 of 32k words, 1024 of 4k."""
    if device.type != "cpu":
        return GPU_CHUNK_TOKENS
    return max(_MIN_CHUNK_TOKENS, CPU_CHUNK_NUMBERS // vocab_size)
