"""The canvas of the generated world: it draws pixels and, in parallel, a map with the name of what covers each pixel.

The tiny bases learn from the names (`labels_HW`): the encoder base names what a patch shows, the decoder base reads a
picture as a map of such names. The four stages see only pixels.
"""

import functools
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 70, 220),
    "yellow": (235, 215, 50),
    "purple": (160, 60, 190),
    "cyan": (60, 200, 215),
}
SHAPES = ("circle", "square", "triangle", "cross")
WORDS = ("sun", "tree", "fish", "moon", "bird", "lamp", "cup", "rock")
DIGITS = tuple("0123456789")
CELL_NAMES = (
    "empty",
    *(colour + shape for colour in COLOURS for shape in SHAPES),
    *(colour + "bar" for colour in COLOURS),
    *WORDS,
    *DIGITS,
)
"""What a patch can show. The index is the label in labels_HW and the class that the encoder base predicts."""
CELL_INDEX = {name: index for index, name in enumerate(CELL_NAMES)}
MIN_SHARE = 0.12
"""Share of a cell that a label must cover for the cell to get its name."""
BRIGHT = ((255, 255, 255), (250, 240, 120), (160, 240, 250))
"""Colours of scene text."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the world."""

    pixels_HWC: np.ndarray
    """uint8 RGB; empty (0, 0, 3) if only the map was requested."""
    labels_HW: np.ndarray
    """uint8, for each pixel the index in CELL_NAMES of what covers it."""


@functools.cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)


class Canvas:
    """A picture while it is drawn. Coordinates are pixels from the top left."""

    def __init__(self, width_px: int, height_px: int, rng: random.Random, *, paper: int | None, pixels: bool) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._labels = Image.new("L", (width_px, height_px), 0)
        self._image = _background(width_px, height_px, rng, paper) if pixels else None
        if not pixels and paper is None:
            rng.uniform(20, 50)  # the draw of _background, so that a scene is the same with and without pixels

    def copy(self) -> "Canvas":
        """An independent copy, for the next frame over the same background."""
        twin = object.__new__(Canvas)
        twin.width_px, twin.height_px = self.width_px, self.height_px
        twin._labels = self._labels.copy()
        twin._image = self._image.copy() if self._image is not None else None
        return twin

    def shape(self, shape: str, colour: str, x: float, y: float, radius: float) -> None:
        """Draw a filled shape around (x, y)."""
        _fill_shape(ImageDraw.Draw(self._labels), CELL_INDEX[colour + shape], shape, x, y, radius)
        if self._image is not None:
            _fill_shape(ImageDraw.Draw(self._image), COLOURS[colour], shape, x, y, radius)

    def text(self, text: str, x: float, y: float, size_px: int, colour: tuple[int, int, int]) -> float:
        """Write a word or a digit of CELL_NAMES; returns its width in pixels."""
        draw = ImageDraw.Draw(self._labels)
        box = draw.textbbox((x, y), text, font=_font(size_px))
        draw.rectangle(box, fill=CELL_INDEX[text])
        if self._image is not None:
            ImageDraw.Draw(self._image).text((x, y), text, font=_font(size_px), fill=colour)
        return box[2] - box[0]

    def bar(self, colour: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a filled bar of a chart."""
        ImageDraw.Draw(self._labels).rectangle((x0, y0, x1, y1), fill=CELL_INDEX[colour + "bar"])
        if self._image is not None:
            ImageDraw.Draw(self._image).rectangle((x0, y0, x1, y1), fill=COLOURS[colour])

    def frame(self) -> Frame:
        """The picture as arrays."""
        pixels = np.asarray(self._image) if self._image is not None else np.zeros((0, 0, 3), dtype=np.uint8)
        return Frame(pixels_HWC=pixels, labels_HW=np.asarray(self._labels))


def cells(labels_HW: np.ndarray, cell_px: int) -> np.ndarray:
    """Name what each square cell shows: the label that covers most of it, if it covers more than MIN_SHARE.

    cell_px=2, labels in two rows of pixels (0 is empty):

        0 0 | 3 5      cells 0 and 5: label 5 covers three quarters of the second cell
        0 0 | 5 5

    Returns:
        int64 indices into CELL_NAMES, row by row, (H // cell_px) * (W // cell_px) of them.
    """
    rows, columns = labels_HW.shape[0] // cell_px, labels_HW.shape[1] // cell_px
    cropped = labels_HW[: rows * cell_px, : columns * cell_px]
    pixels_NP = cropped.reshape(rows, cell_px, columns, cell_px).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    best_N = np.zeros(rows * columns, dtype=np.int64)
    share_N = np.full(rows * columns, MIN_SHARE)
    for label in np.unique(cropped):
        if label == 0:
            continue
        covered_N = (pixels_NP == label).mean(1)
        wins_N = covered_N > share_N
        best_N[wins_N], share_N[wins_N] = label, covered_N[wins_N]
    return best_N


def _background(width_px: int, height_px: int, rng: random.Random, paper: int | None) -> Image.Image:
    if paper is not None:
        return Image.new("RGB", (width_px, height_px), (paper, paper, paper))
    dark = rng.uniform(20, 50)
    y, x = np.linspace(0, 1, height_px)[:, None], np.linspace(0, 1, width_px)[None, :]
    gradient = np.stack([dark + 70 * x + 0 * y, dark + 10 + 30 * y + 0 * x, dark + 70 * y + 0 * x], -1)
    return Image.fromarray(gradient.clip(0, 255).astype(np.uint8))


def _fill_shape(
    draw: ImageDraw.ImageDraw, fill: int | tuple[int, int, int], shape: str, x: float, y: float, radius: float
) -> None:
    if shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == "square":
        side = radius * 0.9
        draw.rectangle((x - side, y - side, x + side, y + side), fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    else:
        arm = radius * 0.38
        draw.rectangle((x - radius, y - arm, x + radius, y + arm), fill=fill)
        draw.rectangle((x - arm, y - radius, x + arm, y + radius), fill=fill)
