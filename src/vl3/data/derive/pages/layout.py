"""Lays a page out: bands from top to bottom, in each one to three columns, in each paragraphs in one font.

    title                  band 1: one column
    a1 b1 | a4 b4          band 2: two columns; read a1 .. b3, then a4 .. b6
    a2 b2 | a5 b5
    a3 b3 | a6 b6

The text of a page is its lines in this order. After SynthDoG (Kim et al., Donut, arXiv 2111.15664, sec. 2.3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from PIL import ImageFont

from vl3.data.derive.pages.fonts import FontFile, Fonts, load_font
from vl3.data.derive.pages.text import Text

MIN_FONT_PX, MAX_FONT_PX = 14, 30
"""The smallest is as high as the encoder's patches, which have 14 pixels."""
_TITLE_CHANCE = 0.4
_TITLE_FACTOR = 1.8
"""Size of a title, in sizes of a font of the page."""
_MAX_BANDS, _MAX_COLUMNS = 3, 3
_COLUMN_SIZES, _GUTTER_SIZES = 12, 1.6
"""Least width of a column, and the gap between two, in sizes of its font."""
_MAX_GAP_SIZES = 1.0
"""Greatest gap between two words of a justified line; a line that would need more is not justified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnText:
    """Words, their left end and the top of their line in pixels of the page."""

    left_px: float
    top_px: float
    text: str
    font_path: str
    size_px: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page to draw."""

    seed: int
    number: int
    width_px: int
    height_px: int
    drawn: tuple[DrawnText, ...]
    lines: tuple[str, ...]
    """In reading order."""


@dataclass(kw_only=True, slots=True)
class _Column:
    """A column that is being filled."""

    left_px: float
    width_px: float
    bottom_px: float
    size_px: int
    line_px: float
    align: str
    at_px: float
    drawn: list[DrawnText] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return self.at_px + self.line_px > self.bottom_px


def lay_out(text: Text, fonts: Fonts, *, seed: int, number: int) -> Page | None:
    """The next page of a text; None if it has ended. Equal texts, fonts, seeds and numbers give equal pages.

    Args:
        text: where words are taken from.
        fonts: fonts to choose from.
        seed: of all pages.
        number: of this page.
    """
    random = Random(f"{seed}:{number}")
    width, height = random.randint(640, 1000), random.randint(800, 1280)
    margin = random.uniform(0.05, 0.1) * width
    drawn: list[DrawnText] = []
    lines: list[str] = []
    for top, bottom, size, columns in _bands(random, width - 2 * margin, margin, height - margin):
        for column in _columns(random, margin, width - 2 * margin, top, bottom, size, columns):
            _fill(column, text, fonts, random)
            drawn += column.drawn
            lines += column.lines
    if not lines:
        return None
    return Page(seed=seed, number=number, width_px=width, height_px=height, drawn=tuple(drawn), lines=tuple(lines))


def _bands(random: Random, width: float, top: float, end: float) -> Iterator[tuple[float, float, int, int]]:
    """Top, bottom, font size and number of columns of each band."""
    size = random.randint(MIN_FONT_PX, MAX_FONT_PX)
    if random.random() < _TITLE_CHANCE:
        title = round(_TITLE_FACTOR * size)
        yield top, top + 2 * title, title, 1
        top += 3 * title
    bands = random.randint(1, _MAX_BANDS)
    height = (end - top) / bands
    for band in range(bands):
        fitting = int((width + _GUTTER_SIZES * size) / ((_COLUMN_SIZES + _GUTTER_SIZES) * size))
        gap = size if band < bands - 1 else 0
        yield top + band * height, top + (band + 1) * height - gap, size, random.randint(1, min(_MAX_COLUMNS, fitting))
        size = random.randint(MIN_FONT_PX, MAX_FONT_PX)


def _columns(
    random: Random, left: float, width: float, top: float, bottom: float, size: int, columns: int
) -> Iterator[_Column]:
    """The columns of a band, which share their style."""
    gutter = _GUTTER_SIZES * size
    column_width = (width - (columns - 1) * gutter) / columns
    line, align = random.uniform(1.25, 1.7) * size, random.choice(("left", "left", "justified", "centre"))
    for column in range(columns):
        yield _Column(
            left_px=left + column * (column_width + gutter),
            width_px=column_width,
            bottom_px=bottom,
            size_px=size,
            line_px=line,
            align=align,
            at_px=top,
        )


def _fill(column: _Column, text: Text, fonts: Fonts, random: Random) -> None:
    """Set paragraphs until the column is full or the text has ended."""
    preferred = random.choice(fonts.files)
    while not column.is_full and (paragraph := text.take()) is not None:
        font = fonts.covering(paragraph.text, preferred, random)
        if font is None:
            text.leave_out(paragraph.where, "no font has all of its characters")
            continue
        pieces = list(paragraph.pieces)
        used = _set(column, pieces, font)
        text.give_back(paragraph.where, pieces[used:])
        column.at_px += column.line_px / 2


def _set(column: _Column, pieces: list[str], file: FontFile) -> int:
    """Set the pieces of a paragraph as lines; returns how many there was room for. One that is too wide is split."""
    font = load_font(file.path, column.size_px)
    start = 0
    while start < len(pieces) and not column.is_full:
        end, width = start, 0.0
        while end < len(pieces) and width + font.getlength(pieces[end].rstrip()) <= column.width_px:
            width += font.getlength(pieces[end])
            end += 1
        if end == start:
            pieces[start : start + 1] = _split(pieces[start], font, column.width_px)
            continue
        line = "".join(pieces[start:end]).rstrip()
        _place(column, line, font, file, is_last=end == len(pieces))
        start = end
    return start


def _split(piece: str, font: ImageFont.FreeTypeFont, width_px: float) -> tuple[str, str]:
    """A piece as the longest part that fits, of at least one character, and the rest."""
    fitting = 1
    while font.getlength(piece[: fitting + 1]) <= width_px:
        fitting += 1
    return piece[:fitting], piece[fitting:]


def _place(column: _Column, line: str, font: ImageFont.FreeTypeFont, file: FontFile, *, is_last: bool) -> None:
    """Add a line to a column, as its style has it."""
    left, top, size = column.left_px, column.at_px, column.size_px
    words, free = [line], column.width_px - font.getlength(line)
    gap = 0.0
    if column.align == "centre":
        left += free / 2
    elif column.align == "justified" and " " in line and not is_last:
        split = line.split(" ")
        gap = (column.width_px - sum(map(font.getlength, split))) / (len(split) - 1)
        words = split if gap <= _MAX_GAP_SIZES * size else words
    for word in words:
        column.drawn.append(DrawnText(left_px=left, top_px=top, text=word, font_path=file.path, size_px=size))
        left += font.getlength(word) + gap
    column.lines.append(line)
    column.at_px += column.line_px
