"""Texts of a picture with their boxes.

    COCO-Text, TextOCR   {"imgs": {"1": {"file_name": .., "width": .., "height": ..}},
                          "anns": {"7": {"image_id": "1", "bbox": [x, y, w, h], "utf8_string": "STOP"}}}
    LSVT                 {"gt_0": [{"transcription": "..", "points": [[x, y], ..], "illegibility": false}]}
    ReCTS                gt/NAME.json: {"lines": [{"transcription": "..", "points": [x, y, ..], "ignore": 0}]}
    FUNSD                annotations/NAME.json: {"form": [{"text": "..", "box": [x0, y0, x1, y1]}]}

Layouts: andreasveit/coco-text, README and coco_text.py; textvqa.org/textocr, "Dataset"; the pages of the ICDAR 2019
challenges LSVT and ReCTS; guillaumejaume.github.io/FUNSD. The words of the sample are those of the paper's
Laion-OCR captions (sec. 3.2.2): `The texts in this image are A<box>[..]</box>, B<box>[..]</box>`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, box_text, refuse, turns
from vl3.data.catalogue.join import joined
from vl3.data.sample.image import image_size
from vl3.data.sample.media import file_media

_UNREADABLE = frozenset({"", ".", "###", "*"})
"""How the sets write a text that nobody could read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OcrBoxes:
    """Texts with boxes. Unreadable ones are left out; a picture with no other text is refused."""

    file: str
    kind: str
    """`coco_text`, `lsvt` or `rects`."""
    images: tuple[str, ...] = ("",)
    """Folders of the pictures; the first that has the file counts."""
    prompt: str = "Read all texts in the image and give their boxes."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each picture: its name, its size if the file says it, and pairs of text and box."""
        if self.kind == "coco_text":
            yield from self._coco_text(folder)
        elif self.kind == "lsvt":
            for item in folder.json_items(self.file, ""):
                name, texts = item.data
                yield Item(where=item.where, data={"file": f"{name}.jpg", "texts": texts})
        else:
            for name in folder.files(self.file):
                for item in folder.json_items(name):
                    data = {"file": f"{PurePosixPath(name).stem}.jpg", "texts": item.data["lines"]}
                    yield Item(where=name, data=data)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each picture."""
        path = next(
            (found for prefix in self.images if (folder.root / (found := f"{prefix}{item.data['file']}")).is_file()),
            f"{self.images[0]}{item.data['file']}",
        )
        height_px, width_px = item.data.get("size") or image_size(file_media(folder.path(path)), item.where)
        texts = [
            f"{text['transcription']}<box>[{box_text(_corners(text), width_px, height_px)}]</box>"
            for text in item.data["texts"]
            if text["transcription"].strip() not in _UNREADABLE
            and not (text.get("illegibility") or text.get("ignore") or text.get("legibility") == "illegible")
        ]
        if not texts:
            raise refuse(item, "the picture has no readable text.")
        yield {"image": path, "conversations": turns(self.prompt, f"The texts in this image are {', '.join(texts)}.")}

    def _coco_text(self, folder: Folder) -> Iterator[Item]:
        pairs = (
            (ann["image_id"], {**ann, "transcription": ann.get("utf8_string", "")})
            for ann in (item.data[1] for item in folder.json_items(self.file, "anns"))
        )
        with joined(pairs) as texts:
            for item in folder.json_items(self.file, "imgs"):
                key, image = item.data
                size = (image["height"], image["width"])
                data = {"file": image["file_name"], "size": size, "texts": texts.of(image.get("id", key))}
                yield Item(where=f"{self.file}:image {key}", data=data)


@dataclass(frozen=True, kw_only=True, slots=True)
class FormWords:
    """The text of a scanned form in the order of its file, one line for each entity."""

    files: str = "training_data/annotations/*.json"
    images: str = "training_data/images/"
    prompt: str = "Read the text of the document."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each form."""
        for name in folder.files(self.files):
            for item in folder.json_items(name):
                yield Item(where=name, data={"name": PurePosixPath(name).stem, "form": item.data["form"]})

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each form."""
        text = "\n".join(entity["text"] for entity in item.data["form"] if entity["text"].strip())
        yield {"image": f"{self.images}{item.data['name']}.png", "conversations": turns(self.prompt, text)}


def _corners(text: dict[str, Any]) -> Sequence[float]:
    """The box around a text as x0, y0, x1, y1: of points `[[1, 2], [5, 2], [5, 4]]` it is 1, 2, 5, 4."""
    if "bbox" in text:
        x, y, width, height = text["bbox"]
        return x, y, x + width, y + height
    points = text["points"]
    flat = [value for point in points for value in (point if isinstance(point, list) else [point])]
    return min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2])
