"""Builds a dataset: annotations and media in, tar shards with a Parquet index out.

Every media file is decoded completely, in worker processes that may crash. The finished folder appears under its name
in one step: a build that is killed leaves only `<name>.partial`, which the next build removes.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vl3.config.codec import digest, to_dict
from vl3.config.data import DataConfig
from vl3.data.build.pool import BuildPool
from vl3.data.build.worker import ShardJob, WorkerSetup, new_row
from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME, IndexRow, write_index
from vl3.data.sample.prepare import Pruner
from vl3.data.sample.problems import ProblemKind
from vl3.data.sample.records import BadLine, Record, annotations_file, read_annotations
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError, StorageError
from vl3.system.files import atomic_write_text
from vl3.system.folders import whole_folder

SAMPLES_PER_SHARD = 128
SAMPLE_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSummary:
    """What a build found. It contains no times, so that the same data give the same bytes."""

    lines: int
    samples: int
    splits: dict[str, int]
    categories: dict[str, int]
    problems: dict[str, int]
    warnings: int
    shards: int
    media_bytes: int
    heldout_from: str
    """`annotations`, `hash` or `none`: where the held-out samples come from."""
    config: dict[str, object]
    config_digest: str


def build_dataset(
    data_folder: Path,
    out_folder: Path,
    *,
    config: DataConfig,
    tokenizer: ChatTokenizer,
    prune: Pruner,
    workers: int,
    annotations: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildSummary:
    """Build a dataset folder from `annotations/train.jsonl` (and `heldout.jsonl`) and the media that they name.

    Args:
        data_folder: folder to which the paths in the annotations are relative.
        out_folder: folder to make; it must not exist or be empty.
        config: frame sampling and token limits.
        tokenizer: counts the text tokens.
        prune: DiffFP, an importable function (workers import it).
        workers: number of processes.
        annotations: file to read instead of the two in the data folder.
        progress: called with the number of samples started and the total.

    Raises:
        DataError: the annotations are missing or have no line.
        StorageError: the folder already exists and is not empty, or cannot be written.
    """
    data_folder, out_folder = Path(data_folder), Path(out_folder)
    lines = _read_lines(data_folder, annotations)
    with whole_folder(out_folder) as folder:
        setup = WorkerSetup(
            data_folder=data_folder.resolve(), out_folder=folder, config=config, tokenizer=tokenizer, prune=prune
        )
        jobs = _shard_jobs([line for line in lines if isinstance(line, Record)])
        total = sum(len(job.records) for job in jobs)
        pool = BuildPool(
            setup,
            workers=workers,
            sample_timeout_seconds=SAMPLE_TIMEOUT_SECONDS,
            on_sample=lambda done: progress(done, total) if progress else None,
        )
        # Refused lines were never jobs; they get back their place among the built ones, so the index keeps the order.
        built = iter([row for rows in pool.run(jobs) for row in rows])
        rows = [next(built) if isinstance(line, Record) else line for line in lines]
        brings_heldout = annotations is None and (data_folder / annotations_file("heldout")).exists()
        heldout_from = "annotations" if brings_heldout else _hold_out(rows, config.holdout_fraction)
        summary = _summarize(rows, len(jobs), heldout_from, config)
        write_index(folder / INDEX_NAME, rows)
        atomic_write_text(folder / SUMMARY_NAME, json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n")
    return summary


def _read_lines(data_folder: Path, annotations: Path | None) -> list[Record | IndexRow]:
    """All lines in order: records to build, and finished rows for lines that are already refused."""
    train, heldout = (data_folder / annotations_file(split) for split in ("train", "heldout"))
    train = annotations or train
    lines = list(_refuse_duplicates(read_annotations(train, "train")))
    if not lines:
        raise DataError(f"{train} has no lines. Add samples; docs/data-formats.md shows the format.")
    if annotations is None and heldout.exists():
        known = {line.sample_id for line in lines if isinstance(line, Record)}
        lines += _refuse_duplicates(read_annotations(heldout, "heldout"), known)
    return lines


def _refuse_duplicates(
    lines: Iterator[Record | BadLine], known: set[str] | frozenset[str] = frozenset()
) -> Iterator[Record | IndexRow]:
    seen: dict[str, str] = dict.fromkeys(known, annotations_file("train"))
    for line in lines:
        if isinstance(line, BadLine):
            row = IndexRow(sample_id=line.sample_id, split=line.sample_id.partition("-")[0], where=line.where)
            row.refuse(line.kind, line.reason)
            yield row
            continue
        first = seen.setdefault(line.sample_id, line.where)
        if first == line.where:
            yield line
            continue
        row = new_row(line)
        row.refuse(
            ProblemKind.DUPLICATE,
            f"id {line.sample_id!r} is already used at {first}. Give each sample its own id.",
        )
        yield row


def _shard_jobs(records: Sequence[Record]) -> list[ShardJob]:
    """Shards of a fixed number of samples, so that the bytes do not depend on the number of workers.

    300 records make the shards 0 to 2 with first positions 0, 128 and 256, and 128, 128 and 44 records.
    """
    return [
        ShardJob(
            number=number,
            first_position=start,
            records=tuple(records[start : start + SAMPLES_PER_SHARD]),
            poisoned={},
        )
        for number, start in enumerate(range(0, len(records), SAMPLES_PER_SHARD))
    ]


def _hold_out(rows: Sequence[IndexRow], holdout_fraction: float) -> str:
    """Hold out a share by hash, samples with the same files together; returns `BuildSummary.heldout_from`.

    Files that hash to 0.02, 0.31 and 0.77, holdout_fraction=0.1: all samples of the first file are held out. If no
    hash were below 0.1, the lowest would still be held out; if all were, the highest would stay in training.
    """
    groups = sorted({row.media_group for row in rows if row.problem is None}, key=_hash_fraction)
    if holdout_fraction == 0 or len(groups) < 2:
        return "none"
    chosen = {group for group in groups if _hash_fraction(group) < holdout_fraction} or set(groups[:1])
    chosen = chosen if len(chosen) < len(groups) else set(groups[:-1])
    for row in rows:
        if row.media_group in chosen:
            row.split = "heldout"
    return "hash"


def _hash_fraction(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _summarize(rows: Sequence[IndexRow], num_shards: int, heldout_from: str, config: DataConfig) -> BuildSummary:
    good = [row for row in rows if row.problem is None]
    return BuildSummary(
        lines=len(rows),
        samples=len(good),
        splits=_count(row.split for row in good),
        categories=_count(row.category for row in good),
        problems=_count(row.problem_kind for row in rows if row.problem_kind),
        warnings=sum(row.warning is not None for row in good),
        shards=num_shards,
        media_bytes=sum(row.length_bytes or 0 for row in good),
        heldout_from=heldout_from,
        config=to_dict(config),
        config_digest=digest(to_dict(config)),
    )


def _count(values: Iterator[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
