"""A video file's container: opened by lists of formats and codecs, from local bytes only.

Nothing in a media file makes libav open anything else: a playlist, an SDP or an edit list of other files is not on the
list of formats, and no protocol is on the list of protocols.

**Damage.** What ffmpeg's program reports as an error (`ffmpeg -v error -xerror`) refuses the file: libav's error lines
are caught, because for most damage it only logs one and hands out a repaired frame. On 384 damaged clips of 24
containers and codecs, 301 of which the program reported, exceptions and `is_corrupt` missed 77, `err_detect=explode`
with them 70, error lines 1. `crccheck+bitstream+buffer+explode` beside them finds 5 more whose damage is plain to see
and that the program passes, and refuses none of seven intact real videos.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeAlias

import av
import av.error
import av.logging
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
ERROR_DETECTION = "crccheck+bitstream+buffer+explode"
MAX_FRAME_PX = 36_000_000
"""8192 x 4320 pixels and a little more."""

_LIBAV_OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(sorted(CODECS | SOUND_CODECS)),
    "protocol_whitelist": "none",
}
NOT_ON_LIST = "not on whitelist"
_BARE_STREAMS = frozenset(["h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1", "vvc"])
_PICTURE_FORMATS = ("_pipe", "image2")
_COVER = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_DEFAULT_SCORE = 5_000_000

LIBAV_ERRORS = (av.error.FFmpegError, OSError, ValueError, MemoryError)
"""What PyAV raises for a file."""

av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)  # else an error that the previous file had too is passed over


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
    reason = words_of(lines) or getattr(error, "strerror", None) or str(error) or type(error).__name__
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
                if line.startswith(f"Format {NOT_ON_LIST}"):
                    raise undecodable(where, _unknown_format(name)) from error
            reason = words_of(lines) or getattr(error, "strerror", None) or str(error)
            raise undecodable(where, f"the file cannot be opened as a video ({reason})") from error
    damage = [line for line in lines if line[1] not in SOUND_CODECS and NOT_ON_LIST not in line[2]]
    if damage:
        container.close()
        raise undecodable(where, f"the file is damaged ({words_of(damage)})")
    return container


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


def words_of(lines: LoggedLines) -> str:
    """The first error line of libav on one line, without addresses: `h264: error while decoding MB 0 2`."""
    if not lines:
        return ""
    _, name, line = lines[0]
    return ": ".join(part for part in (name, " ".join(line.split())) if part)


def time_base(stream: av.VideoStream) -> Fraction:
    """Seconds of a tick."""
    return stream.time_base or Fraction(1, av.time_base)
