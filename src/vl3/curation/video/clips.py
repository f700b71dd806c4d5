"""Finds the dynamic clips of a video: shots, divided where they are long, that move neither too little nor too much."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from vl3.curation.video.motion import MotionMeter
from vl3.curation.video.rules import VideoRules
from vl3.curation.video.shots import CutFinder
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.video import open_video

TOO_SHORT, TOO_STILL, TOO_FAST, TOO_MANY = "too short", "too still", "too fast", "more than max_clips"


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicClip:
    """A part of one shot that is kept."""

    start_seconds: float
    end_seconds: float
    motion: float
    """Mean flow in widths of the picture per second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundClips:
    """What was found in a video."""

    duration_seconds: float
    shots: int
    clips: tuple[DynamicClip, ...]
    """In the order of the video."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason, how many parts of shots were not kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameTrack:
    """What was seen of a video: the time of each frame, the speed between it and the one before, and the cuts."""

    times_F: np.ndarray
    speeds_F: np.ndarray
    """Widths per second; of the first frame, and of each cut, NaN."""
    cuts: tuple[int, ...]
    """The first frame of each shot but the first, by its number."""
    frame_seconds: float
    """Longest time for which a frame stands for what is shown."""
    duration_seconds: float


def find_clips(path: Path, rules: VideoRules, where: str) -> FoundClips:
    """Decode a video and find its clips.

    Raises:
        SampleProblem: it cannot be decoded, or is longer than the rules allow.
    """
    return choose_clips(track_video(path, rules, where), rules)


def track_video(path: Path, rules: VideoRules, where: str) -> FrameTrack:
    """Look at a video, a few frames of each second, one of which is in memory.

    Raises:
        SampleProblem: it cannot be decoded, or is longer than the rules allow.
    """
    import cv2  # takes a third of a second, which only who looks at videos should pay

    cv2.setNumThreads(1)
    times, speeds = [], []
    cuts, motion = CutFinder(rules), MotionMeter()
    with open_video(path, where, whole=True) as source:
        facts = source.facts
        if facts.duration_seconds > rules.max_video_seconds:
            reason = f"the video has {facts.duration_seconds:.0f} s, more than max_video_seconds"
            raise SampleProblem(ProblemKind.TOO_LONG, f"{reason}={rules.max_video_seconds:g}. Cut it.", where)
        height_px = max(1, round(facts.height_px * rules.analysis_width_px / facts.width_px))
        most = math.ceil(rules.max_video_seconds * rules.analysis_fps) + 1
        plan = source.plan(fps=rules.analysis_fps, max_frames=most)
        seen = None
        for pts, time, frame_HWC in zip(plan.pts_F, plan.timestamps_F, source.frames(plan), strict=True):
            if pts == seen:  # a slow video shows one frame for several moments: it has not stood still in between
                continue
            seen = pts
            small_HWC = cv2.resize(frame_HWC, (rules.analysis_width_px, height_px), interpolation=cv2.INTER_AREA)
            small_HWC = cv2.cvtColor(small_HWC, cv2.COLOR_RGB2BGR)
            cuts.add(small_HWC)
            speed = motion.add(float(time), small_HWC)
            times.append(float(time))
            speeds.append(math.nan if speed is None else speed)
    return FrameTrack(
        times_F=np.array(times),
        speeds_F=np.array(speeds),
        cuts=tuple(cuts.cuts),
        frame_seconds=1 / min(rules.analysis_fps, max(facts.fps, 0.01)),
        duration_seconds=facts.duration_seconds,
    )


def choose_clips(track: FrameTrack, rules: VideoRules) -> FoundClips:
    """The clips of a video that was looked at.

    With 8 frames a second and cuts at the frames 80 and 88, times 10 and 11 s: the shots are 0 to 9.875, 10.125 to
    10.875 (too short) and 11.125 to the end. An eighth of a second on both sides of a cut is left out, because the cut
    is somewhere between two frames that were looked at.
    """
    dropped: Counter[str] = Counter()
    kept: list[DynamicClip] = []
    bounds = [0, *track.cuts, len(track.times_F)]
    for first, last in pairwise(bounds):
        start = 0.0 if first == 0 else float(track.times_F[first]) + track.frame_seconds
        is_end = last == len(track.times_F)
        end = track.duration_seconds if is_end else float(track.times_F[last]) - track.frame_seconds
        if end - start < rules.min_clip_seconds:
            dropped[TOO_SHORT] += 1
            continue
        speeds_F = track.speeds_F.copy()
        speeds_F[first] = math.nan  # across the cut
        for part_start, part_end in _parts(start, end, rules.max_clip_seconds):
            inside = (track.times_F > part_start) & (track.times_F < part_end) & ~np.isnan(speeds_F)
            reason, motion = _judge(speeds_F[inside], rules)
            if reason:
                dropped[reason] += 1
            else:
                times = {"start_seconds": round(part_start, 3), "end_seconds": round(part_end, 3)}
                kept.append(DynamicClip(**times, motion=round(motion, 5)))
    liveliest = sorted(kept, key=lambda clip: (-clip.motion, clip.start_seconds))[: rules.max_clips]
    if len(kept) > len(liveliest):
        dropped[TOO_MANY] = len(kept) - len(liveliest)
    clips = tuple(sorted(liveliest, key=lambda clip: clip.start_seconds))
    shots = len(bounds) - 1
    return FoundClips(duration_seconds=track.duration_seconds, shots=shots, clips=clips, dropped=dict(dropped))


def _judge(speeds_P: np.ndarray, rules: VideoRules) -> tuple[str, float]:
    """Why a part with these speeds is dropped (empty if it is kept), and their mean."""
    if not len(speeds_P):
        return TOO_STILL, 0.0
    motion = float(speeds_P.mean())
    if motion < rules.min_motion or float((speeds_P < rules.still_motion).mean()) > rules.max_still_share:
        return TOO_STILL, motion
    return (TOO_FAST if motion > rules.max_motion else ""), motion


def _parts(start: float, end: float, longest: float) -> Sequence[tuple[float, float]]:
    """Equal parts of at most `longest`: 0 to 70 s at 30 gives three of 23.3 s."""
    count = max(1, math.ceil((end - start) / longest - 1e-9))
    edges = np.linspace(start, end, count + 1)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
