"""A decoded frame as a player shows it: deinterlaced, turned, with square pixels, in RGB on white.

libav's filters do it, in the order of ffmpeg's program and with its colours (matrix, range and depth of each frame).
`frame.to_ndarray(format="rgb24")` does not: it is up to 111 grey levels off for 10-bit video.

Legend: H height, W width, C channels.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.buffer import Buffer

_MATRIX_BYTES = 36
_RIGHT_ANGLE = 90
_MAX_STRETCH = 20
_OPAQUE = 255


@dataclass(frozen=True, slots=True)
class Look:
    """What decides how a frame becomes RGB. Frames with the same look share a graph of filters."""

    width_px: int
    height_px: int
    pixel_format: str
    colour_space: int
    colour_range: int
    turns: tuple[tuple[str, str], ...]
    """Filters that bring the frame upright, with their arguments."""
    pixel_aspect: Fraction
    """Width of a pixel divided by its height."""

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width in pixels as shown: 720x576 with pixels 64:45 is 1024x576.

        Raises:
            ValueError: pixels so long are not plausible.
        """
        aspect = self.pixel_aspect
        if not 1 / _MAX_STRETCH <= aspect <= _MAX_STRETCH:
            raise ValueError(f"its pixels are {aspect.numerator} wide and {aspect.denominator} high")
        width, height = self.width_px, self.height_px
        if self._is_transposed:
            width, height, aspect = height, width, 1 / aspect
        return height, max(1, int(width * (aspect.numerator / aspect.denominator)))

    @property
    def _is_transposed(self) -> bool:
        return any(name == "transpose" for name, _ in self.turns)


def look_of(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> Look:
    """The look of a frame.

    Raises:
        ValueError: it is to be turned by an angle other than a multiple of 90 degrees.
    """
    return Look(
        frame.width,
        frame.height,
        frame.format.name,
        int(frame.colorspace),
        int(frame.color_range),
        _turns(frame),
        pixel_aspect if pixel_aspect and pixel_aspect > 0 else Fraction(1),
    )


class FrameDisplay:
    """Turns frames into RGB. Keeps the last graph of filters, because almost all frames of a video look the same."""

    def __init__(self, time_base: Fraction) -> None:
        """Args: time_base: seconds of a tick of the frames' times."""
        self._time_base = time_base
        self._look: Look | None = None
        self._graph: av.filter.Graph | None = None

    def rgb(self, frame: av.VideoFrame, look: Look) -> np.ndarray:
        """The frame as uint8 RGB (H, W, 3).

        Raises:
            av.error.FFmpegError: libav cannot convert it.
        """
        if self._graph is None or look != self._look:
            self._look, self._graph = look, _graph(look, self._time_base, deinterlace=False)
        self._graph.push(frame)
        return _on_white(_pulled(self._graph))

    def deinterlaced_rgb(self, neighbours: Sequence[av.VideoFrame], place: int, look: Look) -> np.ndarray:
        """The frame at `place` of successive frames, its two fields made one picture with the help of its neighbours.

        Raises:
            av.error.FFmpegError: libav cannot convert it.
        """
        graph = _graph(look, self._time_base, deinterlace=True)
        for frame in neighbours:
            graph.push(frame)
        graph.push(None)
        for _ in range(place):
            _pulled(graph)
        return _on_white(_pulled(graph))


def _graph(look: Look, time_base: Fraction, *, deinterlace: bool) -> av.filter.Graph:
    """buffer, bwdif, turn, square pixels, RGB. One thread: starting a pool takes longer than converting a frame."""
    graph = av.filter.Graph()
    graph.threads = 1
    nodes = [
        graph.add(
            "buffer",
            video_size=f"{look.width_px}x{look.height_px}",
            pix_fmt=look.pixel_format,
            time_base=f"{time_base.numerator}/{time_base.denominator}",
            pixel_aspect=f"{look.pixel_aspect.numerator}/{look.pixel_aspect.denominator}",
            colorspace=str(look.colour_space),
            range=str(look.colour_range),
        )
    ]
    if deinterlace:
        nodes.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
    nodes += [graph.add(name, arguments) for name, arguments in look.turns]
    if look.pixel_aspect != 1:
        nodes.append(graph.add("scale", "w=max(1\\,iw*sar):h=ih"))
    pixel_format = av.VideoFormat(look.pixel_format)
    see_through = pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)
    nodes += [graph.add("format", f"pix_fmts={'rgba' if see_through else 'rgb24'}"), graph.add("buffersink")]
    graph.link_nodes(*nodes)
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph) -> np.ndarray:
    frame = graph.pull()
    assert isinstance(frame, av.VideoFrame)
    return frame.to_ndarray()


def _on_white(pixels_HWC: np.ndarray) -> np.ndarray:
    """RGB of RGB or RGBA pixels: a black of which a third is opaque becomes (170, 170, 170)."""
    if pixels_HWC.shape[2] == 3:
        return pixels_HWC
    alpha_HW1 = pixels_HWC[..., 3:].astype(np.uint16)
    if (alpha_HW1 == _OPAQUE).all():
        return np.ascontiguousarray(pixels_HWC[..., :3])
    mixed = pixels_HWC[..., :3] * alpha_HW1 + (_OPAQUE - alpha_HW1) * _OPAQUE + _OPAQUE // 2
    return (mixed // _OPAQUE).astype(np.uint8)


def _turns(frame: av.VideoFrame) -> tuple[tuple[str, str], ...]:
    """The filters of ffmpeg's program (fftools, `configure_input_video_filter`) for the frame's display matrix.

    The matrix (0 1 0; -1 0 0), in units of 65536, turns by 90 degrees clockwise: `transpose=clock`.

    Raises:
        ValueError: the angle is no multiple of 90 degrees.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return ()
    a, b, _, c, d = matrix[:5]
    if not (a or c) or not (b or d):
        raise ValueError("its display matrix leaves no picture")
    angle = math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))) % 360
    quarter = round(angle / _RIGHT_ANGLE)
    if abs(angle - quarter * _RIGHT_ANGLE) >= 1:
        raise ValueError(f"it is to be turned by {angle:.0f} degrees, and only multiples of 90 are supported")
    if quarter == 1:
        return (("transpose", "cclock_flip" if c > 0 else "clock"),)
    if quarter == 2:
        flips = ("hflip",) * (a < 0) + ("vflip",) * (d < 0)
        return tuple((name, "") for name in flips)
    if quarter == 3:
        return (("transpose", "clock_flip" if c < 0 else "cclock"),)
    return (("vflip", ""),) if d < 0 else ()


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Nine numbers of 16.16 fixed point (the last column 2.30), row by row; None if the frame is upright.

    Raises:
        ValueError: PyAV cannot read the frame's side data, and the frame is not upright.
    """
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except KeyError:
        return None
    except ValueError:  # side data of a type that PyAV does not know
        if frame.rotation:
            raise ValueError("how it is to be turned cannot be read") from None
        return None
    if not isinstance(found, Buffer) or found.buffer_size != _MATRIX_BYTES:
        return None
    return struct.unpack("=9i", bytes(found))
