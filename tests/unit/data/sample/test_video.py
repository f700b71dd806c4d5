"""Frame sampling against ffmpeg itself, and damaged files."""

import io
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.support.samples import grey_frames, image_bytes, video_bytes
from vl3.data.sample import packets
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.video import decode_video, open_video

LEVELS = [20 + 10 * i for i in range(20)]


def _ffmpeg_frames(data: bytes, fps: float) -> list[np.ndarray]:
    """What ffmpeg's own filter takes: the reference."""
    frames = []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
        rate = graph.add("fps", f"fps={fps}:round=down")
        source.link_to(rate)
        rate.link_to(sink)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            while True:
                try:
                    frames.append(graph.pull().to_ndarray(format="rgb24"))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    return frames


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Five seconds at 4 frames a second, each frame of another grey."""
    return video_bytes(grey_frames(LEVELS), fps=4)


def test_frame_k_is_the_last_source_frame_of_second_k(clip):
    video = decode_video(clip, fps=1, max_frames=100, where="x")
    assert video.timestamps_F.tolist() == [0, 1, 2, 3, 4]
    means = video.frames_FHWC.mean(axis=(1, 2, 3))
    assert np.abs(means - [LEVELS[i] for i in (3, 7, 11, 15, 19)]).max() < 3


@pytest.mark.parametrize(("source_fps", "fps"), [(4, 1), (4, 2), (4, 0.5), (5, 2), (3, 1), (7, 3), (2, 4)])
def test_the_frames_are_those_of_ffmpegs_filter(source_fps, fps):
    data = video_bytes(grey_frames(LEVELS[:13]), fps=source_fps)
    found = decode_video(data, fps=fps, max_frames=1000, where="x").frames_FHWC
    expected = _ffmpeg_frames(data, fps)
    assert len(found) == len(expected)
    assert np.array_equal(found, np.stack(expected))


def test_more_frames_than_allowed_are_spread_evenly(clip):
    video = decode_video(clip, fps=4, max_frames=6, where="x")
    every = decode_video(clip, fps=4, max_frames=100, where="x")
    chosen = np.linspace(0, 19, 6).astype(int)
    assert chosen.tolist() == [0, 3, 7, 11, 15, 19]
    assert video.timestamps_F.tolist() == (chosen / 4).tolist()
    assert np.array_equal(video.frames_FHWC, every.frames_FHWC[chosen])


def test_a_window_starts_its_own_clock_and_keeps_the_videos_times(clip):
    video = decode_video(clip, fps=1, max_frames=100, start_seconds=1.5, end_seconds=3.5, where="x")
    assert video.timestamps_F.tolist() == [1.5, 2.5]
    means = video.frames_FHWC.mean(axis=(1, 2, 3))
    assert np.abs(means - [LEVELS[9], LEVELS[13]]).max() < 3


def test_a_clip_shorter_than_an_interval_gives_its_first_frame():
    video = decode_video(video_bytes(grey_frames([90, 200]), fps=4), fps=1, max_frames=10, where="x")
    assert video.timestamps_F.tolist() == [0]
    assert abs(video.frames_FHWC.mean() - 90) < 3


def test_a_window_without_frames_is_a_problem_of_times(clip):
    with pytest.raises(SampleProblem, match=r"the video of 5.00 s has no frame between 9.0 s and 10.0 s") as caught:
        decode_video(clip, fps=1, max_frames=10, start_seconds=9.0, end_seconds=10.0, where="x")
    assert caught.value.kind is ProblemKind.TIMES


def test_facts_come_from_the_container(clip):
    with open_video(clip, "x") as source:
        facts = source.facts
    assert (facts.duration_seconds, facts.fps, facts.num_frames) == (5.0, 4.0, 20)
    assert (facts.height_px, facts.width_px) == (56, 56)


def test_jumping_to_keyframes_changes_no_pixel():
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=4, options={"g": "5", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for pixels in noise:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    every = decode_video(buffer.getvalue(), fps=4, max_frames=100, where="x").frames_FHWC
    few = decode_video(buffer.getvalue(), fps=4, max_frames=4, where="x").frames_FHWC
    assert np.array_equal(few, every[[0, 13, 26, 39]])


def test_frames_after_a_time_can_be_cut_from_the_plan(clip):
    with open_video(clip, "x") as source:
        assert source.plan(fps=1, max_frames=10).until(2.0).timestamps_F.tolist() == [0, 1, 2]


def test_a_video_cut_short_is_refused():
    data = video_bytes(grey_frames(LEVELS), fps=4, options={"movflags": "faststart"})
    with pytest.raises(SampleProblem, match=r"x: .*(damaged|truncated|cannot be read).*drop the sample") as caught:
        decode_video(data[: len(data) * 2 // 3], fps=1, max_frames=10, where="x")
    assert caught.value.kind is ProblemKind.UNDECODABLE


def test_a_video_without_its_index_is_refused(clip):
    with pytest.raises(SampleProblem, match=r"cannot be opened as a video.*moov atom not found.*drop the sample"):
        decode_video(clip[: len(clip) // 2], fps=1, max_frames=10, where="x")


def damaged_noise() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (20, 56, 56, 3), dtype=np.uint8)
    data = bytearray(video_bytes(list(noise), fps=4))
    start = data.index(b"mdat") + 3000
    data[start : start + 20000] = bytes(20000)
    return bytes(data)


def test_damaged_packets_are_refused():
    with pytest.raises(SampleProblem, match=r"train.jsonl:1: the .* \(h264: ") as caught:
        decode_video(damaged_noise(), fps=1, max_frames=10, where="train.jsonl:1")
    assert caught.value.kind is ProblemKind.UNDECODABLE


def test_the_same_damage_is_found_again_in_the_next_file():
    """Libav passes over an error line that equals the one before it, unless it is told not to."""
    reasons = []
    for _ in range(2):
        with pytest.raises(SampleProblem) as caught:
            decode_video(damaged_noise(), fps=1, max_frames=10, where="x")
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_damage_where_no_frame_is_taken_is_found_if_the_whole_is_decoded():
    noise = np.random.default_rng(0).integers(0, 256, (20, 56, 56, 3), dtype=np.uint8)
    data = bytearray(video_bytes(list(noise), fps=4))
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) * 3 // 4
    data[middle : middle + 300] = bytes(300)
    for whole in (False, True):
        with open_video(bytes(data), "x", whole=whole) as source:
            frames = source.frames(source.plan(fps=1, max_frames=1))
            if not whole:
                assert len(list(frames)) == 1
                continue
            with pytest.raises(SampleProblem, match=r"x: the video cannot be decoded at frame \d+ of 20"):
                list(frames)


def test_a_picture_is_no_video():
    with pytest.raises(
        SampleProblem, match=r"the file is a picture \(jpeg\), not a video; name a picture under `image`"
    ):
        decode_video(image_bytes(20, 30, suffix="jpg"), fps=1, max_frames=4, where="x")


def muxed(format_name: str, *, codec: str = "libx264", times: Sequence[int] = range(8), **sizes: int) -> bytes:
    """Frames of one grey at the given times, in milliseconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format_name) as output:
        stream = output.add_stream(codec, rate=4, options={"g": "1"} if codec == "libx264" else {})
        stream.height = stream.width = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return buffer.getvalue()


def test_a_bare_stream_is_refused_because_its_frames_have_no_times():
    with pytest.raises(SampleProblem, match="the file is a bare h264 stream, whose frames have no times; put it into"):
        decode_video(muxed("h264"), fps=1, max_frames=4, where="x")


def test_frames_at_one_time_are_refused(monkeypatch):
    data = muxed("matroska", times=range(0, 800, 100))
    real = packets.np.frombuffer
    monkeypatch.setattr(packets.np, "frombuffer", lambda *args, **more: real(*args, **more) * 0)
    with pytest.raises(SampleProblem, match="its 8 frames have no times"):
        decode_video(data, fps=1, max_frames=4, where="x")


def test_a_frame_years_later_costs_nothing(monkeypatch):
    data = muxed("matroska", times=[0, 500, 1000, 10**11])
    video = decode_video(data, fps=1, max_frames=5, where="x")
    assert video.timestamps_F.tolist() == [0, 24_999_999, 49_999_999, 74_999_999, 99_999_999]
    with open_video(data, "x") as source, pytest.raises(SampleProblem, match=r"no frame between 5\.0 s and 9\.0 s"):
        source.plan(fps=1, max_frames=5, start_seconds=5.0, end_seconds=9.0)


def test_times_of_centuries_are_refused():
    with pytest.raises(SampleProblem, match=r"it would last \d+ s, which is not plausible"):
        decode_video(muxed("matroska", times=[0, 10**13]), fps=1, max_frames=5, where="x")


def test_an_unknown_codec_has_no_decoder(clip):
    with pytest.raises(SampleProblem, match="there is no decoder for it") as caught:
        decode_video(clip.replace(b"avc1", b"avq1"), fps=1, max_frames=5, where="x")
    assert caught.value.kind is ProblemKind.UNDECODABLE


def test_a_codec_that_is_not_on_the_list_has_no_decoder():
    with pytest.raises(SampleProblem, match="coded as snow: there is no decoder for it here"):
        decode_video(muxed("avi", codec="snow"), fps=1, max_frames=5, where="x")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n", "sdp"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "hls"),
        ("ffconcat version 1.0\nfile /etc/passwd\n", "concat"),
        ('<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="dash:profile">', "dash"),
    ],
)
def test_a_playlist_opens_nothing(text, name):
    with pytest.raises(SampleProblem, match=rf"the file has the format {name}|cannot be opened as a video"):
        decode_video(text.encode(), fps=1, max_frames=5, where="x")


def test_a_size_that_changes_midway_is_refused():
    """Packets of two encoders in one stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        stream = None
        for start, side_px in ((0, 64), (8, 32)):
            with av.open(io.BytesIO(of_size(side_px))) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                for number, packet in enumerate(packet for packet in source.demux() if packet.size):
                    packet.stream, packet.time_base = stream, Fraction(1, 4)
                    packet.pts = packet.dts = start + number
                    output.mux(packet)
    with open_video(buffer.getvalue(), "x") as source:
        frames = source.frames(source.plan(fps=4, max_frames=100))
        with pytest.raises(SampleProblem, match="the size changes midway, from 64x64 px to 32x32 px"):
            list(frames)


def of_size(side_px: int) -> bytes:
    """MPEG-TS of eight frames, each with its own parameter sets."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=4, options={"g": "1", "tune": "zerolatency"})
        stream.height = stream.width = side_px
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            picture = np.full((side_px, side_px, 3), 99, dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return buffer.getvalue()


def test_a_keyframe_that_is_none_costs_a_start_from_the_first_packet():
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    data = video_bytes(list(noise), fps=4)
    honest = decode_video(data, fps=4, max_frames=3, where="x").frames_FHWC
    with open_video(data, "x") as source:
        table = source._table
        source._reader._table = replace(table, key_times_K=table.times_F, key_places_K=np.arange(len(table.times_F)))
        plan = source.plan(fps=4, max_frames=3)
        assert np.array_equal(np.stack(list(source.frames(plan))), honest)
