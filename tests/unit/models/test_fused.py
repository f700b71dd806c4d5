"""The eager functions against their definitions, and liger-kernel's kernels against them in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from vl3.models import fused
from vl3.models.head_loss import head_loss_sum


def both_ways(functions, inputs):
    """Outputs and the inputs' gradients of each function."""
    results = []
    for function in functions:
        copies = [x.clone().requires_grad_() for x in inputs]
        outputs = function(*[x * 1 for x in copies])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        sum((out * torch.linspace(-1, 1, out.shape[-1])).sum() for out in outputs).backward()
        results.append([*(out.detach() for out in outputs), *(x.grad for x in copies)])
    return results


def plain_norm(x, weight, eps=1e-6):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return weight * (x.float() * scale).to(x.dtype)


def test_norm_is_the_plain_formula_with_its_gradients():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 5, 48), torch.randn(48)]
    ours, wanted = both_ways([lambda x, w: fused.rms_norm(x, w, 1e-6), plain_norm], inputs)
    for found, expected in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_norm_in_bf16_is_computed_in_fp32():
    torch.manual_seed(0)
    x, weight = torch.randn(7, 256).bfloat16(), torch.randn(256).bfloat16()
    assert torch.equal(fused.rms_norm(x, weight, 1e-6), plain_norm(x, weight))


def test_norm_in_bf16_has_the_gradients_of_fp32():
    torch.manual_seed(0)
    x, weight = torch.randn(64, 256).bfloat16(), torch.randn(256).bfloat16()
    low = [value.clone().requires_grad_() for value in (x, weight)]
    high = [value.float().requires_grad_() for value in (x, weight)]
    fused.rms_norm(*low, 1e-6).float().square().sum().backward()
    plain_norm(*high).square().sum().backward()
    for found, expected in zip(low, high, strict=True):
        assert found.grad.dtype == torch.bfloat16
        assert (found.grad.float() - expected.grad).norm() < 0.01 * expected.grad.norm()


def test_a_frozen_norm_gets_no_gradient():
    x, weight = torch.randn(3, 8, requires_grad=True), torch.ones(8)
    fused.rms_norm(x, weight, 1e-6).sum().backward()
    assert weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("with_gradient", [True, False])
def test_cross_entropy_is_torchs(with_gradient):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 90) * 4, torch.randint(0, 90, (6,))
    reference = logits.clone().requires_grad_()
    wanted = functional.cross_entropy(reference, targets, reduction="sum")
    wanted.backward()
    work = logits.clone()
    assert fused.cross_entropy_sum(work, targets, with_gradient=with_gradient).item() == pytest.approx(
        wanted.item(), rel=1e-5
    )
    torch.testing.assert_close(work, reference.grad if with_gradient else logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)], ids=["both", "hidden", "head"])
def test_head_loss_is_cross_entropy_of_the_logits(monkeypatch, needs):
    monkeypatch.setattr("vl3.models.head_loss.chunk_tokens", lambda *_: 3)
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(8, 16), torch.randn(30, 16), torch.randint(0, 30, (8,))
    ours = [x.clone().requires_grad_(needed) for x, needed in zip((hidden, weight), needs, strict=True)]
    plain = [x.clone().requires_grad_() for x in (hidden, weight)]
    loss = head_loss_sum(*ours, targets)
    wanted = functional.cross_entropy(plain[0] @ plain[1].T, targets, reduction="sum")
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    (loss * 0.25).backward()
    (wanted * 0.25).backward()
    for found, expected, needed in zip(ours, plain, needs, strict=True):
        if needed:
            torch.testing.assert_close(found.grad, expected.grad, atol=1e-6, rtol=1e-5)
        else:
            assert found.grad is None


def test_head_loss_in_bf16_scales_its_gradients_in_fp32():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(8, 16), torch.randn(30, 16), torch.randint(0, 30, (8,))
    gradients = []
    for factor in (1.0, 1.0035):  # bf16 rounds 1.0035 to 1
        low = [x.bfloat16().requires_grad_() for x in (hidden, weight)]
        (head_loss_sum(*low, targets) * factor).backward()
        gradients.append(torch.cat([x.grad.flatten() for x in low]))
    assert torch.equal(gradients[1], (gradients[0].float() * 1.0035).bfloat16())
    assert not torch.equal(gradients[1], gradients[0])


def test_head_loss_of_no_tokens_is_zero():
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = head_loss_sum(hidden, weight, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not weight.grad.any()


def test_kernels_give_the_eager_numbers_in_tritons_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    file = Path(__file__).with_name("interpreted_kernels.py")
    # A process of its own: Triton decides when it is imported whether it interprets.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "9 passed" in done.stdout
