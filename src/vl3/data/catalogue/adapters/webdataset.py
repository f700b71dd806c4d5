"""Pairs in WebDataset tar files: a picture and its text, or a JSON object with the text, under one name.

    00000000.jpg 00000000.txt 00000000.json      img2dataset writes these three

Layout: webdataset/webdataset, README ("The WebDataset Format"); rom1504/img2dataset, README ("webdataset" output).
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, refuse, turns

_PICTURES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class WebDataset:
    """Which files, and where the text is."""

    files: tuple[str, ...] = ("*.tar",)
    text: str = "txt"
    """Suffix of the member with the text; `json:caption` for the key of a JSON member."""
    images: tuple[str, ...] = _PICTURES
    """Suffixes of pictures; the first that is there is taken."""
    prompt: str = "Describe the image."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each name."""
        for pattern in self.files:
            for item in folder.tar_items(pattern):
                pictures = {f"image.{suffix}": item.data[suffix] for suffix in self.images if suffix in item.data}
                yield Item(where=item.where, data=item.data, media=dict(list(pictures.items())[:1]))

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each name."""
        suffix, _, key = self.text.partition(":")
        if not item.media:
            raise refuse(item, f"there is no picture, only {', '.join(sorted(item.data))}.")
        if suffix not in item.data:
            raise refuse(item, f"there is no text .{suffix}, only {', '.join(sorted(item.data))}.")
        text = item.data[suffix].decode("utf-8")
        caption = json.loads(text)[key] if key else text
        yield {"image": list(item.media), "conversations": turns(self.prompt, caption)}
