"""A picture or a video and its caption, one pair for each item, in JSON, Parquet, CSV or TSV.

Of several captions `caption` names the column to take: in the catalogue a short one for stage 1 and a detailed one for
stage 2 of the paper (sec. 3.2.1 and 3.2.2).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import VIDEO_SUFFIXES, Folder, Item, refuse, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Captions:
    """Which files, and the names of the columns."""

    files: tuple[str, ...]
    image: str = "image"
    """Column with the path (or, in Parquet, the bytes) of the picture; empty if there are videos."""
    video: str = ""
    """Column with the path of the video, with or without its suffix."""
    caption: str = "caption"
    """Column with the caption; one with a list gives as many samples."""
    at: tuple[str, ...] = ()
    """Key of the JSON object's member that has the pairs, such as `data`."""
    media: str = ""
    """Folder of the media, put before their paths."""
    suffix: str = ""
    """Put after the paths of pictures that come without."""
    prompt: str = "Describe the image."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each pair."""
        for pattern in self.files:
            if pattern.endswith(".parquet"):
                yield from folder.parquet_items(pattern)
            elif pattern.endswith((".csv", ".tsv")):
                yield from folder.table_items(pattern)
            elif self.at:
                yield from (Item(where=item.where, data=item.data[1]) for item in folder.json_items(pattern, *self.at))
            else:
                yield from folder.json_items(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each caption."""
        captions = item.data[self.caption]
        for caption in captions if isinstance(captions, list) else [captions]:
            if not isinstance(caption, str):
                raise refuse(item, f"{self.caption}: {caption!r:.80} is not a text.")
            yield {**self._medium(item.data, folder), "conversations": turns(self.prompt, caption)}

    def _medium(self, data: dict[str, Any], folder: Folder) -> dict[str, Any]:
        if not self.video:
            value = data[self.image]
            return {"image": f"{self.media}{value}{self.suffix}" if isinstance(value, str | int) else value}
        path = f"{self.media}{data[self.video]}"
        return {"video": path if path.lower().endswith(VIDEO_SUFFIXES) else folder.find(path)}
