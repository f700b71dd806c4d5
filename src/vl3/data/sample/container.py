"""A video file's container: opened by lists of formats and codecs, from local bytes only, and the table of its packets.

Nothing in a media file makes libav open anything else: a playlist, an SDP or an edit list of other files is not on the
list of formats, and no protocol is on the list of protocols. All packets are read once to know the time of each frame;
of their data no more than `KEPT_BYTES` is kept, a larger file is read again when it is decoded.

**Index.** An MP4 has the place, size and times of all its frames in its header. Of a large one that was checked before
(`whole=False`), only the header is read: libav walks through the packets as always, over zeros in place of their data.
What it checks is then the header, and that the file is long enough for every frame; not that a frame can be decoded.

**Damage.** What ffmpeg's program reports as an error (`ffmpeg -v error -xerror`) refuses the file: libav's error lines
are caught, because for most damage it only logs one and hands out a repaired frame. On 384 damaged clips of 24
containers and codecs, 301 of which the program reported, exceptions and `is_corrupt` missed 77, `err_detect=explode`
with them 70, error lines 1. `crccheck+bitstream+buffer+explode` beside them finds 5 more whose damage is plain to see
and that the program passes, and refuses none of seven intact real videos.
"""

import io
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import islice
from typing import TypeAlias, cast

import av
import av.error
import av.logging
import numpy as np
from av.container import Flags
from av.stream import Discard, Disposition

from vl3.data.sample.media import MediaContent, media_bytes, open_media
from vl3.data.sample.problems import ProblemKind, SampleProblem

FORMATS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4",
    "matroska,webm": "Matroska",
    "avi": "AVI",
    "flv": "FLV",
    "mpeg": "MPEG-PS",
    "mpegts": "MPEG-TS",
    "asf": "ASF",
    "ogg": "Ogg",
    "gif": "GIF",
    "apng": "APNG",
}
"""Containers whose frames bear times, by libav's names, and whose demuxers open nothing but the file."""
CODECS = frozenset(
    [
        "apng",
        "av1",
        "cinepak",
        "dnxhd",
        "dvvideo",
        "ffv1",
        "ffvhuff",
        "flv",
        "gif",
        "h261",
        "h263",
        "h263i",
        "h263p",
        "h264",
        "hevc",
        "huffyuv",
        "libdav1d",
        "mjpeg",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "mpegvideo",
        "msmpeg4",
        "msmpeg4v1",
        "msmpeg4v2",
        "msmpeg4v3",
        "msvideo1",
        "png",
        "prores",
        "qtrle",
        "rawvideo",
        "rpza",
        "svq1",
        "svq3",
        "theora",
        "utvideo",
        "v210",
        "vc1",
        "vp3",
        "vp6",
        "vp6a",
        "vp6f",
        "vp8",
        "vp9",
        "vvc",
        "wmv1",
        "wmv2",
        "wmv3",
    ]
)
"""Decoders of videos by libav's names."""
SOUND_CODECS = frozenset(
    [
        "aac",
        "ac3",
        "alac",
        "amrnb",
        "amrwb",
        "eac3",
        "flac",
        "mp1float",
        "mp2",
        "mp2float",
        "mp3",
        "mp3float",
        "opus",
        "vorbis",
        "pcm_alaw",
        "pcm_mulaw",
        "pcm_s16be",
        "pcm_s16le",
        "pcm_s24le",
        "pcm_u8",
        "wmapro",
        "wmav1",
        "wmav2",
    ]
)
"""Decoders of sound that libav may use to find out what is in a file. Sound itself is not decoded."""
INDEXED_CODECS = frozenset(["av1", "h264", "hevc", "libdav1d", "mpeg4", "vp9"])
"""Decoders of videos that libav does not parse to find their packets in an MP4."""
ERROR_DETECTION = "crccheck+bitstream+buffer+explode"
KEPT_BYTES = 16 << 20
"""Packets up to this size together are kept from the first reading to the decoding."""
MAX_PACKETS = 4_000_000
"""37 hours at 30 frames per second; a table of so many packets has 100 MB."""
MAX_FRAME_PX = 36_000_000
"""8192 x 4320 pixels and a little more."""

_LIBAV_OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(sorted(CODECS | SOUND_CODECS)),
    "protocol_whitelist": "none",
}
_NOT_ON_LIST = "not on whitelist"
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MAX_BOXES = 100
_SEEKABLE = (_MP4, "matroska,webm")
_CHECKED_PICTURES = "jpeg_pipe,png_pipe,gif"
_BARE_STREAMS = frozenset(["h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "vvc"])
_PICTURE_FORMATS = ("_pipe", "image2")
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_DEFAULT_SCORE = 5_000_000
_MAX_TICKS = 2**61

LIBAV_ERRORS = (av.error.FFmpegError, OSError, ValueError, MemoryError)
"""What PyAV raises for a file."""

av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)  # else an error that the previous file had too is passed over


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


class MediaFile:
    """The bytes of a media file, as libav reads them."""

    def __init__(self, media: MediaContent) -> None:
        """Open the file.

        Raises:
            OSError: it cannot be opened.
        """
        self.length_bytes = media_bytes(media)
        self.blank = False
        """Give zeros in place of what is in the file, and read nothing."""
        self._file = open_media(media)

    def read(self, length: int) -> bytes:
        """The next bytes, fewer only at the end."""
        if not self.blank:
            return self._file.read(length)
        length = max(0, min(length, self.length_bytes - self.tell()))
        self._file.seek(length, io.SEEK_CUR)
        return bytes(length)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()


LoggedLines: TypeAlias = list[tuple[int, str, str]]
"""What libav logs: level, who, what."""


@contextmanager
def refuse_damage(where: str, what: str) -> Iterator[None]:
    """Turn libav's exceptions, and errors that it only logs, into a SampleProblem: `<what> (<libav's words>)`."""
    with av.logging.Capture(local=True) as lines:
        try:
            yield
        except LIBAV_ERRORS as error:
            raise damaged(where, what, lines, error) from error
    if lines:
        raise damaged(where, what, lines)


def damaged(where: str, what: str, lines: LoggedLines, error: Exception | None = None) -> SampleProblem:
    """The refusal of a file in which libav found damage: `<what> (<libav's words>)`."""
    reason = _words(lines) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return undecodable(where, f"{what} ({reason})")


def undecodable(where: str, what: str) -> SampleProblem:
    """The refusal of a file that is damaged or of no use as a video."""
    return SampleProblem(
        ProblemKind.UNDECODABLE, f"{what}. Replace the file with an intact video or drop the sample.", where
    )


def open_container(file: MediaFile, where: str) -> av.container.InputContainer:
    """Open a file of a known format.

    Raises:
        SampleProblem: the format is not known, or the header is damaged.
    """
    with av.logging.Capture(local=True) as lines:
        try:
            container = av.open(file, mode="r", container_options=_LIBAV_OPTIONS)
        except LIBAV_ERRORS as error:
            for _, name, line in lines:
                if line.startswith(f"Format {_NOT_ON_LIST}"):
                    raise undecodable(where, _unknown_format(name)) from error
            reason = _words(lines) or getattr(error, "strerror", None) or str(error)
            raise undecodable(where, f"the file cannot be opened as a video ({reason})") from error
    damage = [line for line in lines if line[1] not in SOUND_CODECS and _NOT_ON_LIST not in line[2]]
    if damage:
        container.close()
        raise undecodable(where, f"the file is damaged ({_words(damage)})")
    return container


def check_picture(media: MediaContent, where: str) -> None:
    """Refuse a JPEG, PNG or GIF in which libav finds damage: the libraries of PIL repair some of it without a word.

    What libav cannot read at all, but PIL can, is passed over.

    Raises:
        SampleProblem: libav reports an error.
    """
    options = {"format_whitelist": _CHECKED_PICTURES, "protocol_whitelist": "none"}
    with av.logging.Capture(local=True) as lines:
        try:
            with av.open(open_media(media), mode="r", container_options=options) as container:
                for packet in container.demux(container.streams.video[0]):
                    packet.decode()
        except NotImplementedError:
            return
        except (*LIBAV_ERRORS, IndexError, AttributeError) as error:
            if any(_NOT_ON_LIST in line for _, _, line in lines):
                return
            reason = _words(lines) or getattr(error, "strerror", None) or str(error)
            raise _damaged_picture(where, reason) from error
    if lines:
        raise _damaged_picture(where, _words(lines))


def choose_stream(container: av.container.InputContainer, where: str) -> av.VideoStream:
    """The stream that ffmpeg's program takes: the largest picture, and a default one before others.

    Raises:
        SampleProblem: there is none, it is a cover picture, or its codec is not known.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _COVER]
    if not streams:
        what = "only a still picture, such as the cover of a song" if container.streams.video else "no video stream"
        raise undecodable(where, f"the file has {what}")
    stream = max(streams, key=_score)
    context = stream.codec_context
    if context is None or context.codec is None:
        raise undecodable(where, "the codec of the video is unknown: there is no decoder for it")
    if context.codec.name not in CODECS:
        raise undecodable(where, f"the video is coded as {context.codec.name}: there is no decoder for it here")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


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


def _damaged_picture(where: str, reason: str) -> SampleProblem:
    return SampleProblem(
        ProblemKind.UNDECODABLE,
        f"the image is damaged ({reason}). Replace the file with an intact image or drop the sample.",
        where,
    )


def _score(stream: av.VideoStream) -> int:
    context = stream.codec_context
    size_px = context.width * context.height if context is not None else 0
    return size_px + _DEFAULT_SCORE * bool(stream.disposition & Disposition.default)


def _unknown_format(name: str) -> str:
    if name.endswith(_PICTURE_FORMATS[0]) or name == _PICTURE_FORMATS[1]:
        return f"the file is a picture ({name.removesuffix('_pipe')}), not a video; name a picture under `image`"
    if name in _BARE_STREAMS:
        return f"the file is a bare {name} stream, whose frames have no times; put it into a container such as MP4"
    return f"the file has the format {name or 'unknown'}, not one of {', '.join(FORMATS.values())}"


def _words(lines: LoggedLines) -> str:
    """The first error line of libav on one line, without addresses: `h264: error while decoding MB 0 2`."""
    if not lines:
        return ""
    _, name, line = lines[0]
    return ": ".join(part for part in (name, " ".join(line.split())) if part)


def time_base(stream: av.VideoStream) -> Fraction:
    """Seconds of a tick."""
    return stream.time_base or Fraction(1, av.time_base)
