"""The table of a video's packets: the time and place of each frame, before any is decoded.

All packets are read once; of their data no more than `KEPT_BYTES` is kept, a larger file is read again when it is
decoded.

**Index.** An MP4 has the place, size and times of all its frames in its header. Of a large one that was checked before
(`whole=False`), only the header is read: libav walks through the packets as always, over zeros in place of their data.
What it checks is then the header, and that the file is long enough for every frame; not that a frame can be decoded.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import cast

import av
import numpy as np
from av.container import Flags

from vl3.data.sample.container import MediaFile, refuse_damage, undecodable

INDEXED_CODECS = frozenset(["av1", "h264", "hevc", "libdav1d", "mpeg4", "vp9"])
"""Decoders of videos that libav does not parse to find their packets in an MP4."""
KEPT_BYTES = 16 << 20
"""Packets up to this size together are kept from the first reading to the decoding."""
MAX_PACKETS = 4_000_000
"""37 hours at 30 frames per second; a table of so many packets has 100 MB."""
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MAX_BOXES = 100
_SEEKABLE = (_MP4, "matroska,webm")
_MAX_TICKS = 2**61


class Clock(Enum):
    """Where the time of a decoded frame comes from."""

    SHOWN = "pts"
    DECODED = "dts"
    """The time at which its packet is decoded: the container has no other, and frames are shown in that order."""
    COUNTED = "count"
    """Its place in the order of display: the container has only times of decoding, and frames are shown otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PacketTable:
    """The packets with data, in the order in which they are decoded. Times are in the stream's time base."""

    times_F: np.ndarray
    """Time of each frame that is shown, ascending."""
    clock: "Clock"
    """How a decoded frame is found in `times_F`."""
    phase_ticks: int
    """How much later than its time ffmpeg's program takes a frame to be shown."""
    last_ticks: int
    """Duration of the last packet, taken for that of the last frame; 0 if unknown."""
    key_times_K: np.ndarray
    """Time of each packet from which decoding can start, ascending."""
    key_places_K: np.ndarray
    """Place of each of them among all packets."""
    seek_times_K: np.ndarray | None
    """For which time to ask libav to find each of them in the file; None if the container has no index of times."""
    key_offsets_K: np.ndarray
    """Where each of them is in the file, in bytes; -1 if unknown."""
    num_packets: int
    kept: tuple[av.Packet, ...] | None
    """The packets, unless they are too large together."""


def has_index(container: av.container.InputContainer, stream: av.VideoStream, file: MediaFile) -> bool:
    """Whether the header, which has been read, has the places and times of all frames: an MP4 without fragments."""
    if container.format.name != _MP4 or stream.codec_context.name not in INDEXED_CODECS:
        return False
    before = file.tell()
    kinds = list(islice(_boxes(file), _MAX_BOXES))
    file.seek(before)
    is_complete = len(kinds) < _MAX_BOXES and b"moov" in kinds and b"moof" not in kinds
    return is_complete and len(stream.index_entries) > 0 and bool(stream.index_entries[0].is_keyframe)


def read_packets(
    container: av.container.InputContainer, stream: av.VideoStream, where: str, indexed: MediaFile | None = None
) -> PacketTable:
    """Read all packets, or if the container's file is passed as `indexed`, know them by its index (see `has_index`).

    Raises:
        SampleProblem: the file is damaged or cut short, or its frames have no times.
    """
    reading = _Reading(keeps=indexed is None)
    with refuse_damage(where, "the container cannot be read to its end"):
        if indexed is not None:
            indexed.blank = True
            container.flags |= cast(int, Flags.no_parse.value)  # nothing to parse; the seek ends what was begun
            container.seek(stream.index_entries[0].timestamp, stream=stream)
        for packet in container.demux(stream):
            reading.add(packet, where)
    if reading.num_packets < stream.frames:
        found, promised = reading.num_packets, stream.frames
        raise undecodable(where, f"the file is truncated: it has {found} of {promised} frames")
    return reading.table(stream, where)


class _Reading:
    """The columns of the packet table while the packets are read."""

    def __init__(self, *, keeps: bool) -> None:
        self.num_packets = 0
        self._pts, self._dts, self._places = array("q"), array("q"), array("q")
        self._key_pts, self._key_dts = array("q"), array("q")
        self._key_places, self._key_offsets = array("q"), array("q")
        self._lacks_pts = self._lacks_dts = False
        self._last_ticks = 0
        self._kept: list[av.Packet] | None = [] if keeps else None
        self._kept_bytes = 0

    def add(self, packet: av.Packet, where: str) -> None:
        if not packet.size:  # a frame that repeats the one before it, or the end
            return
        if packet.is_corrupt:
            raise undecodable(where, f"packet {self.num_packets} is damaged")
        self._keep(packet)
        place = self.num_packets
        self.num_packets += 1
        if self.num_packets > MAX_PACKETS:
            raise undecodable(where, f"the video has more than {MAX_PACKETS} frames, which is no plausible number")
        if packet.is_discard:  # decoded, but cut off by an edit list
            return
        self._lacks_pts |= packet.pts is None
        self._lacks_dts |= packet.dts is None
        pts = packet.pts if packet.pts is not None else packet.dts or 0
        self._pts.append(pts)
        self._dts.append(packet.dts if packet.dts is not None else pts)
        if packet.is_keyframe:
            self._key_pts.append(pts)
            self._key_dts.append(self._dts[-1])
            self._key_places.append(place)
            self._key_offsets.append(-1 if packet.pos is None else packet.pos)
        self._last_ticks = packet.duration or 0

    def _keep(self, packet: av.Packet) -> None:
        self._kept_bytes += packet.size
        if self._kept is not None and self._kept_bytes <= KEPT_BYTES:
            self._kept.append(packet)
        else:
            self._kept = None

    def table(self, stream: av.VideoStream, where: str) -> PacketTable:
        """The finished table.

        The packets of an AVI bear decoding times. With B-frames, the packets I P B B at 0 1 2 3 are shown as I B B P: a
        frame's time is not its packet's, but the frames in the order of display have the times 0 1 2 3. ffmpeg's
        program gives each frame the time at which the decoder hands it out, one or two frames later: the phase.
        """
        pts, dts = (np.frombuffer(column, dtype=np.int64) for column in (self._pts, self._dts))
        if not len(pts):
            raise undecodable(where, "the video has no frames")
        clock, delay = Clock.SHOWN, stream.codec_context.reorder_depth
        format_name = stream.container.format.name
        is_avi = format_name == "avi"
        if is_avi or self._lacks_pts:
            clock = Clock.COUNTED if delay else Clock.DECODED
        times = np.sort(pts if clock is Clock.SHOWN or self._lacks_dts else dts)
        if clock is not Clock.SHOWN and not is_avi and stream.start_time is not None:
            times = times - times[0] + stream.start_time
        no_times = self._lacks_pts and self._lacks_dts
        if no_times or 2 * len(np.unique(times)) < len(times):
            raise undecodable(where, f"its {len(times)} frames have no times, so none can be found by its second")
        if max(abs(int(times[0])), abs(int(times[-1]))) > _MAX_TICKS:
            raise undecodable(
                where, f"its frames have times up to {int(times[-1])} ticks, which is no plausible number"
            )
        keys = np.frombuffer(self._key_pts if clock is Clock.SHOWN else self._key_dts, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        seek_times = np.frombuffer(self._key_dts if format_name == _MP4 else self._key_pts, dtype=np.int64)[order]
        return PacketTable(
            times_F=times,
            clock=clock,
            phase_ticks=int(times[min(delay, len(times) - 1)] - times[0]) if is_avi and clock is Clock.COUNTED else 0,
            last_ticks=self._last_ticks,
            key_times_K=keys[order],
            key_places_K=np.frombuffer(self._key_places, dtype=np.int64)[order],
            seek_times_K=seek_times if format_name in _SEEKABLE and clock is Clock.SHOWN else None,
            key_offsets_K=np.frombuffer(self._key_offsets, dtype=np.int64)[order],
            num_packets=self.num_packets,
            kept=None if self._kept is None else tuple(self._kept),
        )


def _boxes(file: MediaFile) -> Iterator[bytes]:
    """Kinds of the boxes of an MP4, without those inside others: ftyp, moov, mdat; and moof if it has fragments.

    A box is its size (4 bytes), its kind (4) and its content; size 1: the size is in 8 more bytes; 0: up to the end.
    """
    at = 0
    while at < file.length_bytes:
        file.seek(at)
        head = file.read(16).ljust(16, b"\0")
        size, kind, long_size = struct.unpack(">I4sQ", head)
        yield kind
        size = long_size if size == 1 else size or file.length_bytes
        at += max(size, 8)
