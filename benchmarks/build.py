"""Building a dataset against a bare loop that decodes, hashes and writes a tar of the same files, and through Ray.

`python -m benchmarks.build [--images 2000] [--clips 256] [--rounds 2] [--workers 2]`. Each build and each loop runs in
a process of its own with the same number of workers, in turns. What a way takes for four pictures is taken for the
start of its processes, and is not counted.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.record import write_result
from vl3.config.overrides import apply_overrides
from vl3.data.build.of_run import build_for_run
from vl3.recipes.catalog import get_recipe
from vl3.system.uris import file_uri
from vl3.toy.tokenizer import build_tokenizer

RECIPE = "vl3_2b"
IMAGE_PX = (480, 640)
CLIP_PX, CLIP_SECONDS, CLIP_FPS = (360, 640), 10, 30
_FILES_PER_TAR = 128
_FEW = 4


def main() -> int:
    """Measure, and write benchmarks/results/build.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "FOLDER", "OUT"))
    options = parser.parse_args()
    if options.child:
        way, folder, out = options.child
        WAYS[way](Path(folder), Path(out), options.workers)
        return 0
    with tempfile.TemporaryDirectory() as place:
        build_tokenizer(Path(place, "tokenizer"))
        write_images(Path(place, "images"), options.images)
        write_clips(Path(place, "clips"), options.clips)
        write_images(Path(place, "few"), _FEW)
        starts = _measure(Path(place), "few", options)
        rows = [_row(count, kind, starts, _measure(Path(place), kind, options)) for kind, count in _kinds(options)]
    write_result(
        "build",
        title="Building a dataset",
        question="How long does the build of a dataset take, against a bare loop that decodes, hashes and writes a tar "
        f"of the same files with as many processes ({options.workers})? And how much more through Ray on one machine?",
        command=f"python -m benchmarks.build --images {options.images} --clips {options.clips} "
        f"--rounds {options.rounds} --workers {options.workers}",
        columns=["files", "bare loop, s", "build, s", "speed of the loop", "through Ray, s", "more by Ray"],
        rows=rows,
        notes=[
            f"Least of {options.rounds} rounds, in turns, without the start of the processes: "
            + ", ".join(f"{way} {seconds:.1f} s" for way, seconds in starts.items())
            + ". Wall time: the processes of Ray are nobody's children, so their processor time cannot be asked for.",
            f"Pictures are JPEGs of {IMAGE_PX[1]}x{IMAGE_PX[0]}, clips H.264 of {CLIP_PX[1]}x{CLIP_PX[0]}, "
            f"{CLIP_SECONDS} s at {CLIP_FPS} frames per second, of which the recipe {RECIPE} takes one each second. "
            "The loop decodes all frames and converts those.",
            "Beside that the build looks for damage, counts tokens with DiffFP and writes the index.",
        ],
        libraries=["av", "pillow", "ray"],
    )
    return 0


def _kinds(options: argparse.Namespace) -> list[tuple[str, int]]:
    return [("images", options.images), ("clips", options.clips)]


def _measure(place: Path, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Least time of each way on the same files, in seconds."""
    times: dict[str, float] = {}
    for number in range(options.rounds):
        for way in WAYS:
            out = place / f"{kind}-{way}-{number}"
            command = [sys.executable, "-m", "benchmarks.build", "--workers", str(options.workers)]
            start = time.monotonic()
            subprocess.run([*command, "--child", way, str(place / kind), str(out)], check=True)
            seconds = time.monotonic() - start
            print(f"{kind} {way}: {seconds:.1f} s", flush=True)
            times[way] = min(seconds, times.get(way, seconds))
    return times


def _row(count: int, kind: str, starts: dict[str, float], times: dict[str, float]) -> list[str]:
    bare, built, by_ray = (times[way] - starts[way] for way in WAYS)
    speed, more = bare / built, by_ray / built - 1
    return [f"{count:,} {kind}", f"{bare:.1f}", f"{built:.1f}", f"{speed:.2f}", f"{by_ray:.1f}", f"{more:.0%}"]


def _bare(folder: Path, out: Path, workers: int) -> None:
    """The loop: decode, hash and write each file to a tar."""
    files = sorted((folder / "media").iterdir())
    out.mkdir()
    tars = [files[at : at + _FILES_PER_TAR] for at in range(0, len(files), _FILES_PER_TAR)]
    if len(tars) < workers:
        tars = [files[at::workers] for at in range(workers)]
    jobs = [(part, out / f"{number}.tar") for number, part in enumerate(tars)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.starmap(_pack, jobs, chunksize=1)


def _pack(files: list[Path], path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for file in files:
            data = file.read_bytes()
            hashlib.sha256(data).hexdigest()
            (_decode_image if file.suffix == ".jpg" else _decode_clip)(data)
            info = tarfile.TarInfo(file.name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _decode_image(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        np.asarray(image.convert("RGB"))


def _decode_clip(data: bytes) -> None:
    with av.open(io.BytesIO(data), mode="r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number % CLIP_FPS == CLIP_FPS - 1:
                frame.to_ndarray(format="rgb24")


def _build(folder: Path, out: Path, workers: int, ray: str | None = None) -> None:
    config = apply_overrides(get_recipe(RECIPE), [f"data.build_workers={workers}"])
    tokenizer = folder.parent / "tokenizer"
    build_for_run(file_uri(folder), out, config, tokenizer_folder=tokenizer, ray=ray)


def _by_ray(folder: Path, out: Path, workers: int) -> None:
    _build(folder, out, workers, ray="local")


WAYS: dict[str, Callable[[Path, Path, int], None]] = {"bare": _bare, "build": _build, "ray": _by_ray}


def write_images(folder: Path, count: int) -> None:
    """A data folder of pictures: smooth colours with some noise, no two alike."""
    (folder / "media").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        Image.fromarray(_scene(rng, *IMAGE_PX)).save(folder / "media" / f"{number:05d}.jpg", quality=90)
        lines.append(_line("image", f"media/{number:05d}.jpg"))
    _annotate(folder, lines)


def write_clips(folder: Path, count: int) -> None:
    """A data folder of clips: a scene that moves to the right, no two alike."""
    (folder / "media").mkdir(parents=True)
    rng = np.random.default_rng(1)
    lines = []
    for number in range(count):
        scene = _scene(rng, *CLIP_PX)
        with av.open(str(folder / "media" / f"{number:05d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(CLIP_FPS))
            stream.height, stream.width = CLIP_PX
            stream.pix_fmt, stream.options = "yuv420p", {"preset": "veryfast"}
            for shift in range(CLIP_SECONDS * CLIP_FPS):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(scene, shift, axis=1)), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        lines.append(_line("video", f"media/{number:05d}.mp4"))
    _annotate(folder, lines)


def _scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colours that change smoothly, with noise: about as many bytes as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def _line(tag: str, path: str) -> str:
    turns = [{"from": "human", "value": f"<{tag}>\nDescribe it."}, {"from": "gpt", "value": "Colours that change."}]
    return json.dumps({tag: [path], "conversations": turns})


def _annotate(folder: Path, lines: list[str]) -> None:
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
