"""Pictures as a viewer shows them, as RGB pixels, and bicubic resizing like the released processor's.

What a file says about how it is to be shown is followed: it is turned and mirrored by its orientation, transparent
parts are composed on white, colours are brought from the picture's own profile to sRGB, and 16-bit, 12-bit or float
greys are scaled by the picture's own range. Of an animation, the first frame counts.

Legend: H height, W width, C channels.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from vl3.config.picture import Fit, FixedPicture
from vl3.data.sample.media import MediaContent, media_bytes, open_media
from vl3.data.sample.picture_damage import check_picture
from vl3.data.sample.problems import ProblemKind, SampleProblem

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        PpmImagePlugin.PpmImageFile,
        AvifImagePlugin.AvifImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
    )
)
"""What is read; importing a plugin registers it. Left out is what starts another program (EPS) or is rarely meant."""
MAX_IMAGE_PX = 1 << 26
"""67 million pixels, 8192 x 8192: three copies of one as PIL holds it fit into 1 GiB."""
MAX_IMAGE_BYTES = 1 << 28
"""Several decoders read the whole file first."""

_OPENJPEG_PX = MAX_IMAGE_PX // 4
_STRIP_PX = 1 << 20
_JPEG_SCALE = 8
_WHITE_IS_ZERO = (262, 0)
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_PROFILE_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    BufferError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""PIL's parsers answer damaged bytes with any of these."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's orientation; 1 is upright (EXIF 2.32, 4.6.4)."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # the size is checked here


def decode_image(data: MediaContent, where: str) -> np.ndarray:
    """Pixels of an image file as a viewer shows it, uint8 RGB (H, W, 3), read-only.

    Raises:
        SampleProblem: the bytes are not a complete image, or it is too large; the message starts with `where`.
    """
    with _opened(data, where) as image:
        image.load()  # here, because numpy hides errors that are raised inside asarray
        # No convert() or np.array() that would only copy: decoding is half of the preprocessing time.
        return np.asarray(_shown(image))


def check_image(data: MediaContent, where: str) -> tuple[int, int]:
    """Size of an image, as `image_size`, once all of it was decoded and `check_picture` found no damage.

    A JPEG is decoded at an eighth of its size: all its data are read, and most of the arithmetic is left out. Of 3,000
    damaged ones both sizes refuse the same.

    Raises:
        SampleProblem: as `decode_image`, or libav finds damage that PIL repairs without a word.
    """
    with _opened(data, where) as image:
        size = _shown_size(image)
        if image.format == "JPEG":
            image.draft(None, (image.width // _JPEG_SCALE, image.height // _JPEG_SCALE))
        image.load()
        _shown(image)
    check_picture(data, where)
    return size


def image_size(data: MediaContent, where: str) -> tuple[int, int]:
    """Height and width in pixels as a viewer shows the image, from its header alone.

    Raises:
        SampleProblem: as `decode_image`, as far as the header tells.
    """
    with _opened(data, where) as image:
        return _shown_size(image)


def _shown_size(image: Image.Image) -> tuple[int, int]:
    width_px, height_px = image.size
    if image.format == "TIFF":  # PIL swaps the size already
        return height_px, width_px
    return (width_px, height_px) if _orientation(image) >= 5 else (height_px, width_px)


def resize_image(image_HWC: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Bicubic resize of uint8 RGB pixels; an image that already has the size is returned unchanged."""
    if image_HWC.shape[:2] == (height_px, width_px):
        return image_HWC
    image = Image.fromarray(image_HWC)
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BICUBIC))


def sized_image(image_HWC: np.ndarray, size: tuple[int, int], picture: FixedPicture | None) -> np.ndarray:
    """The pixels at a (height, width), or as the square of an encoder, which has that size."""
    return resize_image(image_HWC, *size) if picture is None else square_image(image_HWC, picture)


def square_image(image_HWC: np.ndarray, picture: FixedPicture) -> np.ndarray:
    """Bicubic resize of uint8 RGB pixels to the square of an encoder, without the rows and columns that it never sees.

    100 x 250 px and a square of 336 px: CROP resizes to 336 x 840 and keeps the columns 252 to 587; STRETCH resizes to
    336 x 336. Rounding and offsets are those of transformers' CLIPImageProcessor and SiglipImageProcessor.
    """
    side, height_px, width_px = picture.side_px, *image_HWC.shape[:2]
    if picture.fit is Fit.STRETCH:
        resized = resize_image(image_HWC, side, side)
    else:
        short = min(height_px, width_px)
        resized = resize_image(image_HWC, int(side * height_px / short), int(side * width_px / short))
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    return resized[top : top + picture.seen_px, left : left + picture.seen_px]


@contextmanager
def _opened(data: MediaContent, where: str) -> Iterator[Image.Image]:
    if media_bytes(data) > MAX_IMAGE_BYTES:
        raise _refused(f"the image has {media_bytes(data)} bytes, more than {MAX_IMAGE_BYTES}. Compress it", where)
    try:
        with open_media(data) as file, Image.open(file, formats=FORMATS) as image:
            limit_px = _OPENJPEG_PX if image.format == "JPEG2000" else MAX_IMAGE_PX
            if image.width * image.height > limit_px:
                raise _refused(
                    f"the image has {image.width} x {image.height} px, more than {limit_px} pixels. Make it smaller",
                    where,
                )
            yield image
    except SampleProblem:
        raise
    except _DECODE_ERRORS as error:
        reason = f"the image ({media_bytes(data)} bytes) cannot be decoded ({type(error).__name__}: {_one_line(error)})"
        raise _refused(f"{reason}. Replace the file with an intact image", where) from error


def _shown(image: Image.Image) -> Image.Image:
    """The image in RGB, upright. TIFF is turned by PIL itself."""
    orientation = 1 if image.format == "TIFF" else _orientation(image)
    if image.format == "PPM" and image.mode == "F":
        raise ValueError("programs disagree on which row of a PFM is the first")
    if image.mode in _DEEP_MODES:
        shown = Image.fromarray(_scaled(image)).convert("RGB")
    elif image.has_transparency_data:
        shown = _on_white(image)
    else:
        shown = _in_srgb(image)
    return shown.transpose(_TURNS[orientation]) if orientation in _TURNS else shown


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8. A damaged EXIF block is passed over, as viewers do."""
    with contextlib.suppress(*_DECODE_ERRORS):
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in _TURNS else 1
    return 1


def _in_srgb(image: Image.Image) -> Image.Image:
    """RGB by the picture's own colour profile; without one, or with a damaged one, as if it were sRGB.

    An orange of (246, 140, 50) in Display P3 is (255, 136, 0) in sRGB: unconverted, it would look pale.
    """
    profile = image.info.get("icc_profile")
    space = _PROFILE_SPACES.get(image.mode)
    if profile and space:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            of_pictures = opened.profile.xcolor_space.strip() == space
            if of_pictures and "srgb" not in (opened.profile.profile_description or "").lower():
                converted = ImageCms.profileToProfile(image, opened, ImageCms.createProfile("sRGB"), outputMode="RGB")
                assert converted is not None
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composed on white: a black of which a third is opaque becomes (170, 170, 170)."""
    image = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    alpha = image.getchannel("A")
    colours = image.convert("RGB")
    if profile:
        colours.info["icc_profile"] = profile
        colours = _in_srgb(colours)
    shown = Image.new("RGB", image.size, (255, 255, 255))
    shown.paste(colours, mask=alpha)
    return shown


def _scaled(image: Image.Image) -> np.ndarray:
    """8-bit greys (H, W) of a deeper picture: its darkest value becomes 0 and its lightest 255, others in between.

    The values 1000, 1500 and 2000 become 0, 128 and 255. Values that are no number become 0.

    Raises:
        ValueError: no value is a number.
    """
    lows, highs = [], []
    for _, strip in _strips(image):
        finite = strip[np.isfinite(strip)]
        if finite.size:
            lows.append(finite.min())
            highs.append(finite.max())
    if not lows:
        raise ValueError("no pixel has a number")
    low, span = float(min(lows)), float(max(highs)) - float(min(lows))
    tag, white_is_zero = _WHITE_IS_ZERO
    inverted = image.format == "TIFF" and getattr(image, "tag_v2", {}).get(tag) == white_is_zero
    clear = image.info.get("transparency")
    shown = np.zeros((image.height, image.width), dtype=np.uint8)
    for top, strip in _strips(image):
        share = np.clip(np.nan_to_num((strip - low) / (span or 1.0), posinf=1.0, neginf=0.0), 0, 1)
        greys = np.floor(255 * (1 - share if inverted else share) + 0.5).astype(np.uint8)
        if isinstance(clear, int):
            greys[strip == clear] = 255
        shown[top : top + len(greys)] = greys
    return shown


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The values as float64, about a million at a time, and the row at which each strip starts."""
    rows = max(1, _STRIP_PX // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield top, np.asarray(strip, dtype=np.float64)


def _refused(what: str, where: str) -> SampleProblem:
    return SampleProblem(ProblemKind.UNDECODABLE, f"{what} or drop the sample.", where)


def _one_line(error: BaseException) -> str:
    """PIL's message contains the memory address of the buffer; without it, messages are the same in every run."""
    return " ".join(str(error).split("<_io.")[0].split()) or "no detail"
