"""Image preprocessing against transformers' PIL processor. `python -m benchmarks.preprocess_speed`."""

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.record import write_result
from vl3.data.sample.geometry import fit_size
from vl3.data.sample.image import decode_image, resize_image
from vl3.data.sample.patches import patchify

MEDIA = Path(__file__).parents[2] / "shared" / "media"
REPEATS = 7
MAX_TOKENS, MIN_TOKENS = 16384, 16


def our_patches(image_HWC: np.ndarray, merge_size: int) -> np.ndarray:
    """uint8 patches of a decoded image."""
    height_px, width_px = image_HWC.shape[:2]
    size = fit_size(
        height_px, width_px, num_items=1, merge_size=merge_size, min_tokens=MIN_TOKENS, max_tokens=MAX_TOKENS
    )
    return patchify(resize_image(image_HWC, *size)[None], merge_size)[0]


def normalised(pixels_PC: np.ndarray) -> np.ndarray:
    """fp32 patches in [-1, 1], as the model makes them on its device."""
    return torch.from_numpy(pixels_PC).float().mul_(2 / 255).sub_(1).numpy()


def their_processor(merge_size: int) -> Any:
    """The processor of transformers with the same limits."""
    from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

    factor = (14 * merge_size) ** 2
    size = {"shortest_edge": MIN_TOKENS * factor, "longest_edge": MAX_TOKENS * factor}
    half = [0.5, 0.5, 0.5]
    return VideoLlama3ImageProcessorPil(size=size, merge_size=merge_size, image_mean=half, image_std=half)


def measure(files: list[bytes], merge_size: int) -> dict[str, float]:
    """Median milliseconds of each implementation over all images; they alternate."""
    process = their_processor(merge_size)
    arrays = [decode_image(data, "benchmark") for data in files]
    pictures = [Image.fromarray(array) for array in arrays]
    ways = {
        "ours, decoded": lambda: [our_patches(array, merge_size) for array in arrays],
        "ours, decoded, to fp32": lambda: [normalised(our_patches(array, merge_size)) for array in arrays],
        "theirs, decoded": lambda: [process(picture, return_tensors="np") for picture in pictures],
        "ours, from bytes": lambda: [our_patches(decode_image(data, "benchmark"), merge_size) for data in files],
        "theirs, from bytes": lambda: [process(Image.open(io.BytesIO(data)), return_tensors="np") for data in files],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: sorted(taken[1:])[REPEATS // 2] for name, taken in times.items()}


def largest_difference(files: list[bytes], merge_size: int) -> float:
    """In grey levels, over all pixels of all images.

    Raises:
        ValueError: the two do not even agree on the size of an image.
    """
    process, worst = their_processor(merge_size), 0.0
    for data in files:
        ours = our_patches(decode_image(data, "benchmark"), merge_size).astype(np.float64)
        theirs = (process(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"] + 1) * 127.5
        if ours.shape != theirs.shape:
            raise ValueError(f"{ours.shape[0]} patches here, {theirs.shape[0]} there")
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return worst


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of real media, with images/")
    torch.set_num_threads(1)
    paths = sorted((parser.parse_args().media / "images").iterdir())
    files = [path.read_bytes() for path in paths]
    rows, notes = [], []
    for merge_size in (1, 2):
        took = measure(files, merge_size)
        for kind, mine in (("decoded", "decoded"), ("decoded", "decoded, to fp32"), ("from bytes", "from bytes")):
            ours, theirs = took[f"ours, {mine}"], took[f"theirs, {kind}"]
            rows.append([f"merge {merge_size}, {mine}", f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}"])
            print(*rows[-1])
        difference = largest_difference(files, merge_size)
        notes.append(f"Merge {merge_size}: same sizes; pixels differ by {difference:.3f} grey levels at most.")
        print(notes[-1])
    write_result(
        "preprocess_speed",
        title="Images become patches twice as fast",
        question=f"Milliseconds for all {len(files)} images of the shared media, decoded pixels (or file bytes) to "
        "patches, against transformers' VideoLlama3ImageProcessorPil. The target is half its time, with pixels within "
        "one grey level.",
        command="python -m benchmarks.preprocess_speed",
        columns=["from", "ours ms", "theirs ms", "times faster"],
        rows=rows,
        notes=[
            *notes,
            f"Median of {REPEATS} interleaved runs, one thread. Ours gives uint8 patches, which the model "
            "normalises on its device; 'to fp32' normalises here, as transformers' does.",
        ],
        libraries=["numpy", "pillow", "torch", "transformers"],
    )


if __name__ == "__main__":
    main()
