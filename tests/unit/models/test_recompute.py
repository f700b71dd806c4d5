"""What each kind of recomputation keeps and what it computes twice."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.models import text_config
from vl3.models.attention import Segments
from vl3.models.decoder import Decoder, Reach
from vl3.models.recompute import is_kept, run_block


class Counted(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = str(operation)
        self.counts[name] = self.counts.get(name, 0) + 1
        return operation(*args, **(kwargs or {}))


def counts_of(kind):
    """Operations of one training pass, and the bytes that autograd holds at its end."""
    torch.manual_seed(0)
    decoder = Decoder(text_config(num_hidden_layers=2)).train()
    decoder.recompute = kind
    inputs = torch.randn(9, decoder.embed_tokens.embedding_dim, requires_grad=True)
    with Counted() as counted:
        decoder(inputs, torch.arange(9), Reach(segments=Segments.of_runs([9]))).sum().backward()
    products = sum(count for name, count in counted.counts.items() if "mm.default" in name)
    attention = sum(count for name, count in counted.counts.items() if "attention" in name and "backward" not in name)
    return products, attention, counted.counts["aten.silu.default"]


def test_selective_repeats_no_product_and_no_attention_and_full_repeats_both():
    plain, selective, full = (counts_of(kind) for kind in ("none", "selective", "full"))
    assert selective[:2] == plain[:2]
    assert selective[2] == 2 * plain[2]
    # Of the 7 products of a block the last, down_proj, is not repeated: backward reads no output of it.
    assert full == (plain[0] + 2 * 6, 2 * plain[1], 2 * plain[2])


def held_bytes(kind):
    """Memory of everything that backward finds kept of one block."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.SiLU(), nn.SiLU(), nn.Linear(256, 64))
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_block(block, kind, torch.randn(32, 64, requires_grad=True)).sum()
    return sum(kept.values())


def test_recomputation_keeps_less():
    assert held_bytes("none") > 3 * 32 * 256 * 4
    assert held_bytes("full") < held_bytes("none") / 2


def test_attention_of_every_kernel_is_kept():
    assert is_kept(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default)
    assert is_kept(torch.ops.aten._flash_attention_forward.default)
    assert is_kept("flash_attn._flash_attn_varlen_forward.default")
    assert is_kept("torch_attn._varlen_attn.default")
    assert not is_kept(torch.ops.aten.silu.default)


def test_without_gradients_a_block_just_runs(monkeypatch):
    monkeypatch.setattr("torch.utils.checkpoint.checkpoint", None)
    with torch.no_grad():
        assert run_block(nn.Identity(), "full", torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_dropout_draws_the_same_numbers_twice(kind):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    gradients = []
    for one in ("none", kind):
        block.zero_grad()
        torch.manual_seed(3)
        run_block(block, one, torch.ones(4, 8, requires_grad=True)).sum().backward()
        gradients.append(block[0].weight.grad.clone())
    assert torch.equal(*gradients)
