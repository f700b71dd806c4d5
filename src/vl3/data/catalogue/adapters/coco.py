"""COCO's JSON: detection as objects with their boxes, and captions.

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],
     "annotations": [{"image_id": 1, "category_id": 18, "bbox": [x, y, w, h]}],    or "caption": "A dog."
     "categories": [{"id": 18, "name": "dog"}]}

Layouts: cocodataset.org, "Data format"; Objects365 v2 has the same (`zhiyuan_objv2_train.json`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, box_text, refuse, turns
from vl3.data.catalogue.join import joined


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoBoxes:
    """Detection: each sample names the objects of an image by category, with all boxes of each."""

    file: str
    images: str = ""
    """Folder of the pictures, put before `file_name`."""
    prompt: str = "Detect all objects in the image and give their boxes in [[x0,y0,x1,y1]] format."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each image, with its annotations as `objects`."""
        names = {item.data[1]["id"]: item.data[1]["name"] for item in folder.json_items(self.file, "categories")}
        pairs = (
            (item.data[1]["image_id"], (names[item.data[1]["category_id"]], item.data[1]["bbox"]))
            for item in folder.json_items(self.file, "annotations")
        )
        yield from images_with(folder, self.file, pairs)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each image that has objects."""
        image = item.data
        by_name: dict[str, list[str]] = {}
        for name, (x, y, width, height) in image["objects"]:
            box = box_text([x, y, x + width, y + height], image["width"], image["height"])
            by_name.setdefault(name, []).append(box)
        if not by_name:
            raise refuse(item, "the image has no annotation.")
        answer = ", ".join(f"<ref>{name}</ref>[{','.join(boxes)}]" for name, boxes in by_name.items())
        yield {"image": f"{self.images}{image['file_name']}", "conversations": turns(self.prompt, answer)}


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoCaptions:
    """Captions: one sample for each caption of an image."""

    file: str
    images: str = ""
    prompt: str = "Describe the image briefly."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each image, with its captions as `objects`."""
        pairs = (
            (item.data[1]["image_id"], item.data[1]["caption"]) for item in folder.json_items(self.file, "annotations")
        )
        yield from images_with(folder, self.file, pairs)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each caption."""
        for caption in item.data["objects"]:
            path = f"{self.images}{item.data['file_name']}"
            yield {"image": path, "conversations": turns(self.prompt, caption)}


def images_with(folder: Folder, file: str, pairs: Iterable[tuple[Any, Any]]) -> Iterator[Item]:
    """The images of a file, each with the values of the pairs that have its id, as `objects`."""
    with joined(pairs) as annotations:
        for item in folder.json_items(file, "images"):
            image = item.data[1]
            yield Item(where=f"{file}:image {image['id']}", data={**image, "objects": annotations.of(image["id"])})
