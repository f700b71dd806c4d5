"""Attention inside segments: what each token may see, and how segments are batched."""

import pytest
import torch
from torch.nn import functional

from vl3.errors import DataError
from vl3.models.attention import Segments, attend

LENGTHS = [3, 10, 9, 1, 3, 8, 4]


def dense(q, k, v, lengths, causal):
    """The same by a mask over the whole sequence."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = owner[:, None] == owner[None]
    if causal:
        mask &= torch.ones_like(mask).tril()
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    out = functional.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), attn_mask=mask)
    return out[0].transpose(0, 1)


def draw(kv_heads=4):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    return [torch.randn(total, heads, 8, requires_grad=True) for heads in (4, kv_heads, kv_heads)]


@pytest.mark.parametrize(
    ("make", "causal", "kv_heads"),
    [
        (Segments.of_runs, False, 4),
        (Segments.of_runs, True, 2),
        (Segments.of_similar, True, 4),
        (Segments.of_similar, True, 2),
    ],
    ids=["runs", "runs causal grouped", "similar", "similar grouped"],
)
def test_attend_equals_a_dense_mask_forward_and_backward(make, causal, kv_heads):
    qkv, reference = draw(kv_heads), draw(kv_heads)
    out, expected = attend(*qkv, make(LENGTHS), causal=causal), dense(*reference, LENGTHS, causal)
    assert torch.allclose(out, expected, atol=1e-6)
    (out * torch.arange(8)).sum().backward()
    (expected * torch.arange(8)).sum().backward()
    for found, wanted in zip(qkv, reference, strict=True):
        assert torch.allclose(found.grad, wanted.grad, atol=1e-5)


def test_runs_batch_equal_neighbours_without_copies():
    segments = Segments.of_runs([16, 16, 36, 16])
    assert segments.buckets == ((2, 16), (1, 36), (1, 16))
    assert segments.gather_U is None
    assert segments.cu_seqlens.tolist() == [0, 16, 32, 68, 84]
    assert segments.max_length == 36


def test_similar_segments_share_a_bucket_within_the_padding_limit():
    segments = Segments.of_similar(LENGTHS)
    assert segments.buckets == ((3, 10), (1, 4), (2, 3), (1, 1))
    assert segments.num_tokens == sum(LENGTHS)
    packed = torch.arange(sum(LENGTHS))
    assert torch.equal(packed[segments.gather_U][segments.scatter_T], packed)


def test_equal_segments_need_no_padding():
    assert Segments.of_similar([5, 5, 5]).buckets == ((3, 5),)
    assert Segments.of_similar([5, 5, 5]).gather_U is None


def test_segments_that_miss_tokens_are_refused():
    with pytest.raises(DataError, match="segments have 37 tokens but the packed sequence has 38"):
        attend(*draw(), Segments.of_runs([37]), causal=True)
