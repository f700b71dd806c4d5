"""The makers by name: what each reads, and what it makes of one line."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from vl3.data.derive.facts import (
    Line,
    PictureFacts,
    captioned_video,
    phrased_picture,
    picture_regions,
    picture_texts,
)
from vl3.data.derive.moments import moments
from vl3.data.derive.ocr import document_text, ocr_caption, ocr_tasks, scene_text
from vl3.data.derive.regions import grounded_caption, region_captions
from vl3.data.derive.streams import StreamBounds, cut_streams

Maker = Callable[[dict[str, Any], str], Iterator[Line]]
"""Makes the samples of one line, given its object and its place. Raises SampleProblem."""
_Facts = TypeVar("_Facts")


def _plain(read: Callable[[dict[str, Any], str], _Facts], make: Callable[[_Facts], Iterator[Line]]) -> Maker:
    return lambda data, where: make(read(data, where))


PLAIN_MAKERS: dict[str, Maker] = {
    "ocr-captions": _plain(picture_texts, ocr_caption),
    "scene-text": _plain(picture_texts, scene_text),
    "document-text": _plain(picture_texts, document_text),
    "region-captions": _plain(picture_regions, region_captions),
    "grounded-captions": _plain(phrased_picture, grounded_caption),
    "moments": _plain(captioned_video, moments),
}
"""Makers that look at one line alone."""


@dataclass(kw_only=True, slots=True)
class OcrTasks:
    """The five OCR tasks. Two of them compare a picture with the last good one before it."""

    seed: int
    _former: PictureFacts | None = None
    _lines: int = 0

    def __call__(self, data: dict[str, Any], where: str) -> Iterator[Line]:
        """The samples of one picture."""
        self._lines += 1
        picture = picture_texts(data, where)
        former, self._former = self._former, picture
        return ocr_tasks(picture, former, Random(f"{self.seed}:{self._lines}"))


@dataclass(kw_only=True, slots=True)
class Streams:
    """Streams cut from long videos, with the numbers of what was dropped."""

    bounds: StreamBounds
    dropped: Counter[str] = field(default_factory=Counter)

    def __call__(self, data: dict[str, Any], where: str) -> Iterator[Line]:
        """The streams of one video."""
        cut = cut_streams(captioned_video(data, where), self.bounds)
        self.dropped["captions longer than a clip may be"] += cut.too_long_captions
        self.dropped["captions that go on beyond the end of a clip"] += cut.straddling_captions
        self.dropped["clips with too many captions a minute"] += cut.too_dense_clips
        self.dropped["clips with too few captions a minute"] += cut.too_sparse_clips
        yield from cut.lines
