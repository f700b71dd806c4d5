"""Finding clips: CPU seconds for a minute of video, by part. No weights and no endpoint are needed.

`python -m benchmarks.video_clips [--seconds 60] [--size 1280x720] [FILE ...]`; without files a video is generated.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.record import write_result
from vl3.curation.video.clips import choose_clips, track_video
from vl3.curation.video.motion import MotionMeter
from vl3.curation.video.rules import read_video_rules
from vl3.curation.video.shots import CutFinder
from vl3.data.sample.video import open_video

FPS, SHOT_SECONDS = 30, 6


def main() -> None:
    """Measure, and write benchmarks/results/video_clips.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--print", action="store_true", help="write no result")
    options = parser.parse_args()
    CutFinder(read_video_rules())
    MotionMeter()  # both import their libraries, which is no part of a minute
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or [_generate(Path(folder) / "generated.mp4", options.seconds, options.size)]
        rows = [row for path in files for row in _rows(path)]
    for row in rows:
        print(*row, sep="\t")
    if not options.print:
        write_result(
            "video_clips",
            title="Clips of videos",
            question="What do cuts and motion cost for a minute of video, beside decoding it?",
            command=f"python -m benchmarks.video_clips --seconds {options.seconds} --size {options.size}",
            columns=["video", "part", "CPU s per minute of video", "found"],
            rows=rows,
            notes=[
                "CPU seconds of one thread: decoding, cuts and flow all use one.",
                "`whole` is what the flow does for each video; the parts below are its parts, measured alone.",
            ],
            libraries=["av", "numpy", "opencv-python-headless", "scenedetect-headless"],
        )


def _rows(path: Path) -> list[list[str | float]]:
    rules = read_video_rules()
    name = path.name
    found = []
    whole = _cpu_seconds(lambda: found.append(choose_clips(track_video(path, rules, name), rules)))
    minutes = found[0].duration_seconds / 60
    with open_video(path, name, whole=True) as source:
        plan = source.plan(fps=rules.analysis_fps, max_frames=10**6)
        decoding = _cpu_seconds(lambda: sum(1 for _ in source.frames(plan)))
        facts = source.facts
    shape = (round(rules.analysis_width_px * facts.height_px / facts.width_px), rules.analysis_width_px, 3)
    frames = [np.roll(np.random.default_rng(1).integers(0, 255, shape, np.uint8), step, 1) for step in range(16)]
    count = len(plan.pts_F)

    def cut() -> None:
        finder = CutFinder(rules)
        for number in range(count):
            finder.add(frames[number % 16])

    def move() -> None:
        meter = MotionMeter()
        for number in range(count):
            meter.add(number / rules.analysis_fps, frames[number % 16])

    clips = f"{found[0].shots} shots, {len(found[0].clips)} clips"
    label = f"{name}, {facts.width_px}x{facts.height_px} at {facts.fps:.0f} fps"
    parts = [("whole", whole, clips), ("decoding", decoding, f"{count} frames"), ("cuts", _cpu_seconds(cut), "")]
    parts.append(("flow", _cpu_seconds(move), ""))
    return [[label, part, round(seconds / minutes, 2), said] for part, seconds, said in parts]


def _cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _generate(path: Path, seconds: int, size: str) -> Path:
    """Shots of smooth sliding textures of other colours, H.264 with a keyframe every 8 seconds."""
    width, height = map(int, size.split("x"))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(FPS), options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * FPS):
            shot, step = divmod(number, SHOT_SECONDS * FPS)
            if step == 0:
                random = np.random.default_rng(shot)
                coarse = (random.random((9, 16, 1)) * random.integers(60, 255, 3)).astype(np.uint8)
                texture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            picture_HWC = np.roll(np.asarray(texture), 2 * step, 1)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        output.mux(stream.encode())
    return path


if __name__ == "__main__":
    main()
