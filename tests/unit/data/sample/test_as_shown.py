"""Videos are taken as ffmpeg's own program shows them, frame by frame and bit by bit."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.ffmpeg import make_video, needs_ffmpeg, run_ffmpeg, shown_frames
from tests.support.samples import grey_frames, video_bytes
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.video import decode_video

H264 = ("-c:v", "libx264")
CODED = {
    "h264.mp4": H264,
    "open_gop.mp4": (*H264, "-bf", "3", "-x264opts", "open-gop=1:keyint=5"),
    "refreshed.ts": (*H264, "-x264opts", "intra-refresh=1:keyint=8"),
    "b_frames.flv": (*H264, "-bf", "3"),
    "b_frames.avi": (*H264, "-bf", "2"),
    "divx.avi": ("-c:v", "mpeg4", "-bf", "2", "-vtag", "DX50"),
    "low_delay.avi": (*H264, "-tune", "zerolatency"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-bf", "2"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "200k"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-b:v", "200k"),
    "theora.ogv": ("-c:v", "libtheora"),
    "wmv2.wmv": ("-c:v", "wmv2"),
    "mjpeg.mov": ("-c:v", "mjpeg"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "palette.gif": (),
    "ten_bit.mp4": (*H264, "-pix_fmt", "yuv420p10le"),
    "ten_bit_422.mp4": (*H264, "-pix_fmt", "yuv422p10le"),
    "twelve_bit.mkv": ("-c:v", "ffv1", "-pix_fmt", "yuv420p12le", "-strict", "-2"),
    "sixteen_bit_grey.mkv": ("-c:v", "ffv1", "-pix_fmt", "gray16le"),
    "prores.mov": ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"),
    "full_range.mp4": (*H264, "-pix_fmt", "yuvj420p", "-color_range", "pc"),
    "bt709.mp4": (*H264, "-colorspace", "bt709", "-color_range", "tv"),
    "bt709_full.mp4": (*H264, "-pix_fmt", "yuvj420p", "-colorspace", "bt709", "-color_range", "pc"),
    "bt2020.mp4": (*H264, "-pix_fmt", "yuv420p10le", "-colorspace", "bt2020nc"),
    "smpte240.mp4": (*H264, "-colorspace", "smpte240m"),
    "rgb.mkv": ("-c:v", "libx264rgb", "-pix_fmt", "rgb24"),
    "yuyv.avi": ("-c:v", "rawvideo", "-pix_fmt", "yuyv422"),
}


def assert_as_shown(path: Path, *, fps: float, filters: str = "null", first: int = 0) -> np.ndarray:
    found = decode_video(path, fps=fps, max_frames=1000, where=path.name).frames_FHWC
    shown = shown_frames(path, *found.shape[1:3], filters=f"{filters},fps={fps}:round=down")
    assert len(found) == len(shown)
    different = [index for index, (ours, theirs) in enumerate(zip(found, shown, strict=True)) if (ours != theirs).any()]
    assert [index for index in different if index >= first] == []
    return found


@needs_ffmpeg
@pytest.mark.parametrize("name", CODED)
def test_every_codec_and_colour(name, tmp_path):
    path = make_video(tmp_path / name, *CODED[name])
    for fps in (3, 10):
        assert_as_shown(path, fps=fps)


@needs_ffmpeg
def test_real_videos(shared_media):
    for path in sorted((shared_media / "videos").iterdir()):
        assert_as_shown(path, fps=1)


@needs_ffmpeg
def test_few_frames_of_a_real_video_are_the_same_as_all(shared_media):
    path = shared_media / "videos" / "demo_2.avi"
    every = assert_as_shown(path, fps=1)
    few = decode_video(path, fps=1, max_frames=3, where="x").frames_FHWC
    assert np.array_equal(few, every[[0, 4, 8]])


def turned_video(path: Path, matrix: tuple[int, ...]) -> Path:
    """A video with a display matrix; the container allows a flag for turns and mirror images alike."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3), dtype=np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(4), options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.set_display_matrix(matrix)
        for pixels in noise:
            large = pixels.repeat(8, axis=0).repeat(8, axis=1)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        output.mux(stream.encode())
    return path


ONE = 65536
TURNS = {
    "upright": ((ONE, 0, 0, ONE), lambda frame: frame),
    "right": ((0, ONE, -ONE, 0), lambda frame: np.rot90(frame, -1)),
    "half": ((-ONE, 0, 0, -ONE), lambda frame: np.rot90(frame, 2)),
    "left": ((0, -ONE, ONE, 0), lambda frame: np.rot90(frame)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda frame: frame[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda frame: frame[::-1]),
    "transposed": ((0, ONE, ONE, 0), lambda frame: frame.transpose(1, 0, 2)),
    "transversed": ((0, -ONE, -ONE, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", TURNS)
def test_every_display_matrix(name, tmp_path):
    (a, b, c, d), turn = TURNS[name]
    stored = decode_video(turned_video(tmp_path / "stored.mp4", (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)), **ALL)
    path = turned_video(tmp_path / "turned.mp4", (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    found = decode_video(path, **ALL).frames_FHWC
    expected = np.stack([turn(frame) for frame in stored.frames_FHWC])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3  # colours have half the resolution


ALL = {"fps": 4, "max_frames": 100, "where": "x"}


@needs_ffmpeg
@pytest.mark.parametrize("name", TURNS)
def test_every_display_matrix_as_ffmpeg_turns_it(name, tmp_path):
    a, b, c, d = TURNS[name][0]
    assert_as_shown(turned_video(tmp_path / "turned.mp4", (a, b, 0, c, d, 0, 0, 0, 1 << 30)), fps=4)


def test_other_angles_are_refused_by_name(tmp_path):
    half = 46341
    path = turned_video(tmp_path / "turned.mp4", (half, half, 0, -half, half, 0, 0, 0, 1 << 30))
    with pytest.raises(SampleProblem, match="turned by 45 degrees, and only multiples of 90 are supported"):
        decode_video(path, **ALL)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "aspect", "width"), [("a.mp4", "4/3", 128), ("b.mkv", "8/9", 85), ("c.ts", "16/11", 139)]
)
def test_pixels_become_square(name, aspect, width, tmp_path):
    path = make_video(tmp_path / name, *H264, filters=f"setsar={aspect}")
    assert assert_as_shown(path, fps=10, filters="scale=iw*sar:ih").shape[1:3] == (64, width)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["first_field.mp4", "second_field.ts"])
def test_interlaced_frames_are_deinterlaced(name, tmp_path):
    order = "tff" if name.startswith("first") else "bff"
    codec = (*H264, "-flags", "+ildct+ilme", "-x264opts", f"{order}=1")
    path = make_video(tmp_path / name, *codec, rate=20, filters=f"interlace=scan={order}")
    for fps in (2, 10):
        # The first frame has none before it, and ffmpeg 8 makes a better picture of it than ffmpeg 5.
        assert_as_shown(path, fps=fps, filters="bwdif=mode=send_frame:deint=interlaced", first=1)


@needs_ffmpeg
def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path):
    long = make_video(tmp_path / "long.mp4", *H264, "-g", "20", seconds=6)
    run_ffmpeg("-ss", "2.7", "-i", long, "-c", "copy", tmp_path / "cut.mp4")
    assert len(assert_as_shown(tmp_path / "cut.mp4", fps=10)) == 33


@needs_ffmpeg
@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_time_starts_with_the_sound(name, tmp_path):
    video = make_video(tmp_path / "video.mp4", *H264)
    sound = ("-f", "lavfi", "-i", "sine=duration=3", "-map", "0:v", "-map", "1:a", "-c:v", "copy")
    run_ffmpeg("-itsoffset", "0.37", "-i", video, *sound, tmp_path / name)
    for fps in (1, 3, 10):
        assert_as_shown(tmp_path / name, fps=fps)


@needs_ffmpeg
def test_packets_of_an_avi_bear_decoding_times(tmp_path):
    path = make_video(tmp_path / "b.avi", *H264, "-bf", "2", rate=4)
    found = decode_video(path, **ALL)
    every = shown_frames(path, 64, 96, filters="null")
    assert np.array_equal(found.frames_FHWC, every)
    assert found.timestamps_F.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]


@needs_ffmpeg
def test_transparent_frames_are_composed_on_white(tmp_path):
    ink = "format=rgba,geq=r=0:g=0:b=0:a='if(lt(X,48),255,0)'"
    path = make_video(tmp_path / "ink.mov", "-c:v", "qtrle", filters=ink)
    found = decode_video(path, **ALL).frames_FHWC
    assert (found[:, :, :48] == 0).all()
    assert (found[:, :, 48:] == 255).all()


def test_a_large_file_is_decoded_from_its_place_in_another(tmp_path, monkeypatch):
    from vl3.data.sample import packets
    from vl3.data.sample.media import FileRange

    data = video_bytes(grey_frames(range(20, 220, 10)), fps=4, options={"movflags": "faststart"})
    (tmp_path / "shard").write_bytes(b"before" + data + b"after")
    place = FileRange(path=tmp_path / "shard", offset_bytes=6, length_bytes=len(data))
    kept = decode_video(data, fps=2, max_frames=5, where="x")
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    read_again = decode_video(place, fps=2, max_frames=5, where="x")
    assert np.array_equal(kept.frames_FHWC, read_again.frames_FHWC)
    assert kept.timestamps_F.tolist() == read_again.timestamps_F.tolist()
