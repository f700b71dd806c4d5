"""Attention inside the segments of one packed sequence.

A packed sequence has many short segments (a frame, a sample) end to end; a token attends only within its own segment.
No mask over the whole sequence is built: on CPU, segments of equal or similar length are batched for torch's scaled dot
product attention; on a GPU a variable-length flash kernel takes the packed tensors directly.

Shapes: T packed tokens · U packed tokens plus the padding of the buckets · S segments · N heads · G key-value heads ·
H head dim.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vl3.errors import DataError
from vl3.models.kernels import flash_kernel
from vl3.models.placing import copy_to

_MAX_PADDING = 1.25
"""Longest segment of a bucket, as a multiple of its shortest."""


@dataclass(frozen=True, slots=True)
class Segments:
    """How a packed sequence is divided into segments; made once per forward pass and used by every layer."""

    num_tokens: int
    """Length of the packed sequence."""
    buckets: tuple[tuple[int, int], ...]
    """(segments, tokens of each) for each batched attention call, in the order of the (padded) sequence."""
    gather_U: Tensor | None
    """Packed index that each position of the padded sequence copies; None if buckets are views of the sequence."""
    scatter_T: Tensor | None
    """Position of each packed token in the padded sequence; None if buckets are views of the sequence."""
    cu_seqlens: Tensor
    """First token of each segment, and the end, int32: lengths 16, 16, 36 give 0 16 32 68."""
    max_length: int
    """Tokens of the longest segment."""

    @classmethod
    def of_runs(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Segments":
        """Neighbouring segments of equal length share a bucket, as a view: `[16, 16, 36]` -> (2, 16), (1, 36)."""
        runs: list[list[int]] = []
        for length in lengths:
            if runs and runs[-1][1] == length:
                runs[-1][0] += 1
            else:
                runs.append([1, length])
        return cls._build(lengths, tuple((count, length) for count, length in runs), None, None, device)

    @classmethod
    def of_similar(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> "Segments":
        """Segments of similar length share a bucket and are padded to its longest, by at most a quarter.

        Only for causal attention, where padding on the right does not affect the tokens before it.
        """
        if len(set(lengths)) <= 1 or torch.device(device).type != "cpu":
            return cls.of_runs(lengths, device)
        buckets, gather_U, scatter_T = _bucket(np.asarray(lengths))
        return cls._build(lengths, buckets, torch.from_numpy(gather_U), torch.from_numpy(scatter_T), device)

    def groups(self, max_tokens: int, borders: Collection[int] = ()) -> Iterator[tuple[int, int, "Segments"]]:
        """Whole segments in groups of at most max_tokens (at least one segment): first token, end, and the segments.

        A group never crosses a border; borders are first tokens of segments. Lengths 16, 16, 16 with max_tokens=40 give
        the groups 0 to 32 and 32 to 48; with a border at 16 they give 0 to 16 and 16 to 48.
        """
        start = stop = 0
        group: list[int] = []
        for length in self.cu_seqlens.diff().tolist():
            if group and (stop - start + length > max_tokens or stop in borders):
                yield start, stop, Segments.of_runs(group, self.cu_seqlens.device)
                start, group = stop, []
            group.append(length)
            stop += length
        if group:
            yield start, stop, Segments.of_runs(group, self.cu_seqlens.device)

    @classmethod
    def _build(
        cls,
        lengths: Sequence[int],
        buckets: tuple[tuple[int, int], ...],
        gather_U: Tensor | None,
        scatter_T: Tensor | None,
        device: torch.device | str,
    ) -> "Segments":
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return cls(
            num_tokens=int(cu_seqlens[-1]),
            buckets=buckets,
            gather_U=gather_U,
            scatter_T=scatter_T,
            cu_seqlens=copy_to(cu_seqlens, device),
            max_length=int(max(lengths, default=0)),
        )


def _bucket(lengths_S: np.ndarray) -> tuple[tuple[tuple[int, int], ...], np.ndarray, np.ndarray]:
    """Buckets, gather and scatter indexes of segments sorted by length (longest first).

    Lengths 1, 5, 4, so the packed tokens are 0 | 1 to 5 | 6 to 9. The segment of 4 shares a bucket with that of 5:

        buckets (2, 5), (1, 1)      gather 1 2 3 4 5 | 6 7 8 9 9 | 0      (token 9 twice: padding)
        scatter 10 0 1 2 3 4 5 6 7 8, where each packed token is in gather
    """
    order = np.argsort(-lengths_S, kind="stable")
    starts_S = np.cumsum(lengths_S) - lengths_S
    buckets: list[list[int]] = []
    for segment in order:
        length = int(lengths_S[segment])
        if buckets and buckets[-1][1] <= _MAX_PADDING * length:
            buckets[-1][0] += 1
        else:
            buckets.append([1, length])
    padded_S = np.concatenate([np.full(count, length) for count, length in buckets])
    within_U = np.arange(padded_S.sum()) - np.repeat(np.cumsum(padded_S) - padded_S, padded_S)
    # Padding repeats the segment's last token: the values are finite, and their results and gradients are not used.
    gather_U = np.repeat(starts_S[order], padded_S) + np.minimum(within_U, np.repeat(lengths_S[order] - 1, padded_S))
    scatter_T = np.empty(int(lengths_S.sum()), dtype=np.int64)
    real_U = within_U < np.repeat(lengths_S[order], padded_S)
    scatter_T[gather_U[real_U]] = np.flatnonzero(real_U)
    return tuple((count, length) for count, length in buckets), gather_U, scatter_T


class _Spread(torch.autograd.Function):
    """Packed tokens to padded buckets. Copies made for padding have zero gradient, so backward sums nothing."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, gather_U: Tensor, scatter_T: Tensor) -> Tensor:
        ctx.save_for_backward(scatter_T)
        return packed.index_select(0, gather_U)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Collect(torch.autograd.Function):
    """Padded buckets to packed tokens. Each position is read at most once, so the gradient is a plain copy."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, scatter_T: Tensor) -> Tensor:
        ctx.save_for_backward(scatter_T)
        ctx.num_padded = padded.shape[0]
        return padded.index_select(0, scatter_T)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        padded = grad.new_zeros((ctx.num_padded, *grad.shape[1:]))
        return padded.index_copy_(0, ctx.saved_tensors[0], grad), None


def attend(
    q_TNH: Tensor, k_TGH: Tensor, v_TGH: Tensor, segments: Segments, *, causal: bool, scale: float | None = None
) -> Tensor:
    """Attention of each token to its own segment, output (T, N, H).

    Raises:
        DataError: the segments do not add up to the number of tokens; attention would leak between samples.
    """
    if segments.num_tokens != q_TNH.shape[0]:
        raise DataError(
            f"the segments have {segments.num_tokens} tokens but the packed sequence has {q_TNH.shape[0]}. Samples "
            "would see each other's tokens. Make cu_seqlens from the same samples as the tokens."
        )
    if q_TNH.is_cuda and q_TNH.dtype in (torch.float16, torch.bfloat16):
        ends, longest = segments.cu_seqlens, segments.max_length
        return flash_kernel()(q_TNH, k_TGH, v_TGH, ends, longest, causal=causal, scale=scale)
    return _attend_buckets(q_TNH, k_TGH, v_TGH, segments, causal=causal, scale=scale)


def _attend_buckets(
    q_TNH: Tensor, k_TGH: Tensor, v_TGH: Tensor, segments: Segments, *, causal: bool, scale: float | None
) -> Tensor:
    if segments.gather_U is not None:
        q_TNH, k_TGH, v_TGH = (_Spread.apply(x, segments.gather_U, segments.scatter_T) for x in (q_TNH, k_TGH, v_TGH))
    sizes = [count * length for count, length in segments.buckets]
    outputs = []
    for (count, length), q, k, v in zip(
        segments.buckets, q_TNH.split(sizes), k_TGH.split(sizes), v_TGH.split(sizes), strict=True
    ):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    out_UNH = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out_UNH if segments.scatter_T is None else _Collect.apply(out_UNH, segments.scatter_T)
