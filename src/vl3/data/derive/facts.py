"""What is known of a picture or a video before it is a sample: texts, regions, phrases and captions with their places.

One JSON object a line; boxes in pixels as corners, times in seconds. Each function reads one line's object.

    {"image": "a.jpg", "width": 640, "height": 480, "caption": "A street.", "texts": [{"text": "STOP", "box": [1, 2, 30, 9]}]}
    {"image": "a.jpg", "width": 640, "height": 480, "regions": [{"caption": "A red car.", "box": [1, 2, 30, 9]}]}
    {"image": "a.jpg", "width": 640, "height": 480, "caption": "A man runs", "phrases": [{"span": [0, 5], "boxes": [[1, 2, 30, 9]]}]}
    {"video": "v.mp4", "captions": [{"start": 1.0, "end": 2.5, "caption": "A man runs."}]}
"""  # noqa: E501

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.sample.problems import ProblemKind, SampleProblem, shown

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
Line = dict[str, Any]
"""A sample in our annotation format."""
MAX_PLACES = 5000
"""Texts, regions, phrases or captions of one line: a newspaper page has about 4000 words."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class PlacedText:
    """A text and its box; the order of two is that of their boxes, only so that equal sets sort equally."""

    box: Box
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFacts:
    """A picture with its size and what is known of it."""

    image: str
    width_px: int
    height_px: int
    caption: str
    """Of the whole picture; empty if there is none."""
    texts: tuple[PlacedText, ...]
    """Texts that are read in the picture, or captions of its regions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhraseBoxes:
    """A range of a caption's characters and the boxes of what it names."""

    start: int
    end: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PhrasedPicture:
    """A picture whose caption has phrases with boxes."""

    image: str
    width_px: int
    height_px: int
    caption: str
    phrases: tuple[PhraseBoxes, ...]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class TimedCaption:
    """What happens from one second of a video to another."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionedVideo:
    """A video with captions of its parts, in order of their starts."""

    video: str
    captions: tuple[TimedCaption, ...]


def picture_texts(data: dict[str, Any], where: str) -> PictureFacts:
    """A picture with the texts in it. Raises SampleProblem."""
    return _picture(data, "texts", "text", where)


def picture_regions(data: dict[str, Any], where: str) -> PictureFacts:
    """A picture with captions of its regions. Raises SampleProblem."""
    return _picture(data, "regions", "caption", where)


def phrased_picture(data: dict[str, Any], where: str) -> PhrasedPicture:
    """A picture with a caption whose phrases have boxes. Raises SampleProblem."""
    width_px, height_px = (_count(data, key, where) for key in ("width", "height"))
    caption = _text(data, "caption", where, strip=False)  # spans count its characters
    phrases = []
    for name, entry in _entries(data, "phrases", where):
        span = entry.get("span")
        if not isinstance(span, list) or [type(value) for value in span] != [int, int]:
            raise _refuse(where, f"{name}.span", f"{shown(span)} is not a start and an end in characters.")
        start, end = span
        if not 0 <= start < end <= len(caption):
            raise _refuse(where, f"{name}.span", f"{start} to {end} is no part of the {len(caption)} characters.")
        boxes = entry.get("boxes")
        if not isinstance(boxes, list) or not boxes or len(boxes) > MAX_PLACES:
            raise _refuse(where, f"{name}.boxes", f"{shown(boxes)} is not a list of boxes.")
        places = tuple(_box(box, width_px, height_px, f"{name}.boxes", where) for box in boxes)
        phrases.append(PhraseBoxes(start=start, end=end, boxes=places))
    image = _text(data, "image", where)
    return PhrasedPicture(image=image, width_px=width_px, height_px=height_px, caption=caption, phrases=tuple(phrases))


def captioned_video(data: dict[str, Any], where: str) -> CaptionedVideo:
    """A video with captions of its parts, in order. Raises SampleProblem."""
    captions = []
    for name, entry in _entries(data, "captions", where):
        start, end = (_seconds(entry, key, name, where) for key in ("start", "end"))
        if start >= end:
            raise _refuse(where, name, f"it starts at {start:g} s and ends at {end:g} s.", ProblemKind.TIMES)
        text = _text(entry, "caption", where, f"{name}.")
        captions.append(TimedCaption(start_seconds=start, end_seconds=end, text=text))
    return CaptionedVideo(video=_text(data, "video", where), captions=tuple(sorted(captions)))


def _picture(data: dict[str, Any], field: str, text_key: str, where: str) -> PictureFacts:
    width_px, height_px = (_count(data, key, where) for key in ("width", "height"))
    places = []
    for name, entry in _entries(data, field, where):
        box = _box(entry.get("box"), width_px, height_px, f"{name}.box", where)
        places.append(PlacedText(box=box, text=_text(entry, text_key, where, f"{name}.")))
    caption = "" if data.get("caption") is None else _text(data, "caption", where)
    image = _text(data, "image", where)
    return PictureFacts(image=image, width_px=width_px, height_px=height_px, caption=caption, texts=tuple(places))


def _entries(data: dict[str, Any], field: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list with their names, such as `texts[3]`; at least one."""
    values = data.get(field)
    if not isinstance(values, list) or not values:
        raise _refuse(where, field, f"{shown(values)} is not a list with at least one entry.")
    if len(values) > MAX_PLACES:
        raise _refuse(where, field, f"{len(values)} entries, more than the {MAX_PLACES} that one line may have.")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise _refuse(where, f"{field}[{index}]", f"{shown(value)} is not an object.")
        yield f"{field}[{index}]", value


def _text(data: dict[str, Any], key: str, where: str, within: str = "", *, strip: bool = True) -> str:
    """A text that says something; its white space becomes single spaces, unless its characters are counted."""
    value = data.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _refuse(where, f"{within}{key}", f"{shown(value)} is not a text.")
    return " ".join(value.split()) if strip and key != "image" and key != "video" else value


def _count(data: dict[str, Any], key: str, where: str) -> int:
    value = data.get(key)
    if type(value) is not int or not 0 < value < 1_000_000:
        raise _refuse(where, key, f"{shown(value)} is not a number of pixels.")
    return value


def _seconds(data: dict[str, Any], key: str, within: str, where: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e7:
        raise _refuse(where, f"{within}.{key}", f"{shown(value)} is not a time in seconds.", ProblemKind.TIMES)
    return float(value)


def _box(value: Any, width_px: int, height_px: int, name: str, where: str) -> Box:
    """A box cut to the picture. Raises SampleProblem if nothing of it is inside."""
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 4 or not all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < math.inf
        for number in numbers
    ):
        raise _refuse(where, name, f"{shown(value)} is not x0, y0, x1, y1 in pixels.", ProblemKind.BOXES)
    x0, x1 = (min(max(number, 0), width_px) for number in numbers[::2])
    y0, y1 = (min(max(number, 0), height_px) for number in numbers[1::2])
    if x0 >= x1 or y0 >= y1:
        reason = f"{shown(value)} has no area within the {width_px}x{height_px} pixels."
        raise _refuse(where, name, reason, ProblemKind.BOXES)
    return float(x0), float(y0), float(x1), float(y1)


def _refuse(where: str, field: str, reason: str, kind: ProblemKind = ProblemKind.STRUCTURE) -> SampleProblem:
    return SampleProblem(kind, f"{field}: {reason} Correct or drop the line.", where)
