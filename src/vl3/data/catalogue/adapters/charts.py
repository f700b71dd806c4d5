"""Charts and what they say: Chart-to-Text, whose samples are files of one number.

    statista_dataset/dataset/imgs/7.png      the chart
    statista_dataset/dataset/captions/7.txt  its description
    statista_dataset/dataset/titles/7.txt    its title

Layout: vis-nlp/Chart-to-text, README.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartCaptions:
    """One sample for each caption file."""

    captions: tuple[str, ...]
    """Caption files, such as `statista_dataset/dataset/captions/*.txt`; charts are in `imgs` beside their folder."""
    prompt: str = "Describe the chart."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each caption."""
        for pattern in self.captions:
            for name in folder.files(pattern):
                yield Item(where=name, data=folder.path(name).read_text(encoding="utf-8", errors="replace"))

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each caption."""
        caption = PurePosixPath(item.where)
        path = caption.parent.parent / "imgs" / f"{caption.stem}.png"
        yield {"image": str(path), "conversations": turns(self.prompt, item.data)}
