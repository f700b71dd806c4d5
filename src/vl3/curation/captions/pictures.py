"""Pictures as they are sent: decoded as everywhere in vl3, no larger than the model can use, as JPEG."""

import hashlib
import io

import numpy as np
from PIL import Image

from vl3.data.sample.image import decode_image, resize_image
from vl3.data.sample.media import MediaContent
from vl3.endpoint.question import Picture

_KIND = "image/jpeg"


def file_picture(data: MediaContent, sha256: str, where: str, *, max_side_px: int, quality: int) -> Picture:
    """An image file as it is sent; nothing is decoded before it is.

    Args:
        data: the file.
        sha256: its digest.
        where: the sample, for messages.
        max_side_px: a larger picture is made smaller.
        quality: of JPEG, 1 to 100.
    """
    digest = hashlib.sha256(f"{sha256} {max_side_px} {quality}".encode()).hexdigest()

    def load() -> tuple[str, bytes]:
        return _KIND, as_jpeg(decode_image(data, where), max_side_px, quality)

    return Picture(sha256=digest, load=load)


def as_jpeg(image_HWC: np.ndarray, max_side_px: int, quality: int) -> bytes:
    """JPEG of uint8 RGB pixels with a longer side of at most `max_side_px`: 3000x1500 at 1344 becomes 1344x672."""
    height_px, width_px = image_HWC.shape[:2]
    scale = min(1.0, max_side_px / max(height_px, width_px))
    size = (max(1, round(height_px * scale)), max(1, round(width_px * scale)))
    file = io.BytesIO()
    Image.fromarray(resize_image(image_HWC, *size)).save(file, "JPEG", quality=quality)
    return file.getvalue()
