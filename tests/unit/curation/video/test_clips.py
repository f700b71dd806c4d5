"""Clips of videos: cuts, motion, what is dropped and why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.moving_pictures import FPS, WIDTH_PX, sliding, texture, write_video
from vl3.curation.video.clips import FrameTrack, choose_clips, find_clips, track_video
from vl3.curation.video.rules import VideoRules, read_video_rules
from vl3.data.sample.problems import SampleProblem

RULES = read_video_rules()


def rules(**changes: Any) -> VideoRules:
    from dataclasses import replace

    return replace(RULES, **changes)


def track(speeds: list[float], cuts: tuple[int, ...] = ()) -> FrameTrack:
    """Four frames a second."""
    times_F = np.arange(len(speeds)) / 4
    return FrameTrack(
        times_F=times_F, speeds_F=np.array(speeds), cuts=cuts, frame_seconds=0.25, duration_seconds=len(speeds) / 4
    )


def test_a_video_of_three_shots(tmp_path: Path) -> None:
    red, green, blue = (
        texture(seed, colour) for seed, colour in enumerate([(250, 60, 60), (40, 220, 60), (80, 80, 250)])
    )
    path = write_video(tmp_path / "v.mp4", sliding(red, 3, 1), sliding(green, 3, 0), sliding(blue, 3, 2))
    found = find_clips(path, RULES, "v.mp4")
    assert (found.shots, found.dropped) == (3, {"too still": 1})
    assert found.duration_seconds == pytest.approx(9)
    first, last = found.clips
    assert (first.start_seconds, first.end_seconds) == (0.0, pytest.approx(2.875, abs=0.13))
    assert (last.start_seconds, last.end_seconds) == (pytest.approx(6.125, abs=0.13), pytest.approx(9, abs=0.01))
    assert first.motion == pytest.approx(FPS / WIDTH_PX, rel=0.1)
    assert last.motion == pytest.approx(2 * FPS / WIDTH_PX, rel=0.1)


def test_a_pan_is_no_cut_and_a_slow_video_does_not_stand_still(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", sliding(texture(1, (200, 200, 200)), 4, 4))
    fast = track_video(path, rules(analysis_fps=60.0), "v.mp4")
    assert fast.cuts == ()
    assert len(fast.times_F) == 4 * FPS  # each frame once, although it is shown for four moments
    assert np.nanmean(fast.speeds_F) == pytest.approx(4 * FPS / WIDTH_PX, rel=0.1)


def test_an_undecodable_and_a_long_video_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\x00\x00\x00\x18ftypmp42" + b"junk" * 500)
    with pytest.raises(SampleProblem, match=r"^broken\.mp4: "):
        find_clips(broken, RULES, "broken.mp4")
    path = write_video(tmp_path / "v.mp4", sliding(texture(1, (200, 200, 200)), 3, 1))
    with pytest.raises(SampleProblem, match="has 3 s, more than max_video_seconds=2"):
        find_clips(path, rules(max_video_seconds=2.0), "v.mp4")


def test_a_long_shot_is_divided_into_equal_parts() -> None:
    found = choose_clips(track([0.1] * 280), rules(max_clip_seconds=30.0))
    assert [(clip.start_seconds, clip.end_seconds) for clip in found.clips] == [
        (0.0, 23.333),
        (23.333, 46.667),
        (46.667, 70.0),
    ]


def test_the_pictures_on_both_sides_of_a_cut_are_left_out() -> None:
    found = choose_clips(track([0.1] * 40, cuts=(20,)), RULES)
    assert [(clip.start_seconds, clip.end_seconds) for clip in found.clips] == [(0.0, 4.75), (5.25, 10.0)]


@pytest.mark.parametrize(
    ("speeds", "reason"),
    [
        ([0.1] * 4, "too short"),
        ([0.01] * 40, "too still"),
        ([0.0] * 36 + [1.0] * 4, "too still"),  # it moves enough on the mean, in a tenth of the time
        ([3.0] * 40, "too fast"),
    ],
)
def test_what_is_dropped_says_why(speeds: list[float], reason: str) -> None:
    found = choose_clips(track(speeds), RULES)
    assert (found.clips, found.dropped) == ((), {reason: 1})


def test_the_speed_across_a_cut_does_not_count() -> None:
    found = choose_clips(track([0.01] * 20 + [9.0] + [0.01] * 19, cuts=(20,)), RULES)
    assert (found.clips, found.dropped) == ((), {"too still": 2})


def test_only_the_liveliest_are_kept_in_the_order_of_the_video() -> None:
    speeds = [0.1] * 40 + [0.3] * 40 + [0.2] * 40
    found = choose_clips(track(speeds, cuts=(40, 80)), rules(max_clips=2))
    assert [round(clip.motion, 2) for clip in found.clips] == [0.3, 0.2]
    assert found.dropped == {"more than max_clips": 1}


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5])
def test_a_higher_threshold_keeps_no_more(threshold: float) -> None:
    speeds = [0.03] * 40 + [0.15] * 40 + [0.4] * 40
    counts = [
        len(choose_clips(track(speeds, cuts=(40, 80)), rules(min_motion=least)).clips)
        for least in (threshold, threshold + 0.1)
    ]
    assert counts[0] >= counts[1]


@pytest.mark.slow
def test_real_videos() -> None:
    videos = Path(__file__).resolve().parents[5] / "shared" / "media" / "videos"
    if not videos.is_dir():
        pytest.skip(f"the folder of real media {videos} is absent")
    found = {}
    for path in sorted(videos.glob("demo_*")):
        found[path.name] = find_clips(path, RULES, path.name)
    assert all(one.shots >= 1 for one in found.values())
    assert all(
        0 <= clip.start_seconds < clip.end_seconds <= one.duration_seconds + 0.01
        for one in found.values()
        for clip in one.clips
    )
