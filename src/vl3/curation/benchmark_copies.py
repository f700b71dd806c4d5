"""The pictures, frames and texts of published benchmarks, from the copies that evaluations use (`vl3 eval data`).

    docvqa/validation/17    the 18th question of the split: its picture by hash, its texts
    videomme/data/a.mp4     a video: frames at equal distances by hash

Every column of a question counts, whatever it is called: what is text there is text that a model is measured on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vl3.curation.scorers.image_facts import perceptual_hash
from vl3.curation.source import IMAGE_SUFFIXES, clean_text
from vl3.curation.video.guarded import GuardedProcess
from vl3.data.sample.image import decode_image
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.video import open_video
from vl3.evaluation.catalogue.card import find_files, read_rows
from vl3.evaluation.catalogue.copies import MEDIA_FOLDER, REPOSITORY_FOLDER
from vl3.evaluation.catalogue.entry import Benchmark

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".MP4")
FRAMES = 16
"""Frames of a video that are in the index: a picture of a training set was taken of any of its moments."""
_VIDEO_SECONDS = 600.0
_LONGEST_TEXT_CHARACTERS = 1 << 16
"""A longer one is a file in base64, not a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexEntry:
    """One picture or text of a benchmark."""

    item: str
    """Which item of which benchmark it is of."""
    phash: str | None = None
    """Hash of the picture; None for a text."""
    text: str = ""


@dataclass(kw_only=True, slots=True)
class CopyContent:
    """What was found in copies."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By benchmark: pictures, frames and texts."""
    unreadable: list[str] = field(default_factory=list)
    """Media that could not be decoded, each with its reason."""


def entries_of_copy(benchmark: Benchmark, copy: Path, content: CopyContent) -> Iterator[IndexEntry]:
    """Everything of a benchmark's copy.

    Args:
        benchmark: its entry.
        copy: the folder that `vl3 eval data` made.
        content: counts what is found, and notes what cannot be read.

    Raises:
        DataError: the copy lacks files.
    """
    counts = content.counts.setdefault(benchmark.name, {"pictures": 0, "frames": 0, "texts": 0})
    for part in benchmark.parts:
        for number, row in enumerate(read_rows(find_files(copy / REPOSITORY_FOLDER, part))):
            item = f"{benchmark.name}/{part.task}/{number}"
            for value in values_within(row):
                if isinstance(value, bytes):
                    yield from _picture(value, item, counts, content)
                elif text := clean_text(value):
                    counts["texts"] += 1
                    yield IndexEntry(item=item, text=text)
    yield from _media(benchmark, copy / MEDIA_FOLDER, counts, content)


def values_within(value: Any) -> Iterator[str | bytes]:
    """Texts and files of a row, however deep.

    {"q": "Which?", "image": {"bytes": b"..", "path": "a.png"}, "options": ["a", "b"]} gives Which?, b"..", a, b.
    """
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        if len(value) <= _LONGEST_TEXT_CHARACTERS:
            yield value
    elif isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):  # a picture as `datasets` stores one; its path is no text
            yield value["bytes"]
        else:
            for one in value.values():
                yield from values_within(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from values_within(one)


def frame_hashes(path: Path, where: str) -> list[str]:
    """Hashes of frames at equal distances.

    Raises:
        SampleProblem: the video cannot be decoded.
    """
    with open_video(path, where) as source:
        plan = source.plan(fps=1.0, max_frames=FRAMES)
        return [perceptual_hash(frame_HWC) for frame_HWC in source.frames(plan)]


def _picture(data: bytes, item: str, counts: dict[str, int], content: CopyContent) -> Iterator[IndexEntry]:
    try:
        phash = perceptual_hash(decode_image(data, item))
    except SampleProblem as problem:
        content.unreadable.append(str(problem))
        return
    counts["pictures"] += 1
    yield IndexEntry(item=item, phash=phash)


def _media(benchmark: Benchmark, folder: Path, counts: dict[str, int], content: CopyContent) -> Iterator[IndexEntry]:
    """Files beside the questions: pictures, and frames of videos."""
    guard = GuardedProcess(_VIDEO_SECONDS)
    try:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            item = f"{benchmark.name}/{path.relative_to(folder).as_posix()}"
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield from _picture(path.read_bytes(), item, counts, content)
            elif path.suffix in VIDEO_SUFFIXES:
                try:
                    hashes = guard.call(frame_hashes, path, item, where=item)
                except SampleProblem as problem:
                    content.unreadable.append(str(problem))
                    continue
                counts["frames"] += len(hashes)
                for phash in hashes:
                    yield IndexEntry(item=item, phash=phash)
    finally:
        guard.close()
