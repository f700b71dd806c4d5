"""liger-kernel's kernels on CPU, in Triton's interpreter: run by test_fused.py in a process that chose it."""

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from vl3.models import fused
from vl3.models.rotary import rotate, tables_of


@pytest.fixture(autouse=True)
def what_a_device_gives(monkeypatch):
    """Two things that the interpreter lacks: floats as fp32 (it leaves Python's, without `.to`), CUDA's own rsqrt."""
    convert = interpreter._implicit_cvt

    def converted(argument):
        if isinstance(argument, float):
            return tl.tensor(interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)
        return convert(argument)

    monkeypatch.setattr(interpreter, "_implicit_cvt", converted)
    monkeypatch.setattr("liger_kernel.ops.rms_norm.rsqrt", lambda x: tl.math.rsqrt(x))


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


@pytest.mark.parametrize("width", [40, 300])
def test_norm_kernel_gives_the_eager_numbers(width):
    torch.manual_seed(0)
    inputs = [torch.randn(6, width), torch.randn(width)]
    ours, wanted = both_ways(
        [lambda x, w: fused.fused_rms_norm(x, w, 1e-6), lambda x, w: fused.rms_norm(x, w, 1e-6)], inputs
    )
    for found, expected in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_swiglu_kernel_gives_the_eager_numbers():
    torch.manual_seed(0)
    ours, wanted = both_ways([fused.fused_swiglu, fused.swiglu], [torch.randn(5, 72), torch.randn(5, 72)])
    for found, expected in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads", "half"), [(4, 2, 8), (16, 16, 36)], ids=["decoder", "encoder"])
@pytest.mark.parametrize("rows", [None, 2], ids=["packed", "rows"])
def test_rotation_kernel_gives_the_eager_numbers_and_leaves_its_inputs(heads, kv_heads, half, rows):
    torch.manual_seed(0)
    shape = (7,) if rows is None else (rows, 7)
    q, k = torch.randn(*shape, heads, 2 * half), torch.randn(*shape, kv_heads, 2 * half)
    angles = torch.rand(*shape, half) * 6
    before = q.clone()

    def by_kernel(q, k):
        return fused.fused_rotate(q, k, angles.cos(), angles.sin())

    def eager(q, k):
        return rotate(q, *tables_of(angles)), rotate(k, *tables_of(angles))

    ours, wanted = both_ways([by_kernel, eager], [q, k])
    assert torch.equal(q, before)
    for found, expected in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_cross_entropy_kernel_gives_the_eager_numbers(with_gradient):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 90) * 4, torch.randint(0, 90, (6,))
    eager, kernel = logits.clone(), logits.clone()
    wanted = fused.cross_entropy_sum(eager, targets, with_gradient=with_gradient)
    found = fused.fused_cross_entropy_sum(kernel, targets, with_gradient=with_gradient)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(kernel, eager, atol=1e-5, rtol=1e-4)
