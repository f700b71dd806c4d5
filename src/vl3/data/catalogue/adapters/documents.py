"""Questions about documents of several pages: DUDE.

    {"data": [{"docId": "a1", "question": "..", "answers": [".."], "answer_type": "extractive", "data_split": "train"}]}
    images/train/a1_0.jpg, a1_1.jpg, ..     its pages

Layout: duchallenge-team/dude, README and the loader of its baselines.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, refuse, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Documents:
    """One sample for each question, with all pages of its document."""

    file: str
    split: str = "train"
    images: str = "images/{split}/{doc}_{page}.jpg"
    """Path of a page."""
    first_page: int = 0
    unanswerable: str = "The document does not answer this question."
    """What is answered where the set says that there is no answer."""

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each question of the split."""
        for item in folder.json_items(self.file, "data"):
            if item.data[1].get("data_split") == self.split:
                yield Item(where=item.where, data=item.data[1])

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each question."""
        data = item.data
        pages: list[str] = []
        while True:
            page = self.images.format(split=self.split, doc=data["docId"], page=self.first_page + len(pages))
            if not (folder.root / page).is_file():
                break
            pages.append(page)
        if not pages:
            raise refuse(item, f"there is no page {page}.")
        answers = data["answers"]
        answer = self.unanswerable if data.get("answer_type") == "not-answerable" else str(answers[0])
        yield {"image": pages, "conversations": turns(data["question"], answer)}
