"""Decoded images for scorers: safe, bounded, and decoded once however many scorers look at them."""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from vl3.data.sample.image import decode_image, image_size
from vl3.data.sample.problems import SampleProblem

_CACHE_BYTES = 768 << 20
"""Decoded images that are kept: those of the chunk in hand, or each scorer would decode them again. Some 500 photos of
half a megapixel, twice the chunk of the large recipes."""


class PictureCache:
    """The last decoded images by digest, of one process."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, sha256: str, data: bytes) -> np.ndarray:
        """Pixels (H, W, 3) of an image, uint8 RGB.

        Raises:
            SampleProblem: it cannot be decoded, or is too large.
        """
        if sha256 in self._kept:
            self._kept.move_to_end(sha256)
            return self._kept[sha256]
        pixels_HWC = decode_image(data, sha256[:12])
        self._kept[sha256] = pixels_HWC
        self._bytes += pixels_HWC.nbytes
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels_HWC


_cache = PictureCache()


def decoded(batch: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray | None, str | None]]:
    """Each image of a batch, or why it has none."""
    for sha256, data in zip(batch["sha256"], batch["bytes"], strict=True):
        try:
            yield _cache.get(str(sha256), data), None
        except SampleProblem as problem:
            yield None, str(problem)


def header_size(data: bytes, max_px: int) -> tuple[int, int]:
    """Height and width from the header alone, in pixels.

    Raises:
        SampleProblem: it is no image.
        ValueError: it has more than max_px pixels.
    """
    height_px, width_px = image_size(data, "image")
    if height_px * width_px > max_px:
        raise ValueError(f"the image has {width_px} x {height_px} px, more than max_image_px={max_px}")
    return height_px, width_px
