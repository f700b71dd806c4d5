"""The order in which texts are read: of a scene line by line, of a document column by column.

scene (paper sec. 3.2.1: left to right, top to bottom)     A   B        A B / C D
                                                           C   D
document, with a gutter between columns                    TITLE....    TITLE / A C / B D
                                                           A... B...
                                                           C... D...
"""

import statistics
from collections.abc import Iterable, Sequence

from vl3.data.derive.facts import PlacedText

MIN_LINE_OVERLAP = 0.5
"""Share of the lower of two heights that must overlap for two texts to be on one line; half allows for a slope."""
MIN_GUTTER_HEIGHTS = 0.8
"""Width of the gap between two columns, in heights of a line. Gaps between words are about 0.3 of it."""
MIN_COLUMN_HEIGHTS = 4.0
"""Width of a column, in heights of a line: what is narrower are the numbers of a list or labels beside their values."""


def scene_lines(texts: Iterable[PlacedText]) -> list[list[PlacedText]]:
    """The texts as lines from top to bottom, each from left to right; the same for any order that they come in."""
    lines: list[list[PlacedText]] = []
    for text in sorted(texts, key=lambda text: (text.box[1] + text.box[3], text)):
        if lines and _overlap(lines[-1][0], text) >= MIN_LINE_OVERLAP:
            lines[-1].append(text)
        else:
            lines.append([text])
    return [sorted(line, key=lambda text: (text.box[0], text)) for line in lines]


def document_lines(texts: Sequence[PlacedText]) -> list[list[PlacedText]]:
    """The texts as lines in reading order: bands from top to bottom, within a band columns from left to right.

    Neighbouring bands that share a gutter are one block, whose columns are each read to their end.
    """
    height = statistics.median(text.box[3] - text.box[1] for text in texts)
    block: list[PlacedText] = []
    lines: list[list[PlacedText]] = []
    for band in _parts(texts, axis=1, min_gap=0.0):
        if block and _columns([*block, *band], height) == 1:
            lines += _block_lines(block, height)
            block = []
        block += band
    return lines + _block_lines(block, height)


def joined(lines: Iterable[Iterable[PlacedText]], between_lines: str) -> str:
    """The texts of lines, with spaces within a line."""
    return between_lines.join(" ".join(text.text for text in line) for line in lines)


def _block_lines(block: list[PlacedText], height: float) -> list[list[PlacedText]]:
    columns = _wide_parts(block, height)
    if len(columns) == 1:
        return scene_lines(block)
    return [line for column in columns for line in document_lines(column)]


def _columns(texts: Sequence[PlacedText], height: float) -> int:
    return len(_wide_parts(texts, height))


def _wide_parts(texts: Sequence[PlacedText], height: float) -> list[list[PlacedText]]:
    """The columns of a block; the whole block if one of them would be too narrow."""
    parts = _parts(texts, axis=0, min_gap=MIN_GUTTER_HEIGHTS * height)
    widths = [max(text.box[2] for text in part) - min(text.box[0] for text in part) for part in parts]
    return parts if min(widths) >= MIN_COLUMN_HEIGHTS * height else [list(texts)]


def _parts(texts: Sequence[PlacedText], *, axis: int, min_gap: float) -> list[list[PlacedText]]:
    """The texts, split wherever a gap along an axis (0: across, 1: down) is larger than `min_gap`.

    Boxes from 0 to 4, 3 to 6 and 9 to 12 with a gap of 2 or less give two parts: the first two, and the third.
    """
    parts: list[list[PlacedText]] = []
    reached = 0.0
    for text in sorted(texts, key=lambda text: (text.box[axis], text)):
        if not parts or text.box[axis] - reached > min_gap:
            parts.append([])
            reached = text.box[axis + 2]
        parts[-1].append(text)
        reached = max(reached, text.box[axis + 2])
    return parts


def _overlap(one: PlacedText, other: PlacedText) -> float:
    """How much of the lower of two heights both texts share: 0 to 10 and 4 to 12 share 6 of 8, which is 0.75."""
    shared = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    return shared / min(one.box[3] - one.box[1], other.box[3] - other.box[1])
