"""Videos: which frames to take, by the rule of the released code, and their pixels.

The released code takes frames with ffmpeg's `fps` filter (round=down): frame k is the last source frame of the
interval [k/fps, (k+1)/fps) and gets the timestamp `start + k/fps`. All packets are read once, so that the frames to
take are known before anything is decoded; only those are converted to RGB.

A video of 5 s at 4 frames per second (source frames 0 to 19), sampled at 1 frame per second:

    source frame    3    7   11   15   19      the last one of each second
    timestamp     0.0  1.0  2.0  3.0  4.0

Legend: F frames, H height, W width, C channels.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import av.video.reformatter
import numpy as np

from vl3.data.sample.problems import ProblemKind, SampleProblem


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFacts:
    """What the container reports about a video, without decoding."""

    duration_seconds: float
    fps: float
    width_px: int
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
def open_video(data: bytes | Path, where: str) -> Iterator["VideoSource"]:
    """Open a video to read its facts, plan and decode frames; a context manager that closes it.

    Raises:
        SampleProblem: the bytes are not a video with frames, or the file is truncated. The message starts with `where`.
    """
    try:
        container = av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data), mode="r")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _undecodable(where, f"the file cannot be opened as a video ({_short(error)})") from error
    with container:
        yield VideoSource(container, where)


def decode_video(
    data: bytes | Path,
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
    """An open video whose packets have been read. Use `open_video`."""

    def __init__(self, container: av.container.InputContainer, where: str) -> None:
        """Read all packets of the first video stream.

        Raises:
            SampleProblem: there is no video stream or no frame, or the file ends before its last frame.
        """
        if not container.streams.video:
            raise _undecodable(where, "the file has no video stream")
        self._where = where
        self._stream = container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        try:
            self._packets = list(container.demux(self._stream))
        except (av.error.FFmpegError, OSError) as error:
            raise _undecodable(where, f"the container cannot be read to its end ({_short(error)})") from error
        self._time_base = self._stream.time_base or Fraction(1, av.time_base)
        self._pts = np.array(sorted(_pts(packet) for packet in self._packets if packet.size), dtype=np.int64)
        self._check_complete()
        self._decoder = _Decoder(self._stream, self._packets)
        self.facts = self._facts()

    def plan(
        self,
        *,
        fps: float,
        max_frames: int,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> FramePlan:
        """Choose the frames: `fps` per second between start and end, or `max_frames` spread evenly if that is fewer.

        Five source frames at 0.0, 0.2, 0.4, 0.6 and 0.8 s, sampled at fps=2; a slot is an interval of 0.5 s:

            slots   0 0 0 1 1       wanted 0 1       chosen 2 4, called 0.0 s and 0.5 s
            20 wanted frames and max_frames=6 give the wanted frames 0, 3, 7, 11, 15 and 19

        Raises:
            SampleProblem: there is no frame between start and end.
        """
        start_seconds = start_seconds or 0.0
        rate = Fraction(fps).limit_denominator(100_000)
        origin = self._origin_pts + self._ticks(start_seconds)
        inside = self._pts >= origin
        if end_seconds is not None:
            inside &= self._pts < self._origin_pts + self._ticks(end_seconds)
        pts = self._pts[inside]
        if not len(pts):
            until = "the end" if end_seconds is None else f"{end_seconds} s"
            raise SampleProblem(
                ProblemKind.TIMES,
                f"the video of {self.facts.duration_seconds:.2f} s has no frame between {start_seconds} s and {until}. "
                "Correct start_time and end_time.",
                self._where,
            )
        scale = self._time_base * rate
        slots = (pts - origin) * scale.numerator // scale.denominator
        end_slot = (int(pts[-1]) + self._last_frame_ticks() - origin) * scale.numerator // scale.denominator
        # A window shorter than one slot gives its first frame.
        wanted = np.arange(slots[0], max(end_slot, slots[0] + 1))
        chosen = np.searchsorted(slots, wanted, side="right") - 1 if end_slot > slots[0] else np.zeros(1, np.int64)
        timestamps = start_seconds + wanted / float(rate)
        if len(wanted) > max_frames:
            spread = np.linspace(0, len(wanted) - 1, max_frames).astype(np.int64)
            chosen, timestamps = chosen[spread], timestamps[spread]
        return FramePlan(pts_F=pts[chosen], timestamps_F=timestamps)

    def frames(self, plan: FramePlan) -> Iterator[np.ndarray]:
        """The planned frames in order, uint8 RGB (H, W, 3), all with the size in the container. Call it only once.

        Raises:
            SampleProblem: a packet up to a planned frame cannot be decoded, or a planned frame is damaged.
        """
        reformatter = av.video.reformatter.VideoReformatter()
        width_px, height_px = self.facts.width_px, self.facts.height_px
        for pts, repeats in zip(*np.unique(plan.pts_F, return_counts=True), strict=True):
            # One thread: starting swscale's thread pool takes ten times longer than converting a small frame.
            frame = reformatter.reformat(self._frame_at(int(pts)), width_px, height_px, "rgb24", threads=1)
            yield from [frame.to_ndarray()] * int(repeats)

    def _frame_at(self, pts: int) -> av.VideoFrame:
        """The frame shown at `pts`; decodes from the current position, or from a later keyframe if one is nearer."""
        try:
            frame = self._decoder.frame_at(pts)
        except (av.error.FFmpegError, OSError) as error:
            raise _undecodable(
                self._where, f"the frame at {self._seconds(pts):.2f} s cannot be decoded ({_short(error)})"
            ) from error
        if frame is None or frame.is_corrupt:
            raise _undecodable(self._where, f"the frame at {self._seconds(pts):.2f} s is damaged or missing")
        return frame

    def _check_complete(self) -> None:
        if not len(self._pts):
            raise _undecodable(self._where, "the video has no frames")
        if len(self._pts) < self._stream.frames:
            found, promised = len(self._pts), self._stream.frames
            raise _undecodable(self._where, f"the file is truncated: it has {found} of {promised} frames")
        context = self._stream.codec_context
        if not context.width or not context.height:
            raise _undecodable(self._where, f"the video has no size ({context.width}x{context.height} px)")

    def _facts(self) -> VideoFacts:
        end_pts = int(self._pts[-1]) + self._last_frame_ticks()
        duration = self._seconds(end_pts)
        rate = self._stream.average_rate
        return VideoFacts(
            duration_seconds=duration,
            fps=float(rate) if rate else len(self._pts) / max(duration, 1e-6),
            width_px=self._stream.codec_context.width,
            height_px=self._stream.codec_context.height,
            num_frames=len(self._pts),
        )

    @property
    def _origin_pts(self) -> int:
        return self._stream.start_time or 0

    def _seconds(self, pts: int) -> float:
        return float((pts - self._origin_pts) * self._time_base)

    def _ticks(self, seconds: float) -> int:
        return round(Fraction(seconds) / self._time_base)

    def _last_frame_ticks(self) -> int:
        """How long the last frame is shown, in the stream's time base."""
        durations = [packet.duration for packet in self._packets if packet.size and _pts(packet) == self._pts[-1]]
        if durations and durations[0]:
            return durations[0]
        if len(self._pts) > 1:
            return int(np.median(np.diff(self._pts)))
        return round(1 / (self._stream.average_rate or Fraction(1)) / self._time_base)


class _Decoder:
    """Decodes forward, one packet at a time, and skips to a later keyframe when one is nearer to the wanted frame.

    Keyframes at 0, 4 and 8 s, now at 1 s: for the frame at 3 s it decodes on, for the frame at 9 s it skips to 8 s.
    """

    def __init__(self, stream: av.VideoStream, packets: list[av.Packet]) -> None:
        self._context = stream.codec_context
        self._packets = packets
        self._next_packet = 0
        self._ready: list[av.VideoFrame] = []
        self._latest: av.VideoFrame | None = None
        keyframes = [
            (_pts(packet), index) for index, packet in enumerate(packets) if packet.size and packet.is_keyframe
        ]
        self._keyframe_pts = np.array([pts for pts, _ in keyframes], dtype=np.int64)
        self._keyframe_packets = [index for _, index in keyframes]

    def frame_at(self, pts: int) -> av.VideoFrame | None:
        """The last frame with a time up to `pts`; successive calls must pass increasing times."""
        self._jump(pts)
        while True:
            while self._ready:
                if self._ready[0].pts is not None and self._ready[0].pts > pts:
                    return self._latest
                self._latest = self._ready.pop(0)
                if self._latest.pts == pts:
                    return self._latest
            if self._next_packet >= len(self._packets):
                return self._latest
            self._ready += self._context.decode(self._packets[self._next_packet])
            self._next_packet += 1

    def _jump(self, pts: int) -> None:
        nearest = int(np.searchsorted(self._keyframe_pts, pts, side="right")) - 1
        if nearest < 0 or self._keyframe_packets[nearest] <= self._next_packet:
            return
        if any(frame.pts is not None and frame.pts >= pts for frame in self._ready):
            return
        self._context.flush_buffers()
        self._next_packet, self._ready, self._latest = self._keyframe_packets[nearest], [], None


def _pts(packet: av.Packet) -> int:
    return packet.pts if packet.pts is not None else packet.dts or 0


def _short(error: BaseException) -> str:
    """FFmpeg's message without the error number that PyAV adds."""
    return getattr(error, "strerror", None) or str(error)


def _undecodable(where: str, what: str) -> SampleProblem:
    return SampleProblem(
        ProblemKind.UNDECODABLE, f"{what}. Replace the file with an intact video or drop the sample.", where
    )
