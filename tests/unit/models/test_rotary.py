"""The rotation of queries and keys."""

import torch

from vl3.models.rotary import rotate


def tables(num_tokens, half):
    angles = torch.rand(num_tokens, 1, half, dtype=torch.float64)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def test_pairs_turn_by_their_angle():
    x = torch.tensor([[[1.0, 0.0]]])
    cos, sin = torch.tensor([[[0.6, 0.6]]]), torch.tensor([[[-0.8, 0.8]]])
    assert torch.allclose(rotate(x, cos, sin), torch.tensor([[[0.6, 0.8]]]))


def test_rotation_keeps_lengths():
    x = torch.randn(5, 3, 8)
    cos, sin = (table.float() for table in tables(5, 4))
    assert torch.allclose(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1), atol=1e-5)


def test_gradient_is_the_rotation_back():
    x = torch.randn(5, 3, 8, requires_grad=True)
    cos, sin = (table.float() for table in tables(5, 4))
    out = rotate(x, cos, sin)
    out.backward(out.detach())
    assert torch.allclose(x.grad, x.detach(), atol=1e-5)


def test_low_precision_comes_back_in_its_type():
    x = torch.randn(5, 3, 8).bfloat16()
    cos, sin = (table.float() for table in tables(5, 4))
    out = rotate(x, cos, sin)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, rotate(x.float(), cos, sin).bfloat16())
