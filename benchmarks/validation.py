"""Validation of growing indexes: how fast, and in how much memory?

`python -m benchmarks.validation --folder /tmp/indexes` (3 GB there; indexes that it has are used again).
"""

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import write_result
from benchmarks.synthetic_index import digests, synthetic_rows
from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, index_schema
from vl3.data.build.parts import BATCH_ROWS
from vl3.recipes.catalog import get_recipe
from vl3.system.files import atomic_write_json
from vl3.validation.suite import validate_dataset

COUNTS = (100_000, 1_000_000, 10_000_000)
_SPAWN = multiprocessing.get_context("spawn")
_HELD_OUT_EVERY = 1000
_TRUTHS = [
    name for name, kind in zip(index_schema().names, index_schema().types, strict=True) if pa.types.is_boolean(kind)
]


def write_index(folder: Path, samples: int) -> Path:
    """A synthetic index in which nothing is wrong, made once."""
    dataset = folder / f"whole-{samples}"
    if (dataset / SUMMARY_NAME).exists():
        return dataset
    shutil.rmtree(dataset, ignore_errors=True)
    dataset.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(dataset / INDEX_NAME, index_schema(), compression="zstd") as writer:
        for first in range(0, samples, BATCH_ROWS):
            writer.write_table(_whole(rng, first, min(BATCH_ROWS, samples - first)))
    atomic_write_json(dataset / SUMMARY_NAME, {"lines": samples})
    return dataset


def _whole(rng: np.random.Generator, first: int, count: int) -> pa.Table:
    """Rows like those of stage 4 with every fact that a build writes."""
    table = synthetic_rows(rng, "stage 4", first, count)
    frames, images = table["num_frames"].to_numpy(), table["num_images"].to_numpy()
    has_media, numbers = (frames > 0) | (images > 0), range(first, first + count)
    columns: dict[str, Any] = {name: table[name] for name in table.column_names}
    columns |= {
        "split": pa.array(["train" if number % _HELD_OUT_EVERY else "heldout" for number in numbers]),
        "where": pa.array([f"annotations/train.jsonl:{number + 1}" for number in numbers]),
        "media_sha256": pa.array(np.where(has_media, digests(rng, count).to_numpy(zero_copy_only=False), "")),
        "content_sha256": digests(rng, count),
        "media_group": digests(rng, count),
        "num_turns": pa.array(np.full(count, 2)),
        "supervised_tokens": pa.array(np.full(count, 50)),
        "chance": pa.array(np.full(count, 0.25)),
        **{name: pa.array(np.ones(count, dtype=np.bool_)) for name in _TRUTHS},
        **{
            name: pa.array(np.full(count, value), mask=~has_media)
            for name, value in (("min_side_px", 480), ("max_side_px", 640), ("aspect_ratio", 4 / 3))
        },
        "duration_seconds": pa.array(frames.astype(np.float64), mask=frames == 0),
        "source_fps": pa.array(np.full(count, 24.0), mask=frames == 0),
    }
    return pa.table(columns).select(index_schema().names).cast(index_schema())


def work(pipe: Connection, dataset: Path, folder: Path) -> None:
    """Validate; send wall and CPU seconds, the peak of memory in MB, and what was found."""
    import great_expectations  # noqa: F401 - its import takes seconds that do not grow with the data

    before, cpu_before = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as out:
        result = validate_dataset(dataset, get_recipe("vl3_2b"), Path(out))
    wall, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    critical = [finding.check for finding in result.critical]
    pipe.send((wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, result.facts["lines"], critical))


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    rows = []
    for samples in COUNTS:
        dataset = write_index(folder, samples)
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(target=work, args=(there, dataset, folder))
        process.start()
        there.close()
        wall, cpu, peak_mb, lines, critical = here.recv()
        process.join()
        millions = lines / 1e6
        size_mb = (dataset / INDEX_NAME).stat().st_size / 1e6
        rows.append(
            [f"{lines:,}", f"{size_mb:,.0f}", f"{cpu / millions:.1f}", f"{wall / millions:.1f}", f"{peak_mb:,.0f}"]
        )
        print(rows[-1], critical, flush=True)
    write_result(
        "validation",
        title="Validation of an index",
        question="Does validation take constant memory and under 30 s a million rows?",
        command="python -m benchmarks.validation --folder /tmp/indexes",
        columns=("rows", "index (MB)", "CPU s a million", "wall s a million", "peak memory (MB)"),
        rows=rows,
        notes=(
            "Synthetic rows like those of stage 4 (benchmarks/synthetic_index.py) with every fact that a build writes, "
            "one in a thousand held out; every row is judged by Great Expectations, on one core. The import of Great "
            "Expectations is not in the times, and is in the memory.",
            "CPU seconds are the work, wall seconds what was waited.",
        ),
        libraries=("great-expectations", "pandas", "pyarrow"),
    )


if __name__ == "__main__":
    main()
