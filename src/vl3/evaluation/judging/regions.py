"""Boxes and intervals in answers, and how much two of them overlap."""

import re

Box = tuple[float, float, float, float]
Interval = tuple[float, float]

_VALUE = r"\d+(?:\.\d+)?"
_BOX = re.compile(rf"[\[(]+\s*({_VALUE})\s*,\s*({_VALUE})\s*[\])]*\s*,\s*[\[(]*\s*({_VALUE})\s*,\s*({_VALUE})\s*[\])]+")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)")
_RANGE = re.compile(
    rf"({_VALUE})\s*(?:s|sec|secs|seconds?)?\s*(?:-|\u2013|\u2014|to|until|and)\s*({_VALUE})", re.IGNORECASE
)

_ONLY_RANGE = re.compile(rf"(?:from\s+)?{_RANGE.pattern}\s*(?:s|sec|secs|seconds?)?\.?", re.IGNORECASE)


def box(text: str) -> Box | None:
    """The only box of an answer, `[x1, y1, x2, y2]` or `(x1, y1), (x2, y2)`, corners in order; None if not one."""
    found = {tuple(float(value) for value in match) for match in _BOX.findall(text)}
    if len(found) != 1:
        return None
    x1, y1, x2, y2 = found.pop()
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def interval(text: str) -> Interval | None:
    """The only interval of an answer in seconds; None if there is none, or several different ones.

    "4-9.5 s", "from 4.0 to 9.50 seconds" and "0:04 - 0:09.5" are all 4 to 9.5.
    """
    seconds = _CLOCK.sub(_in_seconds, text)
    found = {(float(start), float(end)) for start, end in _RANGE.findall(seconds)}
    if len(found) != 1:
        return None
    start, end = found.pop()
    return (start, end) if start <= end else (end, start)


def only_interval(text: str) -> Interval | None:
    """The interval of a text that is nothing else; "4-9.5 s", not "he runs at 4-9.5 s"."""
    return interval(text) if _ONLY_RANGE.fullmatch(_CLOCK.sub(_in_seconds, text).strip()) else None


def box_iou(one: Box, other: Box) -> float:
    """Area that two boxes share over the area that they cover.

    Boxes 0 0 2 2 and 1 0 3 2 share 2 of 6: 1/3.
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    covered = _area(one) + _area(other) - shared
    return shared / covered if covered > 0 else float(one == other)


def interval_iou(one: Interval, other: Interval) -> float:
    """Time that two intervals share over the time that they cover: 0-4 and 2-6 share 2 of 6."""
    shared = max(min(one[1], other[1]) - max(one[0], other[0]), 0.0)
    covered = (one[1] - one[0]) + (other[1] - other[0]) - shared
    return shared / covered if covered > 0 else float(one == other)


def _area(one: Box) -> float:
    return (one[2] - one[0]) * (one[3] - one[1])


def _in_seconds(match: "re.Match[str]") -> str:
    hours, minutes, seconds = match.groups()
    return f"{int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds):g}"
