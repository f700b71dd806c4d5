"""Streams: a long video is cut into clips of at most two minutes, at the ends of its captions (paper sec. 3.2.4).

    captions  0-50   60-110   100-160   165-200
    clips     0-50            60-160                  165-200 begins the next

A clip ends where no caption goes on. Where captions overlap for longer than a clip may last, it ends with the last one
that fits, and those that go on beyond it are dropped and counted: none is ever shown in part.
"""

from dataclasses import dataclass

from vl3.data.derive.facts import CaptionedVideo, TimedCaption
from vl3.data.derive.wording import Line


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamBounds:
    """Which clips are used. The paper names the two minutes; the densities are ours, as it has no numbers."""

    max_seconds: float = 120.0
    """Length of a clip (paper sec. 3.2.4)."""
    max_captions_a_minute: float = 20.0
    """One in three seconds: with a frame a second, more would be speech after nearly every frame."""
    min_captions_a_minute: float = 2.0
    """One in half a minute: with fewer, nearly all that is supervised is silence."""


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
    rest = [one for one in video.captions if one.end_seconds - one.start_seconds <= bounds.max_seconds]
    too_long = len(video.captions) - len(rest)
    lines: list[Line] = []
    straddling = dense = sparse = 0
    while rest:
        end = _end_of_clip(rest, bounds.max_seconds)
        clip = [one for one in rest if one.end_seconds <= end]
        after = [one for one in rest if one.start_seconds >= end]
        straddling += len(rest) - len(clip) - len(after)
        a_minute = 60 * len(clip) / (end - rest[0].start_seconds)
        dense += a_minute > bounds.max_captions_a_minute
        sparse += a_minute < bounds.min_captions_a_minute
        if bounds.min_captions_a_minute <= a_minute <= bounds.max_captions_a_minute:
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
    ends = [one.end_seconds for one in captions if one.end_seconds - start <= max_seconds]
    free = [end for end in ends if not any(one.start_seconds < end < one.end_seconds for one in captions)]
    return max(free or ends)


def _stream(path: str, clip: list[TimedCaption], start: float, end: float) -> Line:
    messages = [{"role": "user", "content": "Describe what happens as you watch.", "time": start}]
    messages += [
        {"role": "assistant", "content": one.text, "time": one.end_seconds}
        for one in sorted(clip, key=lambda one: (one.end_seconds, one))
    ]
    return {"video": [path], "stream": True, "start_time": start, "end_time": end, "conversation": messages}
