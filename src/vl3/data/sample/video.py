"""Videos: which frames to take, by the rule of the released code, and their pixels.

The released code takes frames with ffmpeg's `fps` filter (round=down): frame k is the last source frame of the
interval [k/fps, (k+1)/fps) and gets the timestamp k/fps. Seconds count from the start of the file, as in ffmpeg's
program and in a player: if the sound starts first, the first frame is later than 0 s. The times of all packets are read
first, so that the frames to take are known before they are decoded; only those are converted to RGB.

A video of 5 s at 4 frames per second (source frames 0 to 19), sampled at 1 frame per second:

    source frame    3    7   11   15   19      the last one of each second
    timestamp     0.0  1.0  2.0  3.0  4.0

Legend: F frames, H height, W width, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vl3.data.sample.container import (
    MediaFile,
    choose_stream,
    open_container,
    refuse_damage,
    time_base,
    undecodable,
)
from vl3.data.sample.display import FrameDisplay, look_of
from vl3.data.sample.frames import FrameReader
from vl3.data.sample.media import MediaContent, file_media
from vl3.data.sample.packets import has_index, read_packets
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.sampling import choose_frames

WHOLE_PX = 6_000_000_000
"""A video with fewer pixels is checked to its end: 2 minutes of 1920x1080 at 24 frames per second, a minute of work."""
MAX_SECONDS = 10**9
"""Times beyond 31 years are taken for damage."""

_INT64_SAFE = 2**62
_BROADCAST = ("mpegts", "mpeg", "ogg")
"""Formats that libav flags as having discontinuous times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """What is known about a video before its frames are taken."""

    duration_seconds: float
    fps: float
    width_px: int
    """As shown: after turning, with square pixels."""
    height_px: int
    num_frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePlan:
    """The frames to take: presentation times in the stream's time base, and the timestamps they get, in seconds."""

    pts_F: np.ndarray
    timestamps_F: np.ndarray

    def until(self, last_seconds: float) -> "FramePlan":
        """The frames with timestamps up to `last_seconds`."""
        kept = self.timestamps_F <= last_seconds
        return FramePlan(pts_F=self.pts_F[kept], timestamps_F=self.timestamps_F[kept])


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFrames:
    """Decoded frames and their times in seconds from the start of the video."""

    frames_FHWC: np.ndarray
    timestamps_F: np.ndarray


@contextmanager
def open_video(data: MediaContent | Path, where: str, *, whole: bool = False) -> Iterator["VideoSource"]:
    """Open a video to read its facts, plan and decode frames; a context manager that closes it.

    Args:
        data: the file.
        where: the sample, for messages.
        whole: read all of the file, and decode all frames (of a video of less than `WHOLE_PX` pixels), to find damage;
            else only what the planned frames need.

    Raises:
        SampleProblem: the bytes are not a video with frames, or the file is damaged. The message starts with `where`.
    """
    try:
        media = file_media(data) if isinstance(data, Path) else data
        file = MediaFile(media)
    except OSError as error:
        raise undecodable(where, f"the file cannot be read ({error.strerror})") from error
    with open_container(file, where) as container:
        source = VideoSource(container, file, media, where, whole=whole)
        try:
            yield source
        finally:
            source.close()


def decode_video(
    data: MediaContent | Path,
    *,
    fps: float,
    max_frames: int,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    where: str,
) -> VideoFrames:
    """Sample and decode a video at its original resolution.

    Raises:
        SampleProblem: the file cannot be decoded, or has no frame between start and end.
    """
    with open_video(data, where) as source:
        plan = source.plan(fps=fps, max_frames=max_frames, start_seconds=start_seconds, end_seconds=end_seconds)
        return VideoFrames(frames_FHWC=np.stack(list(source.frames(plan))), timestamps_F=plan.timestamps_F)


class VideoSource:
    """An open video whose packets have been read and whose first frame is decoded. Use `open_video`."""

    def __init__(
        self,
        container: av.container.InputContainer,
        file: MediaFile,
        media: MediaContent,
        where: str,
        *,
        whole: bool,
    ) -> None:
        """Read all packets of the video stream, or the index of a large file, and decode the first frame.

        Raises:
            SampleProblem: there is no video stream or no frame, or the file is damaged or cut short.
        """
        self._where, self._whole = where, whole
        self._stream = choose_stream(container, where)
        self._time_base = time_base(self._stream)
        by_index = not whole and not isinstance(media, bytes) and has_index(container, self._stream, file)
        self._table = read_packets(container, self._stream, where, file if by_index else None)
        self._times = self._table.times_F
        self._origin = self._find_origin(container)
        self._reader = FrameReader(media, where, self._stream, self._table)
        self._display = FrameDisplay(self._time_base)
        self.facts = self._facts()

    def close(self) -> None:
        """Release what decoding holds."""
        self._reader.close()

    def plan(
        self,
        *,
        fps: float,
        max_frames: int,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> FramePlan:
        """Choose the frames: `fps` per second from start to end (`choose_frames`), or `max_frames` if that is fewer.

        A slot is a frame's time in units of 1 / fps. At 2 fps from 10 s on, frames at 10.0, 10.2 and 10.5 s are in the
        slots 0, 0 and 1, and what is given out are the times 10.0 and 10.5 s.

        Raises:
            SampleProblem: there is no frame between start and end.
        """
        start_seconds = start_seconds or 0.0
        rate = Fraction(fps).limit_denominator(100_000)
        origin = self._origin + self._ticks(start_seconds)
        inside = self._times >= (origin if start_seconds else self._times[0])
        if end_seconds is not None:
            inside &= self._times < self._origin + self._ticks(end_seconds)
        times = self._times[inside]
        if not len(times):
            until = "the end" if end_seconds is None else f"{end_seconds} s"
            raise SampleProblem(
                ProblemKind.TIMES,
                f"the video of {self.facts.duration_seconds:.2f} s has no frame between {start_seconds} s and {until}. "
                "Correct start_time and end_time.",
                self._where,
            )
        scale = self._time_base * rate
        phase = self._table.phase_ticks
        slots = _slots(times - origin + phase, scale)
        end_ticks = int(times[-1]) + self._last_frame_ticks() - origin + phase
        end_slot = end_ticks * scale.numerator // scale.denominator
        chosen, wanted = choose_frames(slots, end_slot, max_frames)
        timestamps = start_seconds + (wanted - phase * scale.numerator // scale.denominator) / float(rate)
        return FramePlan(pts_F=times[chosen], timestamps_F=timestamps)

    def frames(self, plan: FramePlan) -> Iterator[np.ndarray]:
        """The planned frames in order, uint8 RGB (H, W, 3), all with the size of `facts`. Call it only once.

        Raises:
            SampleProblem: a packet up to a planned frame cannot be decoded, or a planned frame is damaged.
        """
        whole = self._whole and self.facts.num_frames * self.facts.width_px * self.facts.height_px < WHOLE_PX
        if not whole:
            self._reader.skip_all_but(plan.pts_F)
        for pts, repeats in zip(*np.unique(plan.pts_F, return_counts=True), strict=True):
            yield from [self._shown(int(pts))] * int(repeats)
        if whole:
            self._reader.decode_rest()

    def _shown(self, time: int) -> np.ndarray:
        found = self._reader.frame_at(time)
        with refuse_damage(self._where, f"the frame at {self._seconds(time):.2f} s cannot be shown"):
            look = look_of(found.frame, self._pixel_aspect())
            if look.shown_size != (self.facts.height_px, self.facts.width_px):
                raise ValueError("it is turned or stretched otherwise than the first one")
            if not found.frame.interlaced_frame:
                return self._display.rgb(found.frame, look)
        neighbours, place = self._reader.neighbours(time)
        with refuse_damage(self._where, f"the frame at {self._seconds(time):.2f} s cannot be deinterlaced"):
            return self._display.deinterlaced_rgb(neighbours, place, look)

    def _facts(self) -> VideoFacts:
        first = self._reader.first()
        with refuse_damage(self._where, "the video cannot be shown"):
            height_px, width_px = look_of(first, self._pixel_aspect()).shown_size
        duration = self._seconds(int(self._times[-1]) + self._last_frame_ticks())
        if abs(duration) > MAX_SECONDS:
            raise undecodable(self._where, f"it would last {duration:.0f} s, which is not plausible")
        rate = self._stream.average_rate
        return VideoFacts(
            duration_seconds=duration,
            fps=float(rate) if rate else len(self._times) / max(duration, 1e-6),
            width_px=width_px,
            height_px=height_px,
            num_frames=len(self._times),
        )

    def _find_origin(self, container: av.container.InputContainer) -> int:
        """Second 0 in the stream's time base, as in ffmpeg's program: where the file's first sound or picture starts.

        Sound from 0.00 s and frames from 0.08 s on: 0, so the first frame is at 0.08 s. In a broadcast format, whose
        times start anywhere, the video alone counts.
        """
        if container.format.name in _BROADCAST or container.start_time is None:
            return self._stream.start_time if self._stream.start_time is not None else int(self._times[0])
        return round(Fraction(container.start_time, av.time_base) / self._time_base)

    def _pixel_aspect(self) -> Fraction | None:
        """Width by height of a pixel; what the container says goes before what the codec says."""
        return self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio

    def _seconds(self, time: int) -> float:
        return float((time - self._origin) * self._time_base)

    def _ticks(self, seconds: float) -> int:
        return round(Fraction(seconds) / self._time_base)

    def _last_frame_ticks(self) -> int:
        """How long the last frame is shown, in the stream's time base."""
        if self._table.last_ticks:
            return self._table.last_ticks
        if len(self._times) > 1:
            return int(np.median(np.diff(self._times)))
        return round(1 / (self._stream.average_rate or Fraction(1)) / self._time_base)


def _slots(ticks_F: np.ndarray, scale: Fraction) -> np.ndarray:
    """Which interval each time is in: 0, 30 and 61 ticks at 1/20 of an interval a tick are in 0, 1 and 3."""
    if int(np.abs(ticks_F).max()) * scale.numerator < _INT64_SAFE:
        return ticks_F * scale.numerator // scale.denominator
    return np.array([int(tick) * scale.numerator // scale.denominator for tick in ticks_F], dtype=np.int64)
