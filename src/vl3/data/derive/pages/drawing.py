"""Draws a page: paper with a texture, ink, as a camera would see it on a table, saved as JPEG.

After SynthDoG (Kim et al., Donut, arXiv 2111.15664, sec. 2.3): background, paper, text, and effects of the camera.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from vl3.data.derive.pages.fonts import load_font
from vl3.data.derive.pages.layout import Page

_MAX_TILT = 0.015
"""How far a corner of the page moves, in shares of its side; more makes the smallest letters unreadable."""
_MAX_BLUR_PX, _MAX_NOISE, _MIN_QUALITY, _MAX_QUALITY = 0.7, 6.0, 60, 95
_MAX_INK = 90
"""Brightest ink, of 255."""
Pixels = NDArray[np.float32]
"""Height, width and colours, 0 to 255."""


def draw_page(page: Page) -> bytes:
    """The page as the bytes of a JPEG file; equal pages give equal bytes with the same libraries."""
    rng = np.random.default_rng([page.seed, page.number])
    paper = _with_text(page, _paper(rng, page.width_px, page.height_px), rng)
    border = rng.uniform(0.01, 0.08)
    size = (round(page.width_px * (1 + 2 * border)), round(page.height_px * (1 + 2 * border)))
    picture = _on_table(paper, _table(rng, *size), rng, border)
    return _jpeg(picture, rng)


def _paper(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Nearly white, in a tint, with stains that are wide and faint."""
    colour = rng.uniform(225, 255) - np.array([0, rng.uniform(0, 6), rng.uniform(0, 22)])
    return _image(colour + rng.uniform(0, 9) * _waves(rng, width, height, cells=int(rng.integers(2, 9))))


def _table(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """What the paper lies on: any colour, uneven."""
    colour = rng.uniform(20, 235, 3)
    rough = rng.uniform(5, 40) * _waves(rng, width, height, cells=int(rng.integers(2, 30)))
    return _image(colour + rough + rng.uniform(0, 10) * _waves(rng, width, height, cells=90))


def _with_text(page: Page, paper: Image.Image, rng: np.random.Generator) -> Image.Image:
    mask = Image.new("L", paper.size)
    draw = ImageDraw.Draw(mask)
    for one in page.drawn:
        draw.text((one.left_px, one.top_px), one.text, fill=255, font=load_font(one.font_path, one.size_px))
    ink = tuple(int(value) for value in rng.integers(0, _MAX_INK, 3))
    paper.paste(ink, mask=mask)
    return paper


def _on_table(paper: Image.Image, table: Image.Image, rng: np.random.Generator, border: float) -> Image.Image:
    """The paper on the table, tilted a little, with a shadow over both."""
    width, height = paper.size
    x0, y0 = border * width, border * height
    corners = np.array([[x0, y0], [x0 + width, y0], [x0 + width, y0 + height], [x0, y0 + height]])
    tilt = min(_MAX_TILT, border) * np.array([width, height])
    seen = corners + rng.uniform(-1, 1, (4, 2)) * tilt
    coefficients = _perspective(seen, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    shown = paper.convert("RGBA").transform(
        table.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    table.paste(shown, mask=shown.getchannel("A"))
    return table


def _perspective(seen: NDArray[Any], source: NDArray[Any]) -> list[float]:
    """The eight numbers a to h of Pillow, which takes a pixel (x, y) from ((ax + by + c) / w, (dx + ey + f) / w).

    w is gx + hy + 1. A corner seen at (x, y) that is (u, v) in the source gives two equations:
    ax + by + c - gxu - hyu = u and dx + ey + f - gxv - hyv = v.
    """
    rows, values = [], []
    for (x, y), (u, v) in zip(seen, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -x * u, -y * u], [0, 0, 0, x, y, 1, -x * v, -y * v]]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(values))]


def _jpeg(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """What the camera makes of it: uneven light, blur, noise and JPEG."""
    blurred = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, _MAX_BLUR_PX)))
    pixels = np.asarray(blurred, np.float32)
    height, width = pixels.shape[:2]
    across, down = np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32)[:, None]
    light = 1 - rng.uniform(0, 0.15) * across - rng.uniform(0, 0.15) * down
    noise = rng.uniform(0, _MAX_NOISE) * rng.standard_normal((height, width), np.float32)
    buffer = io.BytesIO()
    quality = int(rng.integers(_MIN_QUALITY, _MAX_QUALITY + 1))
    _image(pixels * light[..., None] + noise[..., None]).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _waves(rng: np.random.Generator, width: int, height: int, *, cells: int) -> Pixels:
    """Smooth noise between about -1 and 1, of one colour, with so many hills across."""
    small = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))[..., None]


def _image(pixels: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
