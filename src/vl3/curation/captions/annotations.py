"""What people marked in a picture, for a caption that is conditioned on it: objects with boxes, and masks.

One JSON object a picture, boxes in pixels as corners, in the column `annotations` of a batch:

    {"width": 640, "height": 480, "objects": [{"name": "dog", "box": [10, 20, 200, 300]}]}       COCO, Objects365
    {"width": 640, "height": 480, "masks": [{"box": [10, 20, 200, 300], "area_px": 31000}]}      SA-1B, without names

Shown to the model in thousandths of the picture, as InternVL2 writes boxes: the dog of 640x480 becomes [15,41,312,625].
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder
from vl3.data.catalogue.adapters.coco import images_with
from vl3.data.sample.problems import ProblemKind, SampleProblem, shown

_SCALE = 1000
MAX_BYTES = 4 * 2**20
"""Of one picture's annotations: a crowd has some hundred boxes, an SA-1B picture some hundred masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One object or mask."""

    name: str
    """As the file has it, so it can be any text; empty for a mask."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom in thousandths of the picture."""
    share: float
    """Of the picture's area: the mask's, or the box's."""


def parse_marks(text: str, where: str) -> tuple[Mark, ...]:
    """The marks of a picture, largest first.

    Raises:
        SampleProblem: the text is no such object, or a number is outside the picture.
    """
    if len(text) > MAX_BYTES:
        raise _refuse(where, f"the annotations have {len(text)} characters, more than the {MAX_BYTES} that are read")
    try:
        data = json.loads(text)
        width_px, height_px = _size(data["width"]), _size(data["height"])
        marks = [_mark(entry, "", width_px, height_px) for entry in data.get("masks", [])]
        marks += [_mark(entry, entry["name"], width_px, height_px) for entry in data.get("objects", [])]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _refuse(where, f"the annotations cannot be read ({type(error).__name__}: {shown(str(error))})") from error
    return tuple(sorted(marks, key=lambda mark: (-mark.share, mark.box, mark.name)))


def coco_annotations(folder: Folder, file: str) -> Iterator[tuple[str, str]]:
    """The pictures of a COCO or Objects365 file by name, each with its annotations as JSON.

    Raises:
        DataError: the file cannot be read, or is of another layout.
    """
    names = {item.data[1]["id"]: item.data[1]["name"] for item in folder.json_items(file, "categories")}
    pairs = (
        (item.data[1]["image_id"], (names[item.data[1]["category_id"]], item.data[1]["bbox"]))
        for item in folder.json_items(file, "annotations")
        if not item.data[1].get("iscrowd")
    )
    for item in images_with(folder, file, pairs):
        image = item.data
        objects = [{"name": name, "box": _corners(box)} for name, box in image["objects"]]
        yield image["file_name"], _json(image, objects=objects)


def sa1b_annotations(folder: Folder, pattern: str = "*.json") -> Iterator[tuple[str, str]]:
    """The pictures of SA-1B by name, each with its masks; one file each, as `sa_1.json` beside `sa_1.jpg`.

    Raises:
        DataError: a file cannot be read, or is of another layout.
    """
    for item in folder.json_items(pattern):
        image = item.data["image"]
        masks = [{"box": _corners(mask["bbox"]), "area_px": mask["area"]} for mask in item.data["annotations"]]
        yield image["file_name"], _json(image, masks=masks)


def _json(image: dict[str, Any], **marks: list[dict[str, Any]]) -> str:
    return json.dumps({"width": image["width"], "height": image["height"], **marks}, ensure_ascii=False)


def _corners(box: list[float]) -> list[float]:
    """Left, top, width and height become corners."""
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _mark(entry: dict[str, Any], name: Any, width_px: int, height_px: int) -> Mark:
    if not isinstance(name, str):
        raise TypeError(f"the name {shown(name)} is no text")
    x0, y0, x1, y1 = (float(number) for number in entry["box"])
    left, right = (min(max(number / width_px, 0.0), 1.0) for number in (x0, x1))
    top, bottom = (min(max(number / height_px, 0.0), 1.0) for number in (y0, y1))
    if not (left < right and top < bottom):
        raise ValueError(f"the box {shown(entry['box'])} has no area within {width_px}x{height_px} pixels")
    area = entry.get("area_px")
    share = (right - left) * (bottom - top) if area is None else float(area) / (width_px * height_px)
    if not 0 <= share <= 1:
        raise ValueError(f"a mask of {shown(area)} pixels is no part of {width_px}x{height_px} pixels")
    box = (int(left * _SCALE), int(top * _SCALE), int(right * _SCALE), int(bottom * _SCALE))
    return Mark(name=name, box=box, share=share)


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value < 1_000_000:
        raise ValueError(f"{shown(value)} is not a number of pixels")
    return value


def _refuse(where: str, reason: str) -> SampleProblem:
    return SampleProblem(ProblemKind.STRUCTURE, f"{reason}. Correct or drop them.", where)
