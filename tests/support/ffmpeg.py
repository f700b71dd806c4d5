"""ffmpeg's own program: the reference for what a video shows, because it shares no code of ours."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg's program is not installed (apt-get install ffmpeg)"
)


def run_ffmpeg(*arguments: str | Path) -> bytes:
    """Run the program and return what it prints."""
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_video(
    path: Path, *codec: str, size: str = "96x64", rate: int = 10, seconds: float = 2, filters: str = "null"
) -> Path:
    """A moving test picture, coded as the arguments say."""
    source = f"testsrc2=size={size}:rate={rate}:duration={seconds}"
    run_ffmpeg("-f", "lavfi", "-i", source, "-vf", filters, *codec, path)
    return path


def shown_frames(path: Path, height_px: int, width_px: int, *, filters: str) -> np.ndarray:
    """The frames that the program shows after the filters, as uint8 RGB (frames, height, width, 3)."""
    raw = run_ffmpeg("-i", path, "-vf", filters, "-vsync", "0", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, height_px, width_px, 3)


def is_broken(path: Path) -> bool:
    """Whether the program reports an error when it decodes the video it would show."""
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-an", "-sn", "-dn", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    return done.returncode != 0 or bool(done.stderr)
