"""Documents of several pages in WebDataset tar files, with the text of each page: idl-wds.

    KEY.tif    the scanned pages
    KEY.json   {"pages": [{"text": ["line", ..], "bbox": [[x, y, w, h], ..], "score": [..]}]}, in reading order
    KEY.pdf    the same pages, which are not used

Layout: pixparse/idl-wds, dataset card. (pixparse/pdfa-eng-wds has its pages as PDF only.)
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageSequence, UnidentifiedImageError

from vl3.data.catalogue.adapter import Folder, Item, refuse, turns

MAX_PAGES = 100
MAX_PAGE_PX = 67_000_000
"""As for any picture of a sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebDocuments:
    """One sample for each page: the page and its text."""

    files: tuple[str, ...] = ("*.tar",)
    prompt: str = "Read the text of the document."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each document."""
        for pattern in self.files:
            yield from folder.tar_items(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each page that has text; blank ones are passed over."""
        if "tif" not in item.data or "json" not in item.data:
            raise refuse(item, f"a document needs .tif and .json, there are {', '.join(sorted(item.data))}.")
        texts = ["\n".join(page["text"]) for page in json.loads(item.data["json"])["pages"]]
        for text, page in zip(texts, _pages(item), strict=False):
            if text.strip():
                yield {"image": {"bytes": page, "path": "page.png"}, "conversations": turns(self.prompt, text)}


def _pages(item: Item) -> Iterator[bytes]:
    """Each page as a PNG."""
    try:
        with Image.open(io.BytesIO(item.data["tif"]), formats=("TIFF",)) as pages:
            for number, page in enumerate(ImageSequence.Iterator(pages)):
                if number == MAX_PAGES:
                    raise refuse(item, f"the document has more than {MAX_PAGES} pages.")
                if page.width * page.height > MAX_PAGE_PX:
                    raise refuse(item, f"page {number + 1} has {page.width}x{page.height} px, which is too large.")
                buffer = io.BytesIO()
                page.save(buffer, "PNG")
                yield buffer.getvalue()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise refuse(item, f"the pages cannot be decoded ({error}).") from error
