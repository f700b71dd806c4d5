"""Clips as samples in the project's annotation format: one for the caption, one for all pairs of a clip."""

from collections.abc import Sequence
from typing import Any

from vl3.config.data import Category
from vl3.curation.video.pairs import QuestionPair
from vl3.data.sample.records import VIDEO_TAG

_CAPTION_QUESTION = "Describe the video in detail."
"""What a sample asks; not what the captioner was asked."""


def clip_lines(
    video: str,
    sha256: str,
    span: tuple[float, float],
    caption: str,
    pairs: Sequence[QuestionPair],
    source: str,
) -> list[dict[str, Any]]:
    """The samples of one clip.

    Args:
        video: path of the file, relative to the data folder.
        sha256: its digest, from which the ids are made.
        span: start and end of the clip in seconds.
        caption: its dense caption.
        pairs: what was agreed; a clip without pairs has a caption alone.
        source: name of the dataset.
    """
    start, end = span
    name = f"{source}-{sha256[:24]}-{round(start * 1000)}"
    medium = {"path": video, "start": start, "end": end}
    lines = [_line(f"{name}-caption", source, medium, [(_CAPTION_QUESTION, caption)])]
    if pairs:
        lines.append(_line(f"{name}-pairs", source, medium, [(pair.question, pair.answer) for pair in pairs]))
    return lines


def _line(name: str, source: str, medium: dict[str, Any], turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    conversations = []
    for number, (question, answer) in enumerate(turns):
        tag = f"{VIDEO_TAG}\n" if number == 0 else ""
        conversations += [{"from": "human", "value": f"{tag}{question}"}, {"from": "gpt", "value": answer}]
    return {
        "id": name,
        "source": source,
        "category": Category.GENERAL_VIDEO.value,
        "video": medium,
        "conversations": conversations,
    }
