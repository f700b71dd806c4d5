"""Damaged media: pictures and videos of each container and codec, changed in ways that files are changed by accident or
on purpose. Everything follows from a seed.
"""

import io
import random
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.ffmpeg import make_video

VIDEOS = {
    "h264.mp4": ("-c:v", "libx264", "-g", "12"),
    "h264.mkv": ("-c:v", "libx264", "-g", "12"),
    "h264.flv": ("-c:v", "libx264", "-bf", "2"),
    "h264.ts": ("-c:v", "libx264", "-g", "12"),
    "h264.avi": ("-c:v", "libx264", "-bf", "2"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "2"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-bf", "2"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "200k"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-b:v", "200k"),
    "mjpeg.avi": ("-c:v", "mjpeg"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "mpeg2.ts": ("-c:v", "mpeg2video"),
    "theora.ogv": ("-c:v", "libtheora"),
    "wmv2.wmv": ("-c:v", "wmv2"),
    "ffv1.mkv": ("-c:v", "ffv1", "-level", "3"),
    "flv1.flv": ("-c:v", "flv1"),
    "prores.mov": ("-c:v", "prores_ks"),
    "moving.gif": (),
}
PICTURES = ("jpg", "png", "webp", "gif", "bmp", "tiff", "avif")


def make_intact(folder: Path, *, seconds: float = 3) -> dict[str, bytes]:
    """Intact files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, codec in VIDEOS.items():
        files[name] = make_video(folder / name, *codec, size="160x96", seconds=seconds).read_bytes()
    pixels = (np.indices((72, 96)).sum(axis=0)[..., None] * (1, 2, 3) % 256).astype(np.uint8)
    for suffix in PICTURES:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format={"jpg": "JPEG"}.get(suffix, suffix.upper()))
        files[f"picture.{suffix}"] = buffer.getvalue()
    return files


def mutated(data: bytes, other: bytes, seed: str) -> bytes:
    """The file after a change that follows from the seed; `other` is spliced into it by some changes."""
    rng = random.Random(seed)
    change = rng.choice((_flip_bits, _zero, _cut, _splice, _edit_header, _extreme_numbers))
    return change(bytearray(data), other, rng)


def _flip_bits(data: bytearray, _: bytes, rng: random.Random) -> bytes:
    for _flip in range(rng.choice((1, 1, 8, 40))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _zero(data: bytearray, _: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    data[start : start + rng.choice((16, 200, 2000))] = bytes(min(16, len(data) - start))
    return bytes(data)


def _cut(data: bytearray, _: bytes, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(1, len(data))])


def _splice(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    start, theirs = rng.randrange(len(data)), rng.randrange(len(other))
    return bytes(data[:start]) + other[theirs : theirs + rng.choice((1, 50, 5000))] + bytes(data[start:])


def _edit_header(data: bytearray, _: bytes, rng: random.Random) -> bytes:
    for _edit in range(rng.choice((1, 4))):
        data[rng.randrange(min(len(data), 1500))] = rng.randrange(256)
    return bytes(data)


def _extreme_numbers(data: bytearray, _: bytes, rng: random.Random) -> bytes:
    """A number of four or eight bytes near the start or the end becomes as large or as negative as can be."""
    number = rng.choice((struct.pack(">i", -1), struct.pack(">I", 2**31 - 1), struct.pack("<q", 2**62), bytes(4)))
    span = min(len(data) - len(number), 1500)
    start = rng.randrange(span) + rng.choice((0, len(data) - len(number) - span))
    data[start : start + len(number)] = number
    return bytes(data)
