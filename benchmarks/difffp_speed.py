"""How fast is DiffFP's mask, and does it decide as the fp32 formulation? `python -m benchmarks.difffp_speed`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import write_result
from vl3.config.data import DiffFPScale
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.geometry import fit_size
from vl3.data.sample.image import resize_image
from vl3.data.sample.patches import patchify
from vl3.data.sample.video import decode_video

MEDIA = Path(__file__).parents[2] / "shared" / "media"
REPEATS = 5
THRESHOLDS = (0.1, 0.5, 1.0, 2.0, 5.0)
MERGE = 2


def fp32_mask(pixels_PC: torch.Tensor, num_frames: int, threshold: float) -> torch.Tensor:
    """The released formulation on normalised fp32 patches (reference: `_get_compression_mask`)."""
    tokens = pixels_PC.view(num_frames, -1, MERGE * MERGE * pixels_PC.shape[1])
    change = (tokens[1:] - tokens[:-1]).abs().mean(-1) * 255
    change = torch.cat([torch.full_like(change[:1], threshold + 1), change])
    keep = change > threshold
    for frame in (keep.sum(1) < 1).nonzero():
        keep[frame, 0] = True
    return keep.flatten()


def fp32_from_frames(frames_FHWC: np.ndarray, threshold: float = 0.1) -> torch.Tensor:
    """Patches of the uint8 frames, normalised in fp32, and the mask from them."""
    pixels_PC, _ = patchify(frames_FHWC, MERGE, PATCH_SIZE_PX)
    return fp32_mask(torch.from_numpy(pixels_PC).float() / 127.5 - 1, len(frames_FHWC), threshold)


def ours(frames_FHWC: np.ndarray, threshold: float = 0.1, scale: DiffFPScale = DiffFPScale.RELEASED) -> np.ndarray:
    """The mask in integers."""
    return keep_mask(
        frames_FHWC, patch_size=PATCH_SIZE_PX, merge_size=MERGE, threshold=threshold, min_tokens=1, scale=scale
    )


def median_ms(*calls: Callable[[], object]) -> list[float]:
    """Median milliseconds of each call; the calls alternate, so that other load affects all of them equally."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(1000 * (time.perf_counter() - start))
    return [sorted(taken[1:])[REPEATS // 2] for taken in times]


def compare_decisions(media: Path) -> tuple[int, int, int, int]:
    """(videos, decisions, differences, differences that are exact ties) over a folder's videos and all thresholds."""
    videos = sorted((media / "videos").iterdir())
    decisions = differences = ties = 0
    for path in videos:
        decoded = decode_video(path, fps=1.0, max_frames=180, where=path.name).frames_FHWC
        height_px, width_px = fit_size(
            *decoded.shape[1:3], num_items=len(decoded), merge_size=MERGE, min_tokens=16, max_tokens=10240
        )
        frames = np.stack([resize_image(frame, height_px, width_px) for frame in decoded])
        pixels_PC, _ = patchify(frames, MERGE, PATCH_SIZE_PX)
        pixels = torch.from_numpy(pixels_PC).float() / 127.5 - 1
        sums = np.abs(np.diff(pixels_PC.reshape(len(frames), -1, 2352).astype(np.int64), axis=0)).sum(-1)
        for threshold in THRESHOLDS:
            differs = ours(frames, threshold) != fp32_mask(pixels, len(frames), threshold).numpy()
            tied = np.concatenate([np.zeros(sums.shape[1], dtype=bool), (sums * 2 == threshold * 2352).ravel()])
            decisions += differs.size
            differences += int(differs.sum())
            ties += int((differs & tied).sum())
    return len(videos), decisions, differences, ties


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of real media, with videos/")
    parser.add_argument("--frames", type=int, default=180)
    parser.add_argument("--side-px", type=int, default=448)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (options.frames, options.side_px, options.side_px, 3), dtype=np.uint8)
    pixels_PC, _ = patchify(frames, MERGE, PATCH_SIZE_PX)
    prepared = torch.from_numpy(pixels_PC).float() / 127.5 - 1
    mine, rlt, whole, bare = median_ms(
        lambda: ours(frames),
        lambda: ours(frames, scale=DiffFPScale.RLT),
        lambda: fp32_from_frames(frames),
        lambda: fp32_mask(prepared, len(frames), 0.1),
    )
    rows = [
        ["ours, released scale, from uint8 frames", f"{mine:.0f}", ""],
        ["ours, RLT's scale, from uint8 frames", f"{rlt:.0f}", f"{rlt / mine:.1f}"],
        ["fp32 formulation, from uint8 frames", f"{whole:.0f}", f"{whole / mine:.1f}"],
        ["fp32 formulation, on patches that are fp32 already", f"{bare:.0f}", f"{bare / mine:.1f}"],
    ]
    for row in rows:
        print(*row)
    videos, decisions, differences, ties = compare_decisions(options.media)
    print(f"{differences} of {decisions} decisions differ, {ties} of them ties")
    write_result(
        "difffp_speed",
        title="DiffFP's mask costs milliseconds",
        question=f"Milliseconds for the mask of {options.frames} frames of {options.side_px}x{options.side_px} px on "
        "one core. The target is a tenth of the time of the fp32 formulation from uint8 frames.",
        command="python -m benchmarks.difffp_speed",
        columns=["formulation", "median ms", "times ours"],
        rows=rows,
        notes=[
            f"{REPEATS} runs each, interleaved in one process, one thread.",
            f"On {videos} real videos, thresholds {', '.join(map(str, THRESHOLDS))}: {differences} of {decisions} "
            f"decisions differ from fp32's; {ties} of these are exact ties (mean change equal to the threshold), where "
            "fp32 rounds and integers do not.",
        ],
        libraries=["numpy", "torch"],
    )


if __name__ == "__main__":
    main()
