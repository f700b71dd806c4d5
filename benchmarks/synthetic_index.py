"""A built dataset's index without its shards, of any size: only what a plan reads, with lengths like those of a stage.

Stage-2-like (merge 1, no DiffFP), as the paper's table 2 mixes its categories; vision and text tokens are log-normal:

    share  category       vision, median (sigma)   text, median (sigma)
    0.57   scene_image    1300 (0.6)               200 (0.5)     one detailed caption of a photograph
    0.21   scene_text      900 (0.7)               120 (0.8)
    0.12   document       4500 (0.5)               600 (0.7)     a page
    0.05   chart          1500 (0.5)               150 (0.6)
    0.05   text_only         0                     450 (0.9)

Stage-4-like (merge 2, DiffFP), as table 4 does; a video has a log-normal number of frames, median 60 (0.9), 4 to 180,
of 60, 90, 120 or 169 tokens each, 10240 at most, of which 80 to 100 % are kept, and 7 tokens of text a frame:

    0.53   general_video  as above                 200 (0.8) and the times
    0.05   streaming      as above                 200 (0.8) and the times
    0.15   scene_image     350 (0.6)               200 (0.8)
    0.27   text_only         0                     600 (0.8)
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, IndexRow, index_schema
from vl3.system.files import atomic_write_json

MIXTURES = {
    "stage 2": {"scene_image": 0.57, "scene_text": 0.21, "document": 0.12, "chart": 0.05, "text_only": 0.05},
    "stage 4": {"general_video": 0.53, "streaming": 0.05, "scene_image": 0.15, "text_only": 0.27},
}
BUDGET_TOKENS = 10240
_VISION = {"scene_image": (1300, 0.6), "scene_text": (900, 0.7), "document": (4500, 0.5), "chart": (1500, 0.5)}
_TEXT = {"scene_image": (200, 0.5), "scene_text": (120, 0.8), "document": (600, 0.7), "chart": (150, 0.6)}
_BATCH_ROWS = 500_000
_PER_SHARD = 10_000


def write_synthetic(folder: Path, like: str, samples: int, *, seed: int = 0) -> None:
    """Write `samples` rows of the given distribution; all are usable training samples."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    with pq.ParquetWriter(folder / INDEX_NAME, index_schema(), compression="zstd") as writer:
        for first in range(0, samples, _BATCH_ROWS):
            writer.write_table(synthetic_rows(rng, like, first, min(_BATCH_ROWS, samples - first)))
    atomic_write_json(folder / SUMMARY_NAME, {"lines": samples})


def synthetic_rows(rng: np.random.Generator, like: str, first: int, count: int) -> pa.Table:
    """Rows [first, first + count) as a table."""
    names = list(MIXTURES[like])
    codes = rng.choice(len(names), count, p=list(MIXTURES[like].values())).astype(np.int32)
    text, image, video, kept, frames = _stage_2(rng, names, codes) if like == "stage 2" else _stage_4(rng, names, codes)
    last = first + count
    numbers = np.arange(first, last)
    columns: dict[str, Any] = {
        "sample_id": pa.array([f"s{number}" for number in numbers.tolist()]),
        "split": _one_text("train", count),
        "where": _one_text("train.jsonl:1", count),
        "category": pa.DictionaryArray.from_arrays(codes, pa.array(names)).cast(pa.string()),
        "source": _one_text("synthetic", count),
        "shard": pa.DictionaryArray.from_arrays(
            (numbers // _PER_SHARD - first // _PER_SHARD).astype(np.int32),
            pa.array([f"shard-{number:06d}.tar" for number in range(first // _PER_SHARD, last // _PER_SHARD + 1)]),
        ).cast(pa.string()),
        "offset_bytes": numbers % _PER_SHARD * 200_192,
        "length_bytes": np.full(count, 200_192),
        "sha256": digests(rng, count),
        "num_images": (image > 0).astype(np.int64),
        "num_frames": frames,
        "text_tokens": text,
    }
    for merge in (1, 2):
        columns |= {f"image_tokens_m{merge}": image, f"video_tokens_m{merge}": video, f"kept_tokens_m{merge}": kept}
    nothing = {field.name: pa.nulls(count) for field in fields(IndexRow) if field.name not in columns}
    table = pa.table(columns | nothing)
    return table.select(index_schema().names).cast(index_schema())


def _stage_2(rng: np.random.Generator, names: list[str], codes: np.ndarray) -> tuple[np.ndarray, ...]:
    vision, text = (
        np.select(
            [codes == names.index(name) for name in table],
            [_log_normal(rng, *table[name], len(codes)) for name in table],
            other,
        )
        for table, other in ((_VISION, 0.0), (_TEXT, _log_normal(rng, 450, 0.9, len(codes))))
    )
    vision = np.where(codes == names.index("text_only"), 0, np.clip(vision, 16, BUDGET_TOKENS)).astype(np.int64)
    none = np.zeros_like(vision)
    return np.clip(text, 20, 6000).astype(np.int64), vision, none, none, none


def _stage_4(rng: np.random.Generator, names: list[str], codes: np.ndarray) -> tuple[np.ndarray, ...]:
    count = len(codes)
    is_video = codes <= names.index("streaming")
    frames = np.where(is_video, np.clip(_log_normal(rng, 60, 0.9, count), 4, 180), 0).astype(np.int64)
    video = np.minimum(frames * rng.choice([60, 90, 120, 169], count), BUDGET_TOKENS)
    kept = (video * rng.uniform(0.8, 1, count)).astype(np.int64)
    photo = np.clip(_log_normal(rng, 350, 0.6, count), 16, 2560)
    image = np.where(codes == names.index("scene_image"), photo, 0).astype(np.int64)
    text = np.clip(_log_normal(rng, 200, 0.8, count), 20, 4000) + 7 * frames
    text = np.where(codes == names.index("text_only"), np.clip(_log_normal(rng, 600, 0.8, count), 20, 6000), text)
    return text.astype(np.int64), image, video, kept, frames


def _log_normal(rng: np.random.Generator, median: float, sigma: float, count: int) -> np.ndarray:
    return rng.lognormal(np.log(median), sigma, count)


def _one_text(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pa.array([text])).cast(pa.string())


def digests(rng: np.random.Generator, count: int) -> pa.Array:
    """Random digests as hexadecimal text."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[rng.integers(0, 16, 64 * count, dtype=np.uint8)]
    starts = np.arange(0, 64 * count + 1, 64, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(starts.tobytes()), pa.py_buffer(digits.tobytes()))
