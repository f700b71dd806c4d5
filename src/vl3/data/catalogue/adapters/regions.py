"""Questions about regions of a picture: Osprey-724K.

    [{"file_name": "COCO_train2014_000000000009.jpg", "height": 480, "width": 640,
      "annotation": [{"segmentation": [[x, y, x, y, ..]]}],
      "conversations": [{"from": "human", "value": "What is <region1>?"}, {"from": "gpt", "value": "A bowl."}]}]

`osprey_detail_description.json` has `"description": ["<region1>: A bowl of .."]` in place of conversations. The model
has no masks as input, so a region is shown by its box.
Layout: CircleRadon/Osprey, dataset.md and osprey/datasets/osprey_724k.py.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, box_text, refuse, turns

_REGION = re.compile(r"<region(\d+)>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """A conversation about regions, or one description of each."""

    files: tuple[str, ...]
    images: str = "train2017/"
    keep_prefix: bool = False
    """Whether pictures are called as in the file; else the part up to the last `_` is dropped, as COCO 2017 has it."""
    prompt: str = "Describe {} in detail."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each picture."""
        for pattern in self.files:
            yield from folder.json_items(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each picture."""
        data = item.data
        boxes = [self._box(region, item) for region in data["annotation"]]
        name = data["file_name"] if self.keep_prefix else data["file_name"].rpartition("_")[2]
        if "description" in data:
            said = [text.partition(": ")[2] for text in data["description"]]
            pairs = zip(boxes, said, strict=True)
            conversation = turns(*(text for box, answer in pairs for text in (self.prompt.format(box), answer)))
        else:
            conversation = [
                {"from": turn["from"], "value": _REGION.sub(lambda found: boxes[int(found[1]) - 1], turn["value"])}
                for turn in data["conversations"]
            ]
        yield {"image": f"{self.images}{name}", "conversations": conversation}

    def _box(self, region: dict[str, Any], item: Item) -> str:
        """The box of a region as text, `the region [[0,0,500,900]]`."""
        polygons = region["segmentation"]
        if not isinstance(polygons, list):
            raise refuse(item, "a region is a run-length mask and not polygons, which the adapter cannot read.")
        points = [value for polygon in polygons for value in polygon]
        corners = (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]))
        return f"the region [{box_text(corners, item.data['width'], item.data['height'])}]"
