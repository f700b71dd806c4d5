"""Images: bytes to RGB pixels, and bicubic resizing like the released processor's."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from vl3.data.sample.problems import ProblemKind, SampleProblem

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def decode_image(data: bytes, where: str) -> np.ndarray:
    """RGB pixels of an image file, uint8 (H, W, 3), read-only; transparency is dropped.

    Raises:
        SampleProblem: the bytes are not a complete image; the message starts with `where`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()  # here, because numpy hides errors that are raised inside asarray
            # No convert() or np.array() that would only copy: decoding is half of the preprocessing time.
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except _DECODE_ERRORS as error:
        raise _undecodable(data, where, error) from error


def resize_image(image_HWC: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Bicubic resize of uint8 RGB pixels; an image that already has the size is returned unchanged."""
    if image_HWC.shape[:2] == (height_px, width_px):
        return image_HWC
    image = Image.fromarray(image_HWC)
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BICUBIC))


def _undecodable(data: bytes, where: str, error: BaseException) -> SampleProblem:
    reason = (
        f"the image ({len(data)} bytes) cannot be decoded ({type(error).__name__}: {_one_line(error)}). "
        "Replace the file with an intact image or drop the sample."
    )
    return SampleProblem(ProblemKind.UNDECODABLE, reason, where)


def _one_line(error: BaseException) -> str:
    """PIL's message contains the memory address of the buffer; without it, messages are the same in every run."""
    return " ".join(str(error).split("<_io.BytesIO")[0].split()) or "no detail"
