"""How samples that are made write a conversation, a box and an interval, as data-formats.md has them."""

from typing import Any

from vl3.data.derive.facts import Box

Line = dict[str, Any]
"""A sample in our annotation format."""


def turns(*texts: str) -> list[dict[str, str]]:
    """Questions and answers in turn as a conversation."""
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def box_text(box: Box, width_px: int, height_px: int) -> str:
    """A box in thousandths of the picture.

    >>> box_text((50, 20, 100, 60), 200, 100)
    '[250,200,500,600]'
    """
    sides = (width_px, height_px, width_px, height_px)
    return "[" + ",".join(str(round(1000 * value / side)) for value, side in zip(box, sides, strict=True)) + "]"


def interval_text(start_seconds: float, end_seconds: float) -> str:
    """An interval as the answer of temporal grounding (paper sec. 3.2.4, v4).

    >>> interval_text(1, 2.04)
    '1.0-2.0 s'
    """
    return f"{start_seconds:.1f}-{end_seconds:.1f} s"
