r"""Parquet with embedded pictures, as Hugging Face's `datasets` writes it, with questions and answers.

    image       {"bytes": ..., "path": "a.png"} or a list of them, or a path
    question    "What?"      answer  "A cat."   (or answers ["A cat.", "cat"], of which the first is taken)
    ground_truth  "{\"gt_parse\": {\"text_sequence\": \"..\"}}"   (SynthDoG)
    questions   {"question": ["What?", ..], "answer": ["A cat.", ..]}   (PixMo-Docs)
    texts       [{"user": "What?", "assistant": "A cat."}]   (the Cauldron and Docmatix)

Layouts: HuggingFaceM4/Docmatix and HuggingFaceM4/the_cauldron, dataset cards; naver-clova-ix/synthdog-en, dataset card;
allenai/pixmo-docs as NVIDIA's Megatron-LM reads it; `datasets.Image` in the documentation of `datasets`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Parquet:
    """Which files, and the names of the columns."""

    files: tuple[str, ...]
    images: str = "image"
    question: str = ""
    """Column with the question; empty: `prompt` is asked each time."""
    answer: str = ""
    """Column with the answer, or with a list of which the first is taken."""
    answer_keys: tuple[str, ...] = ()
    """Where the answer is within the column if that has JSON, such as `gt_parse`, `text_sequence`."""
    texts: str = ""
    """Column with a list of turns `{"user", "assistant"}`, instead of question and answer."""
    questions: str = ""
    """Column with lists of equal length, `{"question": [..], "answer": [..]}`, instead of question and answer."""
    conversations: str = ""
    """Column with a list of turns `{"from", "value"}`, instead of question and answer."""
    prompt: str = "Describe the image."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each row."""
        for pattern in self.files:
            yield from folder.parquet_items(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each row."""
        line: dict[str, Any] = {"conversations": self._turns(item.data)}
        if item.data.get(self.images):
            line["image"] = item.data[self.images]
        yield line

    def _turns(self, row: dict[str, Any]) -> list[dict[str, str]]:
        if self.conversations:
            return row[self.conversations]
        if self.questions:
            pairs = zip(row[self.questions]["question"], row[self.questions]["answer"], strict=True)
            return turns(*(text for pair in pairs for text in pair))
        if self.texts:
            return turns(*(turn[role] for turn in row[self.texts] for role in ("user", "assistant")))
        answer = row[self.answer]
        if self.answer_keys:
            answer = json.loads(answer)
            for key in self.answer_keys:
                answer = answer[key]
        return turns(
            row[self.question] if self.question else self.prompt, answer[0] if isinstance(answer, list) else answer
        )
