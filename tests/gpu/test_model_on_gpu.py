"""The model on a GPU gives what it gives on CPU: flash attention over segments, the loss and its gradients."""

import numpy as np
import pytest
import torch

from tests.support.models import text_config, vision_config
from vl3.models import fused
from vl3.models.attention import Segments, attend
from vl3.models.config import VideoLlama3Config
from vl3.models.kernels import flash_kernel
from vl3.models.model import VideoLlama3

pytestmark = pytest.mark.gpu
LENGTHS = [37, 5, 64, 64, 1, 120]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(16, 16, 72), (12, 2, 128), (4, 2, 12)])
@pytest.mark.parametrize("causal", [True, False])
def test_flash_kernel_equals_the_cpu_forward_and_backward(dtype, heads, kv_heads, head_dim, causal):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    q = torch.randn(total, heads, head_dim)
    k, v = (torch.randn(total, kv_heads, head_dim) for _ in range(2))
    on_cpu = [x.to(dtype).float().requires_grad_() for x in (q, k, v)]
    on_gpu = [x.to(dtype).cuda().requires_grad_() for x in (q, k, v)]
    wanted = attend(*on_cpu, Segments.of_runs(LENGTHS), causal=causal)
    found = attend(*on_gpu, Segments.of_runs(LENGTHS, "cuda"), causal=causal)
    assert (found.float().cpu() - wanted).abs().max() < 0.03
    wanted.square().sum().backward()
    found.float().square().sum().backward()
    for ours, reference in zip(on_gpu, on_cpu, strict=True):
        assert (ours.grad.float().cpu() - reference.grad).abs().max() < 0.03 * reference.grad.abs().max()


def test_a_kernel_is_found():
    assert callable(flash_kernel())


def small_model():
    torch.manual_seed(0)
    text = text_config(
        vocab_size=96, hidden_size=128, intermediate_size=192, num_hidden_layers=2, max_position_embeddings=512
    )
    vision = vision_config(hidden_size=144, intermediate_size=192, num_hidden_layers=2)
    return VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=90))


def small_row():
    rng = np.random.default_rng(0)
    grid, merges = np.array([[3, 4, 6], [1, 4, 4]]), np.array([2, 1])
    keep = rng.random(18 + 16) < 0.7
    keep[[0, 18]] = True
    first, second = int(keep[:18].sum()), int(keep[18:].sum())
    ids = np.concatenate([[1, 2], np.full(first, 90), [3, 4, 5], [6], np.full(second, 90), [7, 8]])
    lengths = [first + 5, second + 3]
    labels = np.full(len(ids), -100)
    labels[[lengths[0] - 1, -1, -2]] = ids[[lengths[0] - 1, -1, -2]]
    return {
        "input_ids_T": ids,
        "position_ids_T": np.concatenate([np.arange(length) for length in lengths]),
        "cu_seqlens": np.cumsum([0, *lengths]),
        "pixels_PC": rng.integers(0, 256, (72 + 16, 588), dtype=np.uint8),
        "grid_thw_I3": grid,
        "merge_sizes_I": merges,
        "keep_M": keep,
        "labels_T": labels,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_loss_and_gradients_equal_the_cpus(dtype, tolerance):
    row = small_row()
    cpu, gpu = small_model(), small_model().to("cuda", dtype)
    wanted, found = cpu(**row), gpu(**row)
    assert found.num_supervised == wanted.num_supervised == 3
    assert found.loss_sum.item() == pytest.approx(wanted.loss_sum.item(), rel=tolerance)
    wanted.loss_sum.backward()
    found.loss_sum.backward()
    for (name, reference), ours in zip(cpu.named_parameters(), gpu.parameters(), strict=True):
        difference = (ours.grad.float().cpu() - reference.grad).norm() / reference.grad.norm()
        assert difference < 4 * tolerance, f"{name}: {difference:.1e}"


def test_greedy_tokens_are_the_cpus():
    from vl3.inference.batch import Decoding, Prompt

    class Media:
        row = small_row()
        pixels_PC, grid_thw_I3 = row["pixels_PC"][72:], row["grid_thw_I3"][1:]
        merge_sizes_I, keep_M = row["merge_sizes_I"][1:], np.ones(16, dtype=bool)

    ids = np.concatenate([[1], np.full(16, 90), [2, 3]])
    answers = []
    for device in ("cpu", "cuda"):
        model = small_model().eval().to(device)
        with torch.inference_mode():
            decoding = Decoding(model, [Prompt(ids_T=ids, media=Media())] * 2, 4)
            decoding.add(decoding.scores().argmax(-1).tolist())
            answers.append(decoding.scores().argmax(-1).tolist())
    assert answers[0] == answers[1]


def test_a_training_pass_never_waits_for_the_gpu():
    model = small_model().to("cuda", torch.bfloat16).train()
    model(**small_row()).loss_sum.backward()  # compiles the kernels and copies the rotary frequencies
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**small_row()).loss_sum.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_recomputation_changes_nothing_on_a_gpu(kind):
    model, row = small_model().to("cuda", torch.bfloat16).train(), small_row()
    gradients = []
    for one in ("none", kind):
        model.set_recompute(one)
        model.zero_grad()
        model(**row).loss_sum.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert (plain.float() - again.float()).norm() <= 0.01 * plain.float().norm()


def test_fused_kernels_are_used_and_give_the_eager_numbers(monkeypatch):
    assert fused.has_kernels(), "liger-kernel, triton or a C compiler is missing"
    row, results = small_row(), []
    for is_fused in (True, False):
        if not is_fused:
            for module in ("fused", "rotary"):
                monkeypatch.setattr(f"vl3.models.{module}.is_fused", lambda _: False)
        model = small_model().to("cuda", torch.bfloat16)
        loss = model(**row).loss_sum
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.float().flatten() for p in model.parameters()])))
    assert results[0][0] == pytest.approx(results[1][0], rel=0.02)
    assert (results[0][1] - results[1][1]).norm() < 0.05 * results[1][1].norm()
