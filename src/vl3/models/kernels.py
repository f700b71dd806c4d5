"""The variable-length flash kernels of a GPU behind one call: the flash-attn package if installed, else torch's own.

Shapes: T packed tokens · S segments · N heads · G key-value heads · H head dim.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Protocol, cast

from torch import Tensor
from torch.nn import functional


class FlashKernel(Protocol):
    """Attention inside the segments of packed fp16 or bf16 tensors on a GPU."""

    def __call__(
        self,
        q_TNH: Tensor,
        k_TGH: Tensor,
        v_TGH: Tensor,
        cu_seqlens: Tensor,
        max_length: int,
        *,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        """Output (T, N, H); cu_seqlens (S + 1) is the first token of each segment, and the end, int32, on the GPU."""


@cache
def flash_kernel() -> FlashKernel:
    """The fastest kernel that is installed."""
    if find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        return partial(with_flash_attn, flash_attn_varlen_func)
    from torch.nn.attention.varlen import varlen_attn

    # Without `return_aux` it returns only the output.
    return partial(with_varlen_attn, cast("Callable[..., Tensor]", varlen_attn))


@cache
def _parameters(function: Callable[..., Tensor]) -> frozenset[str]:
    """Names of a function's parameters; looked up once, because a row calls its kernel 55 times."""
    return frozenset(inspect.signature(function).parameters)


def with_flash_attn(
    function: Callable[..., Tensor],
    q_TNH: Tensor,
    k_TGH: Tensor,
    v_TGH: Tensor,
    cu_seqlens: Tensor,
    max_length: int,
    *,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Call `flash_attn_varlen_func`, whose queries may have more heads than its keys."""
    borders = (cu_seqlens, cu_seqlens, max_length, max_length)
    return function(q_TNH, k_TGH, v_TGH, *borders, softmax_scale=scale, causal=causal)


def with_varlen_attn(
    function: Callable[..., Tensor],
    q_TNH: Tensor,
    k_TGH: Tensor,
    v_TGH: Tensor,
    cu_seqlens: Tensor,
    max_length: int,
    *,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Call torch's `varlen_attn`: torch 2.10 has is_causal; later versions have window_size, then enable_gqa.

    Heads are padded to a multiple of 8, which the kernel requires, and keys are repeated if it cannot do so itself.
    With H=14 two zeros are appended, which leaves q·k unchanged; a kernel without `scale` would then divide by
    sqrt(16), so the queries are multiplied by sqrt(16 / 14) first.
    """
    accepted = _parameters(function)
    arguments: dict[str, Any] = {}
    if "window_size" in accepted:
        arguments["window_size"] = (-1, 0) if causal else (-1, -1)
    else:
        arguments["is_causal"] = causal
    repeats = q_TNH.shape[1] // k_TGH.shape[1]
    if repeats > 1 and "enable_gqa" in accepted:
        arguments["enable_gqa"] = True
    elif repeats > 1:
        k_TGH, v_TGH = (x.repeat_interleave(repeats, dim=1) for x in (k_TGH, v_TGH))
    head_dim = q_TNH.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if "scale" in accepted:
        arguments["scale"] = scale
    elif scale != (default := (head_dim + -head_dim % 8) ** -0.5):
        q_TNH = q_TNH * (scale / default)
    if head_dim % 8:
        q_TNH, k_TGH, v_TGH = (functional.pad(x, (0, -head_dim % 8)) for x in (q_TNH, k_TGH, v_TGH))
    output = function(q_TNH, k_TGH, v_TGH, cu_seqlens, cu_seqlens, max_length, max_length, **arguments)
    return output[..., :head_dim]
