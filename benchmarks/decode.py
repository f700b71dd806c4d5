"""Decoding: minutes of 720p at 1 frame per second against a plain PyAV loop, and the memory of a 2 GB file.

`python -m benchmarks.decode [--minutes 10] [--rounds 2]`; needs ffmpeg's program and 4 GB on the disk. The plain loop
decodes every frame with one thread and converts only the frames that are kept; which ones those are it is told
beforehand. Both run in turns, and the time is that of the processor.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from benchmarks.record import write_result
from vl3.data.sample.media import StoreRange
from vl3.data.sample.video import open_video
from vl3.store.objects import FileStore

SIZE, RATE = "1280x720", 30
B_FRAMES = {"no B-frames": "0", "3 B-frames": "3"}
GROUPS = {"1 s": 30, "8.3 s": 250, "the first only": None}
ALL, PAPER_FRAMES, PAPER_MINUTES = 100_000, 180, 10
"""The paper takes at most 180 frames: of 10 minutes, one each 3.3 s."""
HOUR_COPIES = 60


def main() -> int:
    """Measure, and write benchmarks/results/decode.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("FILE", "WHOLE"))
    options = parser.parse_args()
    if options.child:
        return _child(Path(options.child[0]), whole=options.child[1] == "whole")
    with tempfile.TemporaryDirectory() as folder:
        notes = _memory(Path(folder))
        rows = [row for case in _cases() for row in _speed(Path(folder), *case, options)]
    write_result(
        "decode",
        title="Decoding of videos",
        question=f"How much processor time do the frames of a {options.minutes}-minute video (H.264, {SIZE}, {RATE} "
        "frames per second) take at 1 frame per second, against a PyAV loop that decodes every frame and converts only "
        "those?",
        command=f"python -m benchmarks.decode --minutes {options.minutes} --rounds {options.rounds}",
        columns=["a keyframe each", "coded with", "frames taken", "PyAV loop, CPU s", "vl3, CPU s", "times as fast"],
        rows=rows,
        notes=[
            *notes,
            f"Least of {options.rounds} rounds, in turns. All frames are compared: the same in every pixel.",
            "At 1 frame per second the frame taken is the last of its second, so with a keyframe a second it is the "
            "last of its group: all that it depends on is decoded, and only frames that nothing refers to can be "
            f"skipped. Of one frame each 3.3 s, the paper's {PAPER_FRAMES} frames of {PAPER_MINUTES} minutes, most "
            "groups are skipped whole.",
            "A picture of libavfilter's testsrc2, coded by x264 (veryfast).",
        ],
        libraries=["av", "numpy"],
    )
    return 0


def _cases() -> list[tuple[str, str]]:
    return [(group, frames) for group in GROUPS for frames in B_FRAMES]


def _speed(folder: Path, group: str, frames: str, options: argparse.Namespace) -> list[list[str | int | float]]:
    path = _coded(folder, GROUPS[group], B_FRAMES[frames], options.minutes)
    rows: list[list[str | int | float]] = []
    for limit in (ALL, PAPER_FRAMES * options.minutes // PAPER_MINUTES) if group == "1 s" else (ALL,):
        with open_video(path, "x") as source:
            wanted = source.plan(fps=1, max_frames=limit).pts_F.tolist()
        seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(options.rounds):
            started = time.process_time()
            plain = _plain_loop(path, set(wanted))
            seconds["plain"].append(time.process_time() - started)
            started = time.process_time()
            ours = _ours(path, limit)
            seconds["ours"].append(time.process_time() - started)
            if plain != ours:
                raise SystemExit(f"{path}: the frames differ")
        best = {name: min(values) for name, values in seconds.items()}
        ratio = round(best["plain"] / best["ours"], 2)
        rows.append([group, frames, len(wanted), round(best["plain"], 1), round(best["ours"], 1), ratio])
        print(*rows[-1], sep=" | ", flush=True)
    path.unlink()
    return rows


def _plain_loop(path: Path, wanted: set[int]) -> list[int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        kept = (frame for frame in container.decode(stream) if frame.pts in wanted)
        return [_digest(frame.to_ndarray(format="rgb24")) for frame in kept]


def _ours(path: Path, limit: int) -> list[int]:
    with open_video(path, "x") as source:
        return [_digest(frame) for frame in source.frames(source.plan(fps=1, max_frames=limit))]


def _digest(frame_HWC: np.ndarray) -> int:
    """A number that no other picture has, for what is compared; much cheaper than decoding."""
    return hash(frame_HWC.tobytes())


def _coded(folder: Path, group: int | None, b_frames: str, minutes: int) -> Path:
    """A video of some minutes; one with keyframes is a minute, repeated."""
    source = f"testsrc2=size={SIZE}:rate={RATE}:duration={60 if group else 60 * minutes}"
    keys = ["-g", str(group), "-keyint_min", str(group)] if group else ["-x264opts", "keyint=infinite"]
    path, minute = folder / "video.mp4", folder / "minute.mp4"
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-bf", b_frames, "-sc_threshold", "0", "-pix_fmt", "yuv420p"]
    _ffmpeg("-f", "lavfi", "-i", source, *codec, *keys, minute)
    if not group:
        return minute
    _ffmpeg("-stream_loop", str(minutes - 1), "-i", minute, "-c", "copy", path)
    minute.unlink()
    return path


def _memory(folder: Path) -> list[str]:
    """Peak memory of processes that decode 180 frames of an hour of noise, 2 GB."""
    minute, hour = folder / "minute.mp4", folder / "hour.mp4"
    rate = ["-b:v", "4600k", "-minrate", "4600k", "-maxrate", "4600k", "-bufsize", "2M", "-x264opts", "nal-hrd=cbr"]
    source = f"testsrc2=size={SIZE}:rate={RATE}:duration=60,noise=alls=20:allf=t"
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-g", "60", "-pix_fmt", "yuv420p"]
    _ffmpeg("-f", "lavfi", "-i", source, *codec, *rate, minute)
    _ffmpeg("-stream_loop", str(HOUR_COPIES - 1), "-i", minute, "-c", "copy", hour)
    notes = []
    for name, whole in (("needed", "the loader, by range"), ("whole", "the build, which reads all of it")):
        command = [sys.executable, "-m", "benchmarks.decode", "--child", str(hour), name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        notes.append(
            f"{PAPER_FRAMES} frames of an hour of noise ({hour.stat().st_size / 1e9:.2f} GB, a keyframe each 2 s), "
            f"{whole}: {found['peak_mb']} MB at most, {found['base_mb']} MB of them before the file is opened; "
            f"{found['read_mb']} MB read, {found['seconds']} CPU s."
        )
        print(notes[-1], flush=True)
    hour.unlink()
    return notes


class _CountingStore(FileStore):
    read_bytes = 0

    def read_range(self, key: str, offset_bytes: int, length_bytes: int) -> bytes:
        self.read_bytes += length_bytes
        return super().read_range(key, offset_bytes, length_bytes)


def _child(path: Path, *, whole: bool) -> int:
    store = _CountingStore(path.parent)
    base_mb = _peak_mb()
    started = time.process_time()
    place = StoreRange(store=store, key=path.name, offset_bytes=0, length_bytes=path.stat().st_size)
    with open_video(place, "x", whole=whole) as source:
        for _ in source.frames(source.plan(fps=1, max_frames=PAPER_FRAMES)):
            pass
    seconds = round(time.process_time() - started, 1)
    found = {"base_mb": base_mb, "peak_mb": _peak_mb(), "read_mb": store.read_bytes // 10**6, "seconds": seconds}
    print(json.dumps(found))
    return 0


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


def _ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


if __name__ == "__main__":
    sys.exit(main())
