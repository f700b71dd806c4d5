"""A sentence and when it happens, one pair for each line: Charades-STA.

    AO8RW 0.0 6.9##a person is putting a book on a shelf.      video, start and end in seconds, sentence

Layout: jiyanggao/TALL, README ("Charades-STA annotations").
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, interval_text, refuse, turns
from vl3.data.catalogue.adapters.dense_video import WHEN

_LINE = re.compile(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)##(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """One sample for each line."""

    files: tuple[str, ...]
    videos: str = "Charades_v1_480/"
    prompt: str = WHEN

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each line."""
        for pattern in self.files:
            yield from folder.text_items(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each line."""
        found = _LINE.fullmatch(item.data)
        if found is None:
            raise refuse(item, f"{item.data!r:.120} is not `video start end##sentence`.")
        question = self.prompt.format(found[4].strip().rstrip("."))
        yield {
            "video": folder.find(f"{self.videos}{found[1]}"),
            "category": "temporal_grounding",
            "conversations": turns(question, interval_text(float(found[2]), float(found[3]))),
        }
