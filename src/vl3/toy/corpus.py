"""Writes a corpus of the generated world as real files: PNG and JPEG images, H.264 videos, annotations.

The layout is that of any dataset (docs/data-formats.md): `annotations/{train,heldout}.jsonl` and a folder of media. The
splits have no scene in common: a digest of a scene's pixels and questions decides its split.
"""

import hashlib
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.config.data import Category
from vl3.data.sample.records import annotations_file
from vl3.errors import StorageError
from vl3.lifeline import RUNNER_VARIABLE, runner_mark, start_lifeline
from vl3.system.files import read_record
from vl3.system.folders import whole_folder
from vl3.toy.world import DESCRIBE, Scene, ToyQuestion, draw_scene

VIDEO_CATEGORIES = (Category.GENERAL_VIDEO, Category.STREAMING, Category.TEMPORAL_GROUNDING)
TRAIN_SCENES = {
    Category.SCENE_IMAGE: 1000,
    Category.SCENE_TEXT: 1200,
    Category.DOCUMENT: 800,
    Category.CHART: 1200,
    Category.FINE_GRAINED: 1000,
    Category.MULTI_IMAGE: 500,
    Category.TEXT_ONLY: 800,
    Category.GENERAL_VIDEO: 1000,
    Category.STREAMING: 600,
    Category.TEMPORAL_GROUNDING: 800,
}
CAPTIONED = (Category.SCENE_IMAGE, Category.SCENE_TEXT, Category.DOCUMENT, Category.CHART, Category.FINE_GRAINED)
MAX_TURNS = 5
SOURCE_FPS = (2, 3, 4, 5)
FINISHED_NAME = "corpus.json"
"""Written last: a corpus without it is incomplete."""


@dataclass(frozen=True, slots=True)
class _Job:
    out: Path
    category: Category
    split: str
    seed: int
    indices: range


def write_corpus(
    out: Path,
    *,
    seed: int,
    heldout_scenes: int = 100,
    scale: float = 1.0,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> int:
    """Write the corpus into `out`, unless it already has the same one; returns the number of samples.

    Args:
        out: folder to make; it appears only when it is complete.
        seed: seed of every scene.
        heldout_scenes: number of held-out scenes per category.
        scale: factor on the number of training scenes, for quick trials.
        workers: number of processes that draw and encode.
        progress: called with the number of scenes that are drawn and the total.

    Raises:
        StorageError: `out` exists with other content, or cannot be written.
    """
    settings = {"seed": seed, "heldout_scenes": heldout_scenes, "scale": scale, "version": 1}
    finished = out / FINISHED_NAME
    if finished.exists():
        known = read_record(finished)
        samples = known.get("samples")
        if known.get("settings") == settings and isinstance(samples, int):
            return samples
        raise StorageError(
            f"{out} has a corpus with {known.get('settings', 'unknown settings')}, not {settings}. Choose another "
            "--out. To make it again, remove the folder first."
        )
    with whole_folder(out) as folder:
        return _write(folder, settings, workers, progress)


def _write(folder: Path, settings: dict, workers: int, progress: Callable[[int, int], None]) -> int:
    jobs = list(_jobs(folder, settings["seed"], settings["heldout_scenes"], settings["scale"]))
    done, total = 0, sum(len(job.indices) for job in jobs)
    written = []
    environment = {RUNNER_VARIABLE: runner_mark(os.getpid())}
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(environment,)) as pool:
        for job, records in zip(jobs, pool.map(_write_scenes, jobs), strict=True):
            written.append((job, records))
            done += len(job.indices)
            progress(done, total)
    samples = _write_annotations(folder, written)
    text = json.dumps({"settings": settings, "samples": samples}, indent=2)
    (folder / FINISHED_NAME).write_text(text + "\n", encoding="utf-8")
    return samples


def _start_worker(environment: dict[str, str]) -> None:
    """Leave Ctrl-C to the parent, which ends the workers, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_lifeline(environment, kill_group=False)


def _jobs(out: Path, seed: int, heldout_scenes: int, scale: float) -> Iterator[_Job]:
    for category in Category:
        (out / "media" / category).mkdir(parents=True, exist_ok=True)
        train = max(2, round(TRAIN_SCENES[category] * scale))
        for split, count in (("train", train), ("heldout", heldout_scenes)):
            for start in range(0, count, 100):
                yield _Job(out, category, split, seed, range(start, min(start + 100, count)))


def _write_annotations(out: Path, written: list[tuple[_Job, list[dict]]]) -> int:
    (out / "annotations").mkdir()
    total = 0
    for split in ("train", "heldout"):
        records = [record for job, records in written if job.split == split for record in records]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (out / annotations_file(split)).write_text(lines, encoding="utf-8")
        total += len(records)
    return total


def _write_scenes(job: _Job) -> list[dict]:
    records: list[dict] = []
    for index in job.indices:
        rng = random.Random(f"{job.seed}/{job.split}/{job.category}/{index}")
        scene = _draw_for_split(job.category, job.split, rng)
        name = f"{job.category}-{job.split}-{index:05d}"
        records += _records(scene, name, _write_media(job.out, scene, name, rng), job.split, rng)
    return records


def _draw_for_split(category: Category, split: str, rng: random.Random) -> Scene:
    """Draw scenes until the digest of one assigns it to the split; one in eight is assigned to the held-out split."""
    while True:
        scene = draw_scene(category, rng)
        content = hashlib.sha256(repr(sorted((q.prompt, q.answer) for q in scene.questions)).encode())
        for frame in scene.frames:
            content.update(frame.pixels_HWC.tobytes())
        if (content.digest()[0] % 8 == 0) == (split == "heldout"):
            return scene


def _records(scene: Scene, name: str, media: dict, split: str, rng: random.Random) -> Iterator[dict]:
    """The annotations of one scene: questions (only one if held out) and, for training, a caption if it has one."""
    common = {**media, "category": scene.category.value}
    if scene.category is Category.STREAMING:
        yield {"id": name, **common, "source": "qa", **_stream(scene, split)}
        return
    questions = list(scene.questions[:1])
    if split == "train":
        rest = [*scene.questions[1:], *scene.extras]
        questions += rng.sample(rest, min(MAX_TURNS - 1, len(rest)))
        rng.shuffle(questions)
    chance = {"chance": questions[0].chance} if split == "heldout" else {}
    yield {"id": name, **common, "source": "qa", "conversations": _turns(scene, questions), **chance}
    if split == "train" and scene.category in CAPTIONED:
        caption = [ToyQuestion(DESCRIBE, scene.caption, 0.0)]
        yield {"id": f"{name}-caption", **common, "source": "caption", "conversations": _turns(scene, caption)}


def _turns(scene: Scene, questions: list[ToyQuestion]) -> list[dict]:
    tag = "<video>\n" if scene.category in VIDEO_CATEGORIES else "<image>\n" * len(scene.frames)
    turns = []
    for index, question in enumerate(questions):
        turns.append({"from": "human", "value": (tag if index == 0 else "") + question.prompt})
        turns.append({"from": "gpt", "value": question.answer})
    return turns


def _stream(scene: Scene, split: str) -> dict:
    question = scene.questions[0]
    change = float(len(scene.frames) - 1)
    conversation = [
        {"role": "user", "content": question.prompt, "time": 0.0},
        {"role": "assistant", "content": question.answer, "time": change},
    ]
    chance = {"chance": question.chance} if split == "heldout" else {}
    return {"stream": True, "start_time": 0.0, "end_time": change + 1, "conversation": conversation, **chance}


def _write_media(out: Path, scene: Scene, name: str, rng: random.Random) -> dict:
    """Write the scene's files; returns the annotation's media fields."""
    folder = Path("media") / scene.category
    if scene.category in VIDEO_CATEGORIES:
        path = folder / f"{name}.mp4"
        frames = [frame.pixels_HWC for frame in scene.frames]
        frames += frames[-1:] * rng.randint(1, 2) if scene.category is Category.STREAMING else []
        (out / path).write_bytes(encode_video(frames, fps=rng.choice(SOURCE_FPS)))
        return {"video": [str(path)]}
    if not scene.frames:
        return {"image": None}
    paths = []
    for index, frame in enumerate(scene.frames):
        suffix = rng.choice(("png", "jpg"))
        path = folder / f"{name}-{index}.{suffix}"
        quality = rng.randint(88, 97)  # of a JPEG; PNG has none
        Image.fromarray(frame.pixels_HWC).save(out / path, quality=quality)
        paths.append(str(path))
    return {"image": paths}


def encode_video(seconds: list[np.ndarray], *, fps: int) -> bytes:
    """An MP4 file (H.264) that shows one picture per second, each in `fps` frames.

    Args:
        seconds: uint8 RGB pictures of equal, even size (H, W, 3).
        fps: frames per second of the file.
    """
    import av

    height_px, width_px = seconds[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        stream.thread_count = 1
        for picture in seconds:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            for _ in range(fps):
                frame.pts = None
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
