"""The GPU kernels are called rightly under every signature they have had; stand-ins with them compute on CPU."""

import pytest
import torch
from torch.nn import functional

from vl3.models.attention import Segments, attend
from vl3.models.kernels import with_flash_attn, with_varlen_attn

LENGTHS = [3, 7, 1, 5]


def reference(q, k, v, cu_seqlens, *, causal, scale):
    assert q.shape[1] == k.shape[1], "this kernel does not repeat keys"
    outputs = []
    for start, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        parts = (x[start:stop].transpose(0, 1) for x in (q, k, v))
        outputs.append(functional.scaled_dot_product_attention(*parts, is_causal=causal, scale=scale).transpose(0, 1))
    return torch.cat(outputs)


def torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    assert query.shape[-1] % 8 == 0
    return reference(query, key, value, cu_seq_q, causal=is_causal, scale=None)


def torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
):
    assert query.shape[-1] % 8 == 0
    return reference(query, key, value, cu_seq_q, causal=window_size == (-1, 0), scale=scale)


def torch_2_13(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    assert enable_gqa == (query.shape[1] != key.shape[1])
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    return torch_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


def flash_attn_2(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, **options):
    repeats = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
    assert max_seqlen_q == max_seqlen_k == max(LENGTHS)
    return reference(q, k, v, cu_seqlens_q, causal=options["causal"], scale=options["softmax_scale"])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("head_dim", [16, 12])
@pytest.mark.parametrize(
    ("adapter", "function"),
    [
        (with_varlen_attn, torch_2_10),
        (with_varlen_attn, torch_2_11),
        (with_varlen_attn, torch_2_13),
        (with_flash_attn, flash_attn_2),
    ],
    ids=["torch 2.10", "torch 2.11", "torch 2.13", "flash-attn"],
)
def test_kernels_compute_what_the_cpu_computes(adapter, function, head_dim, scale, causal):
    torch.manual_seed(0)
    segments = Segments.of_runs(LENGTHS)
    q = torch.randn(sum(LENGTHS), 4, head_dim)
    k, v = (torch.randn(sum(LENGTHS), 2, head_dim) for _ in range(2))
    wanted = attend(q, k, v, segments, causal=causal, scale=scale)
    found = adapter(function, q, k, v, segments.cu_seqlens, segments.max_length, causal=causal, scale=scale)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=1e-5)


def test_the_installed_torch_has_a_signature_that_is_known():
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    accepted = set(inspect.signature(varlen_attn).parameters)
    assert {"window_size", "is_causal"} & accepted
    assert list(inspect.signature(varlen_attn).parameters)[:7] == list(inspect.signature(torch_2_13).parameters)[:7]
