"""What an image says without a model: its size, its shape, and a perceptual hash of 64 bits."""

import numpy as np

from vl3.curation.pictures import decoded, header_size
from vl3.curation.scorer import Batch, version_digest
from vl3.data.sample.problems import SampleProblem

_VERSION = 1
HASH_SIDE = 8
"""A hash of 8 x 8 bits, the usual one of `imagehash.phash`."""


class ImageFacts:
    """Width and height in pixels, aspect ratio (width over height), shorter side, hash (16 hexadecimal digits)."""

    outputs = ("width_px", "height_px", "aspect_ratio", "min_side_px", "phash")
    inputs = ("bytes",)

    def __init__(self, name: str, max_image_px: int) -> None:
        """Make the scorer.

        Args:
            name: its name.
            max_image_px: larger images fail before they are decoded.
        """
        self.name, self._max_px = name, max_image_px
        self.version = version_digest({"kind": "image_facts", "code": _VERSION, "max_px": max_image_px})

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        length = len(batch["sha256"])
        numbers = np.full((4, length), np.nan, dtype=np.float32)
        hashes, errors = np.full(length, None, dtype=object), np.full(length, None, dtype=object)
        for row in range(length):
            try:
                height_px, width_px = header_size(batch["bytes"][row], self._max_px)
                pixels_HWC, problem = next(decoded({name: batch[name][row : row + 1] for name in ("sha256", "bytes")}))
            except (SampleProblem, ValueError) as error:
                errors[row] = str(error)
                continue
            if pixels_HWC is None:
                errors[row] = problem
                continue
            numbers[:, row] = width_px, height_px, width_px / height_px, min(width_px, height_px)
            hashes[row] = perceptual_hash(pixels_HWC)
        columns = dict(zip(self.outputs, [*numbers, hashes], strict=True))
        return {**columns, f"{self.name}_error": errors}


def perceptual_hash(pixels_HWC: np.ndarray) -> str:
    """The pHash of an image by the library that most published lists were made with (imagehash, 64 bits)."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(Image.fromarray(pixels_HWC), hash_size=HASH_SIDE))
