"""The questions that a model is asked, held-out samples by category, and the right answer to each."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vl3.config.data import Category
from vl3.data.build.index import DatasetIndex
from vl3.data.sample.records import Record, StreamEvent, Turn
from vl3.errors import DataError
from vl3.evaluation.metrics import is_exact_match

SILENT = "(keeps watching)"
"""Shown for a stream in which the model never spoke."""
_TAGS = re.compile(r"\s*<(?:image|video)>\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class RightMoment:
    """When the model should first speak in a stream, and what it should say."""

    frame_index: int
    """Index of the stream message after which the answer is expected, no earlier and no later."""
    text: str
    """The expected answer."""


def choose_rows(
    index: DatasetIndex, samples_per_task: int, categories: Collection[Category] = ()
) -> dict[str, list[int]]:
    """Held-out rows to ask, by category in the order of Category.

    The choice depends only on the sample ids, not on the order of the annotations or a seed. Training samples are never
    chosen.

    Args:
        index: the dataset's index.
        samples_per_task: maximum number of rows per category.
        categories: the only categories to ask; empty asks all.

    Raises:
        DataError: the dataset has no usable held-out sample.
    """
    names, of_rows = index.column("sample_id").tolist(), index.column("category").tolist()
    chosen: dict[str, list[int]] = {one.value: [] for one in Category if not categories or one in categories}
    for row in sorted(index.usable_rows("heldout").tolist(), key=lambda row: _rank(names[row])):
        rows = chosen.get(of_rows[row])
        if rows is not None and len(rows) < samples_per_task:
            rows.append(row)
    chosen = {category: rows for category, rows in chosen.items() if rows}
    if not chosen:
        raise DataError(
            f"{index.folder} has no held-out sample without a problem{_of(categories)}, so nothing can be evaluated. "
            "Add annotations/heldout.jsonl to the data or raise data.holdout_fraction."
        )
    return chosen


def _of(categories: Collection[Category]) -> str:
    return f" in {', '.join(sorted(categories))} (evaluation.categories)" if categories else ""


def _rank(sample_id: str) -> bytes:
    return hashlib.sha256(sample_id.encode()).digest()


def question_text(record: Record) -> str:
    """The last question as a person reads it: without system turns, media tags and earlier turns."""
    return without_tags(question_prompt(record))


def question_prompt(record: Record) -> str:
    """The last question with a tag for each medium, without system turns and earlier turns."""
    messages: tuple[Turn | StreamEvent, ...] = record.events or record.turns
    last_answer = max(number for number, message in enumerate(messages) if message.role == "assistant")
    asked = [message.text for message in messages[:last_answer] if message.role == "user"]
    return asked[-1].strip() if asked else ""


def without_tags(prompt: str) -> str:
    """A prompt without the tags of its media."""
    return _TAGS.sub("\n", prompt).strip()


def right_moment(record: Record, timestamps_F: np.ndarray) -> RightMoment:
    """When the model should first speak in a streaming sample.

    Frames at 0, 1, 2 and 3 s and the first answer at 2.5 s: after frame 2.

    Args:
        record: a streaming sample.
        timestamps_F: times of its frames in seconds of the video.
    """
    event = next(event for event in record.events if event.role == "assistant")
    return RightMoment(frame_index=int((timestamps_F <= event.time_seconds).sum()) - 1, text=event.text)


def is_right_moment(frame_index: int | None, text: str, right: RightMoment) -> bool:
    """Whether a model first spoke after the right frame and gave the right answer."""
    return frame_index == right.frame_index and is_exact_match(text, right.text)


def spoken(frame_index: int | None, text: str, timestamps_F: np.ndarray, start_seconds: float) -> str:
    """A stream's answer with its time since the start of the stream: `3.0 s: red`."""
    if frame_index is None:
        return SILENT
    return f"{timestamps_F[frame_index] - start_seconds:.1f} s: {text}"
