"""Frame sampling against ffmpeg itself, and damaged files."""

import io

import av
import numpy as np
import pytest

from tests.support.samples import grey_frames, image_bytes, video_bytes
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


def test_real_videos_are_sampled_like_ffmpeg(shared_media):
    for path in sorted((shared_media / "videos").glob("demo_*")):
        found = decode_video(path, fps=1, max_frames=1000, where=path.name).frames_FHWC
        assert np.array_equal(found, np.stack(_ffmpeg_frames(path.read_bytes(), 1))), path.name


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
    with pytest.raises(SampleProblem, match=r"truncated: it has \d+ of 20 frames") as caught:
        decode_video(data[: len(data) * 2 // 3], fps=1, max_frames=10, where="x")
    assert caught.value.kind is ProblemKind.UNDECODABLE


def test_a_video_without_its_index_is_refused(clip):
    with pytest.raises(SampleProblem, match=r"cannot be opened as a video.*drop the sample"):
        decode_video(clip[: len(clip) // 2], fps=1, max_frames=10, where="x")


def test_damaged_packets_are_refused():
    noise = np.random.default_rng(0).integers(0, 256, (20, 56, 56, 3), dtype=np.uint8)
    data = bytearray(video_bytes(list(noise), fps=4))
    start = data.index(b"mdat") + 3000
    data[start : start + 20000] = bytes(20000)
    with pytest.raises(SampleProblem, match=r"train.jsonl:1: the frame at \d\.\d\d s") as caught:
        decode_video(bytes(data), fps=1, max_frames=10, where="train.jsonl:1")
    assert caught.value.kind is ProblemKind.UNDECODABLE


def test_an_image_is_a_video_of_one_frame():
    assert decode_video(image_bytes(20, 30, suffix="jpg"), fps=1, max_frames=4, where="x").frames_FHWC.shape[0] == 1
