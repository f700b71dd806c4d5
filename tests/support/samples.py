"""Small real media for the tests of the data room."""

import io
import json
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def image_bytes(height_px: int, width_px: int, *, seed: int = 0, suffix: str = "png") -> bytes:
    """A PNG or JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format={"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def grey_frames(levels: Sequence[int], side_px: int = 56) -> list[np.ndarray]:
    """Frames of one grey level each."""
    return [np.full((side_px, side_px, 3), level, dtype=np.uint8) for level in levels]


def video_bytes(frames: Sequence[np.ndarray], *, fps: int = 4, options: dict[str, str] | None = None) -> bytes:
    """H.264 in MP4 with every frame given, shown at `fps`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", options=options or {}) as output:
            codec = {"crf": "10", "preset": "ultrafast"}
            stream = output.add_stream("libx264", rate=Fraction(fps), options=codec)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt, stream.thread_count = "yuv420p", 1
            for pixels in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
        return path.read_bytes()


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write_data_folder(
    root: Path, *, train: Sequence[dict | str], heldout: Sequence[dict] | None = None, files: dict[str, bytes]
) -> Path:
    """Annotations (dictionaries, or lines as they are) and media files; returns the folder."""
    (root / "annotations").mkdir(parents=True)
    for name, lines in (("train", train), ("heldout", heldout)):
        if lines is not None:
            text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
            (root / "annotations" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root
