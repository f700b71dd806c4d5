"""Training steps on a GPU against transformers' Trainer: `python -m benchmarks.train_gpu` (ten minutes on an H200).

A 2B model with random weights on rows as stage 2 (images) and stage 4 (videos) have them. A step is a forward and a
backward pass over a row, clipping and AdamW, on one device and without DeepSpeed, which a measurement of the model does
not need. MFU counts only the FLOPs that the stage needs, by the formula of `vl3.planning.flops`, against a large matmul
of the same run. `--size small --device cpu` tries the script where there is no GPU; its numbers say nothing about one.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.model_gpu import RELEASED, SMALL, Sample, Size, make_models, make_samples, matmul_flops, their_batch
from benchmarks.record import write_result
from benchmarks.trained_rows import WARM_UP_STEPS, packed_row, shape_of, sizes_of, their_packed, trainer_seconds
from vl3.models.model import VideoLlama3
from vl3.models.placing import copy_to
from vl3.planning.flops import row_flops
from vl3.planning.parameters import TrainedParts

AIMS = {"stage 2": 0.45, "stage 4": 0.40}
"""MFU to be reached on images and on videos."""
_ALL = TrainedParts(vision=True, projector=True, language=True)
_KINDS = {"stage 2": "image", "stage 4": "video"}
_RECOMPUTE = ("none", "selective", "full")


def row_of(size: Size, stage: str, *, is_small: bool) -> list[Sample]:
    """The samples of a row: as many as the limit of 10,240 vision tokens allows."""
    if is_small:
        return make_samples(size, _KINDS[stage], np.random.default_rng(0))
    images = size.images + tuple(reversed(size.images))  # 16 images of about 750 patches
    row = replace(size, images=images[:13], video=(32, 24, 24, 2), video_samples=2)
    return make_samples(row, _KINDS[stage], np.random.default_rng(0))


def our_seconds(model: VideoLlama3, samples: Sequence[Sample], device: torch.device, steps: int) -> float:
    """Seconds of a training step of ours."""
    row, optimizer = packed_row(samples), torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    names = ("input_ids_T", "position_ids_T", "cu_seqlens", "grid_thw_I3", "merge_sizes_I", "keep_M", "labels_T")
    inputs: dict[str, Any] = {name: getattr(row, name) for name in names}
    pixels = torch.from_numpy(row.pixels_PC)
    pixels = pixels.pin_memory() if device.type == "cuda" else pixels

    def step() -> None:
        loss = model(**inputs, pixels_PC=copy_to(pixels, device)).loss_sum / row.supervised_tokens
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model.train()
    return _mean_seconds(step, device, steps)


def _mean_seconds(step: Callable[[], None], device: torch.device, steps: int) -> float:
    for _ in range(WARM_UP_STEPS):
        step()
    _wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return (time.perf_counter() - started) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(call: Callable[[], float], device: torch.device) -> tuple[float | None, str]:
    """Seconds and peak GiB of a call; None and the reason if it does not fit."""
    gc.collect()
    if device.type != "cuda":
        return call(), "-"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        seconds = call()
    except torch.cuda.OutOfMemoryError:
        return None, "out of memory"
    return seconds, f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}"


def stage_rows(stage: str, size: Size, device: torch.device, dtype: torch.dtype, options: Any) -> list[list[str]]:
    """Ours under each recomputation, and transformers' Trainer padded and packed, on one row."""
    samples = row_of(size, stage, is_small=options.size == "small")
    tokens = sum(len(sample.ids_T) for sample in samples)
    needed = row_flops(sizes_of(size), _ALL, [shape_of(samples)]).needed
    speed = matmul_flops(size, device, dtype, 5)
    print(
        f"{stage}: {len(samples)} samples, {tokens} tokens, {needed / 1e12:.3f} TFLOP; matmul {speed / 1e12:.1f} TF/s"
    )
    found: list[tuple[str, str, float | None, str]] = []
    ours, theirs = make_models(size, device, dtype)
    start = {name: value.detach().cpu().clone() for name, value in ours.state_dict().items()}
    del theirs
    for kind in _RECOMPUTE:
        ours.load_state_dict(start)
        ours.set_recompute(kind)
        call = partial(our_seconds, ours, samples, device, options.steps)
        found.append(("ours", kind, *measured(call, device)))
        del call
    del ours
    for way, make in (("padded", their_batch), ("packed", their_packed)):
        batch = make(samples, size, device, dtype)
        for recompute in (False, True):
            _, theirs = make_models(size, device, dtype)

            def run(model: Any = theirs, batch: Any = batch, recompute: bool = recompute) -> float:
                on_cpu = device.type == "cpu"
                return trainer_seconds(model, [batch], options.steps, recompute=recompute, on_cpu=on_cpu)

            kind = "full" if recompute else "none"
            found.append((f"transformers, {way}", kind, *measured(run, device)))
            del theirs
    fastest = min(seconds for model, _, seconds, _ in found if model == "ours" and seconds)
    rows = []
    for model, kind, seconds, memory in found:
        if seconds is None:
            rows.append([stage, model, kind, "-", "-", "-", memory, "-"])
            continue
        mfu = needed / seconds / speed
        numbers = f"{1000 * seconds:.0f}", f"{tokens / seconds:,.0f}", f"{mfu:.1%}"
        rows.append([stage, model, kind, *numbers, memory, f"{seconds / fastest:.2f}"])
        print(*rows[-1])
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("2b", "small"), default="2b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=8, help="steps that are measured, after two of warm-up")
    options = parser.parse_args()
    device, is_small = torch.device(options.device), options.size == "small"
    size = SMALL if is_small else RELEASED
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rows = [row for stage in _KINDS for row in stage_rows(stage, size, device, dtype, options)]
    trial = " This only tests the script with a tiny model; its numbers say nothing about a GPU." if is_small else ""
    write_result(
        "train_gpu_trial" if is_small else "train_gpu",
        title="Training steps against transformers' Trainer" + (" (trial on CPU)" if is_small else ""),
        question=f"Same random weights, same samples, on {name} in {str(dtype).removeprefix('torch.')}. The aims are "
        + ", ".join(f"{aim:.0%} MFU on rows of {stage}" for stage, aim in AIMS.items())
        + f" and twice the peer.{trial}",
        command="python -m benchmarks.train_gpu" + (" --size small --device cpu" if is_small else ""),
        columns=["rows", "model", "recompute", "ms", "tokens/s", "MFU", "peak GiB", "time, our fastest = 1"],
        rows=rows,
        notes=[
            "One device, one row a step: forward, backward, clipping, AdamW on the weights as they are. MFU is the "
            "FLOPs that the stage needs (not recomputed ones) over the time, against a matmul of the same run.",
            "transformers runs the samples as a padded batch, or as one row whose positions restart, for which it "
            "builds a mask; both under its scaled dot product attention, which needs no other package.",
        ],
        libraries=["torch", "transformers"],
    )


if __name__ == "__main__":
    main()
