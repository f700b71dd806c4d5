"""Streams: a long video is cut into clips of at most two minutes, at the ends of its captions (paper sec. 3.2.4).

    captions  0-50   60-110   100-160   165-200
    clips     0-50            60-160                  165-200 begins the next

A clip ends where no caption goes on. Where captions overlap for longer than a clip may last, it ends with the last one
that fits, and those that go on beyond it are dropped and counted: none is ever shown in part.
"""

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vl3.config.codec import from_dict
from vl3.data.derive.facts import CaptionedVideo, Line, TimedCaption
from vl3.data.derive.settings import read_settings
from vl3.errors import ConfigError

DEFAULT_BOUNDS = Path(str(files("vl3.data.derive"))) / "templates" / "streams.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """A number, and why it is that one."""

    value: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamBounds:
    """Which clips are used."""

    max_seconds: Bound
    """Length of a clip."""
    max_captions_a_minute: Bound
    min_captions_a_minute: Bound

    def __post_init__(self) -> None:
        least, most = self.min_captions_a_minute.value, self.max_captions_a_minute.value
        if not 0 < self.max_seconds.value < math.inf or not 0 <= least <= most < math.inf:
            raise ConfigError(
                f"The bounds of streams are {self.max_seconds.value:g} seconds and {least:g} to {most:g} captions a "
                "minute. Give a length above 0, and a least number that is not above the most."
            )


def read_bounds(path: Path = DEFAULT_BOUNDS) -> StreamBounds:
    """The bounds of a YAML file; of vl3's own by default.

    Raises:
        ConfigError: the file cannot be read, or is wrong.
    """
    return from_dict(StreamBounds, read_settings(path))


@dataclass(frozen=True, kw_only=True, slots=True)
class CutStreams:
    """The clips of a video, and what was dropped on the way."""

    lines: tuple[Line, ...]
    too_long_captions: int
    straddling_captions: int
    too_dense_clips: int
    too_sparse_clips: int


def cut_streams(video: CaptionedVideo, bounds: StreamBounds) -> CutStreams:
    """Cut a video into streams in which each caption is said when its part ends."""
    rest = [one for one in video.captions if one.end_seconds - one.start_seconds <= bounds.max_seconds.value]
    too_long = len(video.captions) - len(rest)
    lines: list[Line] = []
    straddling = dense = sparse = 0
    while rest:
        end = _end_of_clip(rest, bounds.max_seconds.value)
        clip = [one for one in rest if one.end_seconds <= end]
        after = [one for one in rest if one.start_seconds >= end]
        straddling += len(rest) - len(clip) - len(after)
        a_minute = 60 * len(clip) / (end - rest[0].start_seconds)
        is_dense = a_minute > bounds.max_captions_a_minute.value
        is_sparse = a_minute < bounds.min_captions_a_minute.value
        dense += is_dense
        sparse += is_sparse
        if not is_dense and not is_sparse:
            lines.append(_stream(video.video, clip, rest[0].start_seconds, end))
        rest = after
    return CutStreams(
        lines=tuple(lines),
        too_long_captions=too_long,
        straddling_captions=straddling,
        too_dense_clips=dense,
        too_sparse_clips=sparse,
    )


def _end_of_clip(captions: list[TimedCaption], max_seconds: float) -> float:
    """The last end of a caption that a clip can reach and where no caption goes on; if there is none, the last end."""
    start = captions[0].start_seconds
    near = [one for one in captions if one.start_seconds - start < max_seconds]
    ends = {one.end_seconds for one in near if one.end_seconds - start <= max_seconds}
    free = {end for end in ends if not any(one.start_seconds < end < one.end_seconds for one in near)}
    return max(free or ends)


def _stream(path: str, clip: list[TimedCaption], start: float, end: float) -> Line:
    messages = [{"role": "user", "content": "Describe what happens as you watch.", "time": start}]
    messages += [
        {"role": "assistant", "content": one.text, "time": one.end_seconds}
        for one in sorted(clip, key=lambda one: (one.end_seconds, one))
    ]
    return {
        "video": [path],
        "source": "stream",
        "stream": True,
        "start_time": start,
        "end_time": end,
        "conversation": messages,
    }
