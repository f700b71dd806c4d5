"""Temporal grounding: when does something happen in a video, answered with intervals as text (paper sec. 3.2.4)."""

from collections.abc import Iterator

from vl3.data.catalogue.adapter import interval_text, turns
from vl3.data.derive.facts import CaptionedVideo, Line

_QUESTION = '<video>\nWhen does "{}" happen in the video? Please output the start and end timestamps in seconds.'
"""Its last sentence is that of the released evaluation."""


def moments(video: CaptionedVideo) -> Iterator[Line]:
    """One sample for each caption; one that stands there twice is asked for once, with both intervals."""
    by_caption: dict[str, tuple[str, list[str]]] = {}
    for caption in video.captions:
        words = caption.text.rstrip(".")
        intervals = by_caption.setdefault(words.casefold(), (words, []))[1]
        interval = interval_text(caption.start_seconds, caption.end_seconds)
        if interval not in intervals:
            intervals.append(interval)
    for words, intervals in by_caption.values():
        yield {
            "video": [video.video],
            "category": "temporal_grounding",
            "source": "moments",
            "conversations": turns(_QUESTION.format(words), ", ".join(intervals)),
        }
