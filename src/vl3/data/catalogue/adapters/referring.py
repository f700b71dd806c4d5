"""What an expression refers to: RefCOCO, RefCOCO+ and RefCOCOg; and VCR's questions about numbered persons and things.

    RefCOCO, as MDETR publishes it (the original is a pickle, which vl3 does not open)
        {"images": [{"id": 1, "file_name": .., "width": .., "height": .., "caption": "man in red"}],
         "annotations": [{"image_id": 1, "bbox": [x, y, w, h]}]}        one image entry for each expression
    VCR
        train.jsonl: {"img_fn": .., "metadata_fn": .., "objects": ["person", ..], "question": ["Why", "is", [0], ..],
                      "answer_choices": [[..], ..], "answer_label": 2, "rationale_choices": .., "rationale_label": 0}
        vcr1images/METADATA_FN: {"boxes": [[x0, y0, x1, y1, score], ..], "width": .., "height": ..}

Layouts: ashkamath/mdetr, .github/refexp.md; rowanz/r2c, data/README.md.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, box_text, turns
from vl3.data.catalogue.adapters.coco import images_with
from vl3.data.catalogue.json_stream import values


@dataclass(frozen=True, kw_only=True, slots=True)
class Referring:
    """Expression to box."""

    files: tuple[str, ...]
    images: str = "train2014/"
    prompt: str = "Where is {}? Answer in [[x0,y0,x1,y1]] format."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each expression, with its boxes as `objects`."""
        for pattern in self.files:
            for file in folder.files(pattern):
                pairs = ((i.data[1]["image_id"], i.data[1]["bbox"]) for i in folder.json_items(file, "annotations"))
                yield from images_with(folder, file, pairs)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each expression."""
        image = item.data
        boxes = [
            box_text([x, y, x + width, y + height], image["width"], image["height"])
            for x, y, width, height in image["objects"]
        ]
        question = self.prompt.format(image["caption"].strip().rstrip("."))
        yield {
            "image": f"{self.images}{image['file_name']}",
            "conversations": turns(question, f"[{','.join(boxes)}]"),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Vcr:
    """Question, answer and rationale, in which a number of an object becomes its name and box."""

    file: str = "train.jsonl"
    images: str = "vcr1images/"

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each question."""
        return folder.json_items(self.file)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each question: the answer, then why."""
        data = item.data
        (metadata,) = values(folder.path(f"{self.images}{data['metadata_fn']}"))
        names = [
            f"<ref>{name}</ref>[{box_text(box[:4], metadata['width'], metadata['height'])}]"
            for name, box in zip(data["objects"], metadata["boxes"], strict=True)
        ]
        question = _words(data["question"], names)
        answer = _words(data["answer_choices"][data["answer_label"]], names)
        reason = _words(data["rationale_choices"][data["rationale_label"]], names)
        yield {"image": f"{self.images}{data['img_fn']}", "conversations": turns(question, answer, "Why?", reason)}


def _words(tokens: list[Any], names: list[str]) -> str:
    """Tokens as text: `["Why", "is", [0], "here", "?"]` gives `Why is <ref>person</ref>[[..]] here?`."""
    parts = [" and ".join(names[index] for index in token) if isinstance(token, list) else token for token in tokens]
    return re.sub(r" ([?.,!;:']|n't)", r"\1", " ".join(parts))
