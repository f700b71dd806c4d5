"""The vision encoder on CPU against transformers', in time and memory. `python -m benchmarks.encoder_cpu`.

Each measurement of memory runs in a process of its own: weights and inputs are made, a warm-up pass over two images
fills the libraries' own buffers, then the peak of the resident memory above that state is taken over one pass (the
kernel's high-water mark, reset before it). The warm-up's memory has been given back by then.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_result

COUNTS = (8, 16, 32, 64)
LAYERS = 2
"""Of the released 27, at full width: time is linear in them, memory without gradients does not depend on them."""
GRIDS = ((20, 20), (16, 24), (24, 16), (12, 28), (28, 22), (14, 14), (32, 10), (18, 24))
"""Rows and columns of patches; repeated, so 32 images have about 12,000 patches."""
WIDTH, MLP, HEADS = 1152, 4304, 16


def inputs(num_images: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """uint8 patches, grids and merge sizes; no two neighbours have one size."""
    grid = np.array([(1, *GRIDS[index % len(GRIDS)]) for index in range(num_images)], dtype=np.int64)
    pixels = torch.randint(0, 256, (int(grid.prod(1).sum()), 588), dtype=torch.uint8)
    return pixels, grid, np.ones(num_images, dtype=np.int64)


def our_pass(layers: int) -> Callable[..., torch.Tensor]:
    """Our encoder; it takes uint8 pixels."""
    from vl3.models.config import VisionConfig
    from vl3.models.encoder import VisionEncoder

    config = VisionConfig(
        hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=layers, num_attention_heads=HEADS, patch_size=14
    )
    torch.manual_seed(0)
    encoder = VisionEncoder(config).eval()
    return lambda pixels, grid, merges: encoder(pixels, grid, merges)


def their_pass(layers: int) -> Callable[..., torch.Tensor]:
    """The encoder of transformers with its scaled dot product attention; it takes normalised pixels."""
    from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3VisionConfig
    from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3VisionModel

    config = VideoLlama3VisionConfig(
        hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=layers, num_attention_heads=HEADS, patch_size=14
    )
    torch.manual_seed(0)
    encoder = VideoLlama3VisionModel._from_config(config, attn_implementation="sdpa").eval()
    return lambda pixels, grid, merges: (
        encoder(pixels.float() / 127.5 - 1, torch.from_numpy(grid), torch.from_numpy(merges)).last_hidden_state
    )


PASSES = {"ours": our_pass, "transformers": their_pass}


def status_bytes(field: str) -> int:
    """A field of this process's memory status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_bytes(who: str, num_images: int, layers: int, pipe: Any) -> None:
    """Send the peak above weights and inputs over one pass; runs in a fresh process."""
    torch.set_num_threads(1)
    encode = PASSES[who](layers)
    pixels, grid, merges = inputs(num_images)
    with torch.no_grad():
        patches = int(grid[:2].prod(1).sum())
        encode(pixels[:patches], grid[:2], merges[:2])
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = status_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        encode(pixels, grid, merges)
    pipe.send(status_bytes("VmHWM") - before)


def in_process(who: str, num_images: int, layers: int) -> int:
    """`peak_bytes` of a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=peak_bytes, args=(who, num_images, layers, there))
    process.start()
    there.close()  # so that a process that dies ends the wait
    peak = here.recv()
    process.join()
    return int(peak)


def seconds(num_images: int, layers: int, repeats: int) -> dict[str, float]:
    """Best seconds of a pass; the two alternate."""
    passes = {who: make(layers) for who, make in PASSES.items()}
    arguments = inputs(num_images)
    times: dict[str, list[float]] = {who: [] for who in passes}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for who, encode in passes.items():
                start = time.perf_counter()
                encode(*arguments)
                times[who].append(time.perf_counter() - start)
    return {who: min(taken[1:]) for who, taken in times.items()}


def budget_bytes(num_images: int) -> tuple[int, int]:
    """(inputs and result, activations of the longest image through one block's attention, scores included), fp32."""
    pixels, grid, _ = inputs(num_images)
    longest = int(grid.prod(1).max())
    held = pixels.numel() * 4 + len(pixels) * WIDTH * 4
    attention = 6 * longest * WIDTH * 4 + HEADS * longest**2 * 4
    return held, attention


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, facts = [], {}
    for num_images in COUNTS:
        took = seconds(num_images, options.layers, options.repeats)
        peaks = {who: in_process(who, num_images, options.layers) for who in PASSES}
        held, attention = budget_bytes(num_images)
        share = peaks["ours"] / (held + attention)
        facts[num_images] = share
        patches = int(inputs(num_images)[1].prod(1).sum())
        rows.append(
            [
                num_images,
                f"{patches:,}",
                *(f"{took[who]:.2f}" for who in PASSES),
                f"{took['transformers'] / took['ours']:.2f}",
                *(f"{peaks[who] / 2**20:.0f}" for who in PASSES),
                f"{(held + attention) / 2**20:.0f}",
                f"{share:.2f}",
            ]
        )
        print(json.dumps(rows[-1]))
    write_result(
        "encoder_cpu",
        title="The encoder on CPU: linear in images, no slower than transformers'",
        question="Seconds and peak memory of one pass without gradients over images of mixed sizes. Targets: not "
        "slower than transformers' VideoLlama3VisionModel, at most 1.3 times the memory of inputs plus the longest "
        "image's attention, and linear growth.",
        command="python -m benchmarks.encoder_cpu",
        columns=[
            "images",
            "patches",
            "ours s",
            "transformers s",
            "times faster",
            "ours MiB",
            "transformers MiB",
            "budget MiB",
            "ours / budget",
        ],
        rows=rows,
        notes=[
            f"fp32, one thread, {options.layers} of 27 layers at full width ({WIDTH}); best of {options.repeats} "
            "interleaved passes in one process, after a warm-up.",
            "Memory: peak of the resident memory during the pass minus that before it (weights, uint8 pixels), in a "
            "separate process. Budget: normalised pixels and the resulting features of all patches in fp32, "
            "plus the longest image's six activations of the attention block and its scores.",
        ],
        libraries=["torch", "transformers"],
    )


if __name__ == "__main__":
    main()
