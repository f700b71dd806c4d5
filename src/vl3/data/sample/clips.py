"""The media that a line names: pictures by path, and clips: a file, an interval of one, or pictures shown at a rate.

"image": "a.png"                                                 one picture
"video": "v.mp4"                                                 a whole file
"video": ["v.mp4", {"path": "v.mp4", "start": 3.0, "end": 9.0}]  two clips, the second an interval
"video": {"frames": "v/", "fps": 2.0}                            the pictures of a folder, in the order of their names
"video": {"frames": ["v/1.jpg", "v/2.jpg"], "fps": 2.0}          pictures in the order of the list
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from vl3.data.sample.checks import IMAGE_TAG, VIDEO_TAG, finite_seconds
from vl3.data.sample.problems import ProblemKind, SampleProblem, field_problem, shown

MAX_CLIPS = 16
"""Clips of one sample. All are open while its frames are planned, each with up to 16 MiB of packets."""
MAX_FRAME_FILES = 100_000
"""Pictures of one clip: an hour at 25 frames per second."""
_MIN_FPS, _MAX_FPS = 0.0001, 1000
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
_FILE_KEYS = frozenset({"path", "start", "end"})
_FRAME_KEYS = frozenset({"frames", "fps", "start", "end"})
_TAGS = re.compile(f"{re.escape(IMAGE_TAG)}|{re.escape(VIDEO_TAG)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A video, or the part of one from `start_seconds` to `end_seconds` of the file (None: its own start, its own end).

    Pictures as a clip have `frames_fps`. Those of a folder are in `frames` once `list_frames` has looked.
    """

    path: str
    """The file; the folder of the pictures, or empty where they are listed."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    frames: tuple[str, ...] = ()
    frames_fps: float | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of all files that are read for it."""
        return (self.path,) if self.frames_fps is None else self.frames

    @property
    def name(self) -> str:
        """How a message calls it."""
        return self.path or self.frames[0]


Medium: TypeAlias = "str | Clip"
"""A picture, by its path, or a clip."""
NamesIn: TypeAlias = Callable[[str, str], Iterable[str]]
"""Lists the names in a folder of the data, given its path and the place of its line; raises SampleProblem."""


def parse_media(data: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[Clip, ...]]:
    """The pictures and the clips of a line, each in the line's order.

    Raises:
        SampleProblem: a value is none of the forms above.
    """
    images = data.get("image")
    paths = [] if images is None else [images] if isinstance(images, str) else images
    if not _are_paths(paths):
        raise field_problem(where, "image", f"{shown(images)} is not a path or a list of paths. Correct it.")
    videos = data.get("video")
    values = [] if videos is None else videos if isinstance(videos, list) else [videos]
    if len(values) > MAX_CLIPS:
        raise field_problem(where, "video", f"{len(values)} clips, a sample has at most {MAX_CLIPS}. Split the sample.")
    names = ["video" if not isinstance(videos, list) else f"video[{index}]" for index in range(len(values))]
    return tuple(paths), tuple(_clip(value, name, where) for value, name in zip(values, names, strict=True))


def in_prompt_order(texts: Sequence[str], images: Sequence[str], clips: Sequence[Clip]) -> tuple[Medium, ...]:
    """The media in the order of their tags, which is the order of their tokens.

    Texts `<image> a <video>` and `<image>` with pictures p, q and clip v give p, v, q.
    """
    waiting: dict[str, Iterator[Medium]] = {IMAGE_TAG: iter(images), VIDEO_TAG: iter(clips)}
    return tuple(next(waiting[tag]) for text in texts for tag in _TAGS.findall(text))


def list_frames(media: Sequence[Medium], names_in: NamesIn, where: str) -> tuple[Medium, ...]:
    """The media with the pictures of each folder listed; numbers in their names count as numbers.

    A folder with 10.jpg, 2.jpg and notes.txt has the frames 2.jpg and 10.jpg.

    Raises:
        SampleProblem: a folder leads outside the data folder, does not exist, or has no picture or more than
            MAX_FRAME_FILES.
    """
    return tuple(
        replace(item, frames=_pictures_in(item.path, names_in, where))
        if isinstance(item, Clip) and item.frames_fps is not None and not item.frames
        else item
        for item in media
    )


def _pictures_in(relative: str, names_in: NamesIn, where: str) -> tuple[str, ...]:
    names = []
    for name in names_in(relative, where):
        if Path(name).suffix.lower() in _PICTURES:
            names.append(name)
        if len(names) > MAX_FRAME_FILES:
            break
    if not 1 <= len(names) <= MAX_FRAME_FILES:
        found = f"more than {MAX_FRAME_FILES} pictures" if names else "no picture"
        reason = f"media folder {shown(relative)} has {found}. Correct the path, or drop the sample."
        raise SampleProblem(ProblemKind.MISSING_FILE, reason, where)
    return tuple(f"{relative.rstrip('/')}/{name}" for name in sorted(names, key=_natural))


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key by which `f2.jpg` comes before `f10.jpg`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part[0] in "0123456789" and len(part) < 300 else (1, 0, part) for part in parts], name


def _clip(value: Any, name: str, where: str) -> Clip:
    if isinstance(value, str) and value:
        return Clip(path=value)
    if not isinstance(value, dict):
        raise field_problem(where, name, f"{shown(value)} is neither a path nor an object with 'path' or 'frames'.")
    known = _FRAME_KEYS if "frames" in value else _FILE_KEYS
    if extra := sorted(value.keys() - known):
        raise field_problem(where, f"{name}.{extra[0]:.60}", f"unknown. A clip has {', '.join(sorted(known))}.")
    start, end = (None if value.get(key) is None else finite_seconds(value, key, where) for key in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        reason = f"{name}.end: {end:g} s is not after the start, {start or 0:g} s. Correct the times."
        raise SampleProblem(ProblemKind.TIMES, reason, where)
    if "frames" not in value:
        if not _are_paths([value.get("path")]):
            raise field_problem(where, f"{name}.path", f"{shown(value.get('path'))} is not a path. Correct it.")
        return Clip(path=value["path"], start_seconds=start, end_seconds=end)
    path, frames = _frames(value["frames"], f"{name}.frames", where)
    fps = _fps(value.get("fps"), f"{name}.fps", where)
    return Clip(path=path, frames=frames, frames_fps=fps, start_seconds=start, end_seconds=end)


def _frames(value: Any, name: str, where: str) -> tuple[str, tuple[str, ...]]:
    """Folder and frames: one of both is empty."""
    if isinstance(value, str) and value:
        return value, ()
    if not value or not _are_paths(value):
        raise field_problem(where, name, f"{shown(value)} is neither a folder nor a list of paths. Correct it.")
    return "", tuple(value)


def _fps(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _MIN_FPS <= value <= _MAX_FPS:
        reason = f"{shown(value)} is not a number of pictures per second from {_MIN_FPS} to {_MAX_FPS}. Write it."
        raise field_problem(where, name, reason)
    return float(value)


def _are_paths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(path, str) and path for path in value)
