"""Decoding: the frames at given times, in order, with no more than a group of pictures in memory.

One thread, one packet at a time. What no wanted frame needs is skipped:

- whole groups of pictures: up to the last keyframe before the next wanted frame, when that is further on. So it never
  decodes more than reading on would, whatever the keyframes;
- in between, frames that no other frame refers to: libav parses them and decodes none of them (`skip_frame`).

Frames I B B P B B P, of which the first and the last are wanted: the I, both P and no B are decoded.

If what is skipped turns out to be needed (what the container calls a keyframe is none, an error, a frame that is not
there), decoding starts from the first packet, first without skipping groups, then without skipping anything, as
ffmpeg's program does.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import av
import numpy as np

from vl3.data.sample.container import (
    ERROR_DETECTION,
    LIBAV_ERRORS,
    MAX_FRAME_PX,
    LoggedLines,
    MediaFile,
    choose_stream,
    damaged,
    open_container,
    undecodable,
)
from vl3.data.sample.media import MediaContent
from vl3.data.sample.packets import Clock, PacketTable
from vl3.data.sample.problems import SampleProblem


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A decoded frame and its time in the stream's time base."""

    time: int
    frame: av.VideoFrame


SKIPPING_CODECS = frozenset(["h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"])
"""Decoders whose `skip_frame` leaves the other frames as they are. That of VP8 does not: it loses a map of segments."""


class FrameReader:
    """Decodes forward; ask for frames at increasing times. Close it."""

    def __init__(self, media: MediaContent, where: str, stream: av.VideoStream, table: PacketTable) -> None:
        """Nothing is decoded yet."""
        self._where, self._table = where, table
        self._context = stream.codec_context
        self._context.thread_count = 1
        self._context.options = {"err_detect": ERROR_DETECTION, "max_pixels": str(MAX_FRAME_PX)}
        self._packets = _Packets(media, where, table)
        self._wanted: frozenset[int] | None = None
        self._jumps = False
        self._skipped: Literal["DEFAULT", "NONREF"] = "DEFAULT"
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
        with av.logging.Capture(local=True) as lines:
            if not self._fill(lines):
                raise undecodable(self._where, "the video has no frame that can be decoded")
        return self._ready[0].frame

    def skip_all_but(self, times_F: np.ndarray) -> None:
        """From now on, decode only what the frames at these times need; else all frames are decoded."""
        if self._table.clock is Clock.COUNTED:
            return
        self._jumps = True
        if self._table.clock is Clock.SHOWN and self._context.name in SKIPPING_CODECS:
            self._wanted = frozenset(times_F.tolist())

    def frame_at(self, time: int) -> TimedFrame:
        """The last frame with a time up to `time`.

        Raises:
            SampleProblem: a packet that was decoded up to that time is damaged, or there is no such frame.
        """
        if self._jumps:
            self._jump(time)
        while self._jumped or self._wanted is not None:
            try:
                found = self._decode_to(time)
                if found.time == time:
                    return found
            except SampleProblem:  # perhaps only because something was skipped
                pass
            if self._jumped:
                self._jumps = False
            else:
                self._wanted = None
            self._start_at(0)
        return self._decode_to(time)

    def neighbours(self, time: int) -> tuple[list[av.VideoFrame], int]:
        """The frame at `time` between the one before and the one after, and its place among them.

        Call it after `frame_at`; of the frames 0 1 2, those of 0 are 0 and 1, and the place is 0.

        Raises:
            SampleProblem: a packet up to the frame after it is damaged.
        """
        if self._wanted is not None:  # its neighbours may have been skipped
            self._wanted = None
            self._start_at(0)
            self.frame_at(time)
        if self._before is None and self._jumped:
            self._jumps = False
            self._start_at(0)
            self._decode_to(time)
        with av.logging.Capture(local=True) as lines:
            self._fill(lines)
        found = [self._before, self._latest, self._ready[0] if self._ready else None]
        return [item.frame for item in found if item is not None], int(self._before is not None)

    def decode_rest(self) -> None:
        """Decode what is left, to find damage.

        Raises:
            SampleProblem: a packet is damaged.
        """
        with av.logging.Capture(local=True) as lines:
            while self._fill(lines):
                self._advance()

    def _start_at(self, place: int) -> None:
        if self._size is not None:
            self._context.flush_buffers()
        self._packets.go_to(place)
        self._starts_from: int | None = None
        self._ready: deque[TimedFrame] = deque()
        self._before: TimedFrame | None = None
        self._latest: TimedFrame | None = None
        self._newest: TimedFrame | None = None
        self._ended = False
        self._num_frames = 0
        self._jumped = place > 0

    def _key_before(self, time: int) -> int | None:
        """Number of the last keyframe with a time up to `time`."""
        nearest = int(np.searchsorted(self._table.key_times_K, time, side="right")) - 1
        return nearest if nearest >= 0 else None

    def _jump(self, time: int) -> None:
        """Keyframes at 0, 4 and 8 s, now at 1 s: for the frame at 3 s decode on, for the one at 9 s skip to 8 s."""
        key = self._key_before(time)
        if key is None or self._table.key_places_K[key] <= self._packets.place:
            return
        if self._newest is None or self._newest.time < time:
            self._start_at(int(self._table.key_places_K[key]))
            if self._table.clock is Clock.SHOWN:
                self._starts_from = int(self._table.key_times_K[key])

    def _decode_to(self, time: int) -> TimedFrame:
        with av.logging.Capture(local=True) as lines:  # one for many packets: it takes as long as decoding a small one
            while (self._latest is None or self._latest.time < time) and self._fill(lines):
                if self._ready[0].time > time:
                    break
                self._advance()
        if self._latest is None:
            raise undecodable(self._where, "a frame that is to be shown is missing")
        return self._latest

    def _advance(self) -> None:
        self._before, self._latest = self._latest, self._ready.popleft()

    def _fill(self, lines: LoggedLines) -> bool:
        """Whether there is a next frame; decodes until it is there. `lines` is what libav logs meanwhile."""
        while not self._ready and not self._ended:
            try:
                frames = self._decode_next()
            except LIBAV_ERRORS as error:
                raise self._damaged(lines, error) from error
            if lines:
                raise self._damaged(lines)
            for frame in frames:
                self._newest = self._timed(frame)
                self._ready.append(self._newest)
        found, promised = self._num_frames, len(self._table.times_F)
        if not self._ready and self._table.clock is Clock.COUNTED and found != promised:
            raise undecodable(self._where, f"{promised} packets gave {found} frames, whose times are therefore unknown")
        return bool(self._ready)

    def _decode_next(self) -> list[av.VideoFrame]:
        packet = self._packets.next()
        while packet is not None and self._leads(packet):
            packet = self._packets.next()
        self._ended = packet is None
        is_unwanted = packet is not None and self._wanted is not None and packet.pts not in self._wanted
        skipped: Literal["DEFAULT", "NONREF"] = "NONREF" if is_unwanted else "DEFAULT"
        if skipped != self._skipped:
            self._context.skip_frame = self._skipped = skipped
        return self._context.decode(packet)

    def _leads(self, packet: av.Packet) -> bool:
        """Whether a frame is shown before the keyframe from which decoding started, and cannot be decoded from there.

        Frames B B I B B P of which the last four are shown after the I: the first two are sent after the I as well,
        refer to what was before it, and nothing after it refers to them.
        """
        return self._starts_from is not None and packet.pts is not None and packet.pts < self._starts_from

    def _damaged(self, lines: LoggedLines, error: Exception | None = None) -> SampleProblem:
        place = f"at frame {self._packets.place - 1} of {self._table.num_packets}"
        return damaged(self._where, f"the video cannot be decoded {place}", lines, error)

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
    """The packets in the order of decoding, from memory, or from the file again if they were not kept."""

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
            self._source = self._demux(*self._open())
        self.place += 1
        return self._table.kept[self.place - 1] if self._table.kept is not None else next(self._source, None)

    def go_to(self, place: int) -> None:
        """Make `place` the place of the next packet."""
        if self._table.kept is not None:
            self.place = place
            return
        if place and self._table.seek_times_K is not None:
            self._seek(place)
        if place < self.place:
            self.close()
        while self.place < place:
            self.next()

    def close(self) -> None:
        """Close the file; the next packet is then the first again."""
        if self._container is not None:
            self._container.close()
        self._container, self.place = None, 0

    def _seek(self, place: int) -> None:
        """Go to the keyframe at `place`, or to one before it, by the container's index; or else to the first packet."""
        assert self._table.seek_times_K is not None
        key = int(np.flatnonzero(self._table.key_places_K == place)[0])
        with av.logging.Capture(local=True) as lines:
            try:
                container, stream = self._open()
                container.seek(int(self._table.seek_times_K[key]), stream=stream)
                source = self._demux(container, stream)
                landed = next(source, None)
            except LIBAV_ERRORS:
                landed = None
        found = self._place_of(landed) if landed is not None and not lines else None
        if landed is None or found is None or found > place:
            self.close()
            return
        self.place, self._source = found, chain([landed], source)

    def _place_of(self, packet: av.Packet) -> int | None:
        """Place of a keyframe. An edit list may show one twice, so its place in the file alone does not say which."""
        table = self._table
        found = np.flatnonzero((table.key_offsets_K == packet.pos) & (table.key_times_K == packet.pts))
        return int(table.key_places_K[found[0]]) if len(found) == 1 else None

    def _open(self) -> tuple[av.container.InputContainer, av.VideoStream]:
        if self._container is None:
            self._container = open_container(MediaFile(self._media), self._where)
        return self._container, choose_stream(self._container, self._where)

    @staticmethod
    def _demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
        return (packet for packet in container.demux(stream) if packet.size)
