"""Generated videos whose cuts and motion are known: textures that slide by whole pixels."""

from pathlib import Path

import numpy as np

from tests.support.samples import video_bytes

WIDTH_PX, HEIGHT_PX, FPS = 128, 96, 16


def texture(seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    """A smooth random pattern in shades of a colour that goes on at its edges, uint8 RGB (H, W, 3)."""
    random = np.random.default_rng(seed)
    coarse_HW = random.random((HEIGHT_PX // 8, WIDTH_PX // 8))
    fine_HW = np.kron(coarse_HW, np.ones((8, 8)))
    for axis in (0, 1):
        fine_HW = sum(np.roll(fine_HW, shift, axis) for shift in range(-3, 4)) / 7
    return (fine_HW[..., None] * np.array(colour)).astype(np.uint8)


def sliding(picture_HWC: np.ndarray, seconds: float, px_per_frame: int) -> list[np.ndarray]:
    """Frames of a picture that slides to the right; 0 px stands still."""
    return [np.roll(picture_HWC, index * px_per_frame, axis=1) for index in range(round(seconds * FPS))]


def write_video(path: Path, *shots: list[np.ndarray]) -> Path:
    """A video of shots, one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(video_bytes([frame for shot in shots for frame in shot], fps=FPS))
    return path
