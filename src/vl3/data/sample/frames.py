"""Decoding: the frames at given times, in order, with no more than a group of pictures in memory.

One thread, one packet at a time. Where the wanted frames are far apart, decoding skips to the last keyframe before the
next one; if what the container calls a keyframe is none, it starts from the first packet, as ffmpeg's program does.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np

from vl3.data.sample.container import (
    ERROR_DETECTION,
    MAX_FRAME_PX,
    Clock,
    PacketTable,
    choose_stream,
    open_container,
    refuse_damage,
    undecodable,
)
from vl3.data.sample.media import MediaContent
from vl3.data.sample.problems import SampleProblem


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame and its time in the stream's time base."""

    time: int
    frame: av.VideoFrame


class FrameReader:
    """Decodes forward; ask for frames at increasing times. Close it."""

    def __init__(self, media: MediaContent, where: str, stream: av.VideoStream, table: PacketTable) -> None:
        """Nothing is decoded yet."""
        self._where, self._table = where, table
        self._context = stream.codec_context
        self._context.thread_count = 1
        self._context.options = {"err_detect": ERROR_DETECTION, "max_pixels": str(MAX_FRAME_PX)}
        self._packets = _Packets(media, where, table)
        self._may_jump = table.clock is not Clock.COUNTED
        self._size: tuple[int, int] | None = None
        self._start_at(0)

    def close(self) -> None:
        """Close what was opened to read the packets again."""
        self._packets.close()

    def first(self) -> av.VideoFrame:
        """The first frame; call it before `frame_at`.

        Raises:
            SampleProblem: there is none, or it is damaged.
        """
        if not self._fill():
            raise undecodable(self._where, "the video has no frame that can be decoded")
        return self._ready[0].frame

    def frame_at(self, time: int, *, jump: bool = True) -> TimedFrame:
        """The last frame with a time up to `time`. Without `jump`, all packets before it are decoded.

        Raises:
            SampleProblem: a packet up to that time is damaged, or there is no such frame.
        """
        if jump and self._may_jump:
            self._jump(time)
        if not self._jumped:
            return self._decode_to(time)
        try:
            return self._decode_to(time)
        except SampleProblem:  # perhaps only because decoding did not start at a keyframe
            self._may_jump = False
            self._start_at(0)
            return self._decode_to(time)

    def neighbours(self, time: int) -> tuple[list[av.VideoFrame], int]:
        """The frame at `time` between the one before and the one after, and its place among them.

        Call it after `frame_at`; of the frames 0 1 2, those of 0 are 0 and 1, and the place is 0.

        Raises:
            SampleProblem: a packet up to the frame after it is damaged.
        """
        if self._before is None and self._jumped:
            self._may_jump = False
            self._start_at(0)
            self._decode_to(time)
        self._fill()
        found = [self._before, self._latest, self._ready[0] if self._ready else None]
        return [item.frame for item in found if item is not None], int(self._before is not None)

    def decode_rest(self) -> None:
        """Decode what is left, to find damage.

        Raises:
            SampleProblem: a packet is damaged.
        """
        while self._fill():
            self._advance()

    def _start_at(self, place: int) -> None:
        if self._size is not None:
            self._context.flush_buffers()
        self._packets.go_to(place)
        self._ready: deque[TimedFrame] = deque()
        self._before: TimedFrame | None = None
        self._latest: TimedFrame | None = None
        self._newest: TimedFrame | None = None
        self._ended = False
        self._num_frames = 0
        self._jumped = place > 0

    def _jump(self, time: int) -> None:
        """Keyframes at 0, 4 and 8 s, now at 1 s: for the frame at 3 s decode on, for the one at 9 s skip to 8 s."""
        nearest = int(np.searchsorted(self._table.key_times_K, time, side="right")) - 1
        if nearest < 0 or self._table.key_places_K[nearest] <= self._packets.place:
            return
        if self._newest is None or self._newest.time < time:
            self._start_at(int(self._table.key_places_K[nearest]))

    def _decode_to(self, time: int) -> TimedFrame:
        while (self._latest is None or self._latest.time < time) and self._fill() and self._ready[0].time <= time:
            self._advance()
        if self._latest is None:
            raise undecodable(self._where, "a frame that is to be shown is missing")
        return self._latest

    def _advance(self) -> None:
        self._before, self._latest = self._latest, self._ready.popleft()

    def _fill(self) -> bool:
        """Whether there is a next frame; decodes until it is there."""
        while not self._ready and not self._ended:
            place = f"at frame {self._packets.place} of {self._table.num_packets}"
            packet = self._packets.next()
            self._ended = packet is None
            with refuse_damage(self._where, f"the video cannot be decoded {place}"):
                frames = self._context.decode(packet)
            for frame in frames:
                self._newest = self._timed(frame)
                self._ready.append(self._newest)
        found, promised = self._num_frames, len(self._table.times_F)
        if not self._ready and self._table.clock is Clock.COUNTED and found != promised:
            raise undecodable(self._where, f"{promised} packets gave {found} frames, whose times are therefore unknown")
        return bool(self._ready)

    def _timed(self, frame: av.VideoFrame) -> TimedFrame:
        """Check a frame and find its time."""
        times, size = self._table.times_F, (frame.width, frame.height)
        if frame.is_corrupt:
            raise undecodable(self._where, f"frame {self._num_frames} is damaged")
        self._size = self._size or size
        if size != self._size:
            (width, height), (before_width, before_height) = size, self._size
            raise undecodable(
                self._where, f"the size changes midway, from {before_width}x{before_height} px to {width}x{height} px"
            )
        if self._jumped and not self._num_frames and not frame.key_frame:
            raise undecodable(self._where, "a frame marked as a keyframe is none")
        time = frame.pts if self._table.clock is Clock.SHOWN else frame.dts
        if self._table.clock is Clock.COUNTED:
            time = int(times[self._num_frames]) if self._num_frames < len(times) else None
        if time is None:
            raise undecodable(self._where, f"frame {self._num_frames} has no time")
        if self._newest is not None and time < self._newest.time:
            raise undecodable(
                self._where, f"the time of frame {self._num_frames} is before that of the frame before it"
            )
        self._num_frames += 1
        return TimedFrame(time, frame)


class _Packets:
    """The packets in the order of decoding, from memory, or from the file again if they were too large to keep."""

    def __init__(self, media: MediaContent, where: str, table: PacketTable) -> None:
        self._media, self._where, self._table = media, where, table
        self._container: av.container.InputContainer | None = None
        self._source: Iterator[av.Packet] = iter(())
        self.place = 0
        """Place of the next packet."""

    def next(self) -> av.Packet | None:
        """The next packet, None at the end."""
        if self.place >= self._table.num_packets:
            return None
        if self._table.kept is None and self._container is None:
            self._open()
        self.place += 1
        return self._table.kept[self.place - 1] if self._table.kept is not None else next(self._source, None)

    def go_to(self, place: int) -> None:
        """Make `place` the place of the next packet."""
        if self._table.kept is not None:
            self.place = place
            return
        if place < self.place:
            self.close()
        while self.place < place:
            self.next()

    def close(self) -> None:
        """Close the file; the next packet is then the first again."""
        if self._container is not None:
            self._container.close()
        self._container, self.place = None, 0

    def _open(self) -> None:
        self._container = open_container(self._media, self._where)
        packets = self._container.demux(choose_stream(self._container, self._where))
        self._source = (packet for packet in packets if packet.size)
