"""Captions whose phrases have boxes: Flickr30k Entities, as MDETR publishes it.

    {"images": [{"id": 1, "file_name": "1.jpg", "width": .., "height": .., "caption": "A man in a hat."}],
     "annotations": [{"image_id": 1, "bbox": [x, y, w, h], "tokens_positive": [[0, 5]]}]}

`tokens_positive` are ranges of characters of the caption. Layout: ashkamath/mdetr, .github/flickr.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, box_text, refuse, turns
from vl3.data.catalogue.adapters.coco import images_with


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundedCaptions:
    """A caption with `<ref>phrase</ref>[[box],..]` for each phrase that has boxes."""

    files: tuple[str, ...]
    images: str = "flickr30k-images/"
    prompt: str = "Describe the image and give the boxes of what you mention in [[x0,y0,x1,y1]] format."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each caption, with its boxes as `objects`."""
        for pattern in self.files:
            for file in folder.files(pattern):
                pairs = (
                    (i.data[1]["image_id"], (i.data[1]["tokens_positive"], i.data[1]["bbox"]))
                    for i in folder.json_items(file, "annotations")
                )
                yield from images_with(folder, file, pairs)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each caption."""
        image = item.data
        by_range: dict[tuple[int, int], list[str]] = {}
        for ranges, (x, y, width, height) in image["objects"]:
            box = box_text([x, y, x + width, y + height], image["width"], image["height"])
            for start, end in ranges:
                by_range.setdefault((start, end), []).append(box)
        if not by_range:
            raise refuse(item, "no phrase of the caption has a box.")
        answer = _marked(image["caption"], by_range)
        yield {"image": f"{self.images}{image['file_name']}", "conversations": turns(self.prompt, answer)}


def _marked(caption: str, boxes: dict[tuple[int, int], list[str]]) -> str:
    """The caption with its phrases marked; of overlapping phrases the first and longest.

    `A man runs` with {(0, 5): ["[1,2,3,4]"]} gives `<ref>A man</ref>[[1,2,3,4]] runs`.
    """
    text, at = "", 0
    for start, end in sorted(boxes, key=lambda span: (span[0], -span[1])):
        if at <= start < end <= len(caption):
            text += f"{caption[at:start]}<ref>{caption[start:end]}</ref>[{','.join(boxes[start, end])}]"
            at = end
    return text + caption[at:]
