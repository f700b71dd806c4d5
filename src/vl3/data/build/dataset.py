"""Builds a dataset: annotations and media in, tar shards with a Parquet index out.

Every media file is decoded completely, in worker processes that may crash. The finished folder appears under its name
in one step: a build that is killed leaves only `<name>.partial`, which the next build removes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vl3.config.codec import digest, to_dict
from vl3.config.data import DataConfig
from vl3.data.build.pool import BuildPool
from vl3.data.build.worker import ShardJob, WorkerSetup, new_row
from vl3.data.build.index import INDEX_NAME, REFUSED_NAME, SUMMARY_NAME, IndexRow, write_index
from vl3.data.build.splits import group_by_content, hold_out
from vl3.data.sample.prepare import Pruner
from vl3.data.sample.problems import ProblemKind, shown
from vl3.data.sample.records import BadLine, Record, default_id, find_annotations, read_annotations
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError, StorageError
from vl3.system.files import atomic_write_text, storage_errors
from vl3.system.folders import whole_folder

SAMPLES_PER_SHARD = 128
SAMPLE_TIMEOUT_SECONDS = 120.0
MAX_COUNTED_KEYS = 100
"""Data whose keys are names or numbers of their own would fill the summary otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSummary:
    """What a build found. It contains no times, so that the same data give the same bytes."""

    lines: int
    samples: int
    splits: dict[str, int]
    categories: dict[str, int]
    problems: dict[str, int]
    warnings: int
    unknown_keys: dict[str, int]
    """Keys that are not read, each with the number of its lines; the most frequent MAX_COUNTED_KEYS of them."""
    shards: int
    media_bytes: int
    heldout_from: str
    """`annotations`, `hash` or `none` (no share asked for, or all samples share files): where held-out ones come from."""
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
        brings_heldout = annotations is None and find_annotations(data_folder, "heldout").exists()
        group_by_content(rows)
        heldout_from = "annotations" if brings_heldout else hold_out(rows, config.holdout_fraction)
        summary = _summarize(rows, len(jobs), heldout_from, config)
        write_index(folder / INDEX_NAME, rows)
        write_refused(folder / REFUSED_NAME, rows)
        atomic_write_text(folder / SUMMARY_NAME, json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n")
    return summary


def _read_lines(data_folder: Path, annotations: Path | None) -> list[Record | IndexRow]:
    """All lines in order: records to build, and finished rows for lines that are already refused."""
    train, heldout = (find_annotations(data_folder, split) for split in ("train", "heldout"))
    train = annotations or train
    lines = list(read_annotations(train, "train"))
    if not lines:
        raise DataError(f"{train} has no lines. Add samples; docs/data-formats.md shows the format.")
    if annotations is None and heldout.exists():
        lines += read_annotations(heldout, "heldout")
    return _refuse_duplicates(lines)


def _refuse_duplicates(lines: Sequence[Record | BadLine]) -> list[Record | IndexRow]:
    """The lines, with a finished row for each bad one and for each whose id another has.

    The first line with an id keeps it. Only a line without one comes before all others with its name: `train-4` is
    the fourth line, so the third that calls itself `train-4` is refused, not the fourth.
    """
    records = [line for line in lines if isinstance(line, Record)]
    first = {line.sample_id: line.where for line in records if line.sample_id == default_id(line.split, line.where)}
    for record in records:
        first.setdefault(record.sample_id, record.where)
    checked: list[Record | IndexRow] = []
    for line in lines:
        if isinstance(line, BadLine):
            row = IndexRow(sample_id=line.sample_id, split=line.sample_id.partition("-")[0], where=line.where)
            row.refuse(line.kind, line.reason)
            checked.append(row)
        elif first[line.sample_id] == line.where:
            checked.append(line)
        else:
            row = new_row(line)
            name, place = shown(line.sample_id), first[line.sample_id]
            row.refuse(ProblemKind.DUPLICATE, f"id {name} is already used at {place}. Give each sample its own id.")
            checked.append(row)
    return checked


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


def write_refused(path: Path, rows: Sequence[IndexRow]) -> None:
    """Write the refused lines as JSON, one object a line: where, id, kind, reason. Without any there is no file.

    Raises:
        StorageError: the file cannot be written.
    """
    refused = [row for row in rows if row.problem is not None]
    with storage_errors(path):
        if refused:
            with path.open("w", encoding="utf-8") as file:
                for row in refused:
                    line = {"where": row.where, "id": row.sample_id, "kind": row.problem_kind, "reason": row.problem}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _summarize(rows: Sequence[IndexRow], num_shards: int, heldout_from: str, config: DataConfig) -> BuildSummary:
    good = [row for row in rows if row.problem is None]
    return BuildSummary(
        lines=len(rows),
        samples=len(good),
        splits=_count(row.split for row in good),
        categories=_count(row.category for row in good),
        problems=_count(row.problem_kind for row in rows if row.problem_kind),
        warnings=sum(row.warning is not None for row in good),
        unknown_keys=_count_keys(rows),
        shards=num_shards,
        media_bytes=sum(row.length_bytes or 0 for row in good),
        heldout_from=heldout_from,
        config=to_dict(config),
        config_digest=digest(to_dict(config)),
    )


def _count_keys(rows: Sequence[IndexRow]) -> dict[str, int]:
    """The most frequent of the keys that are not read, and how many lines have each."""
    counts = Counter(key for row in rows if row.unknown_keys for key in row.unknown_keys.split(", "))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_COUNTED_KEYS])


def _count(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(value or "unknown" for value in values).items()))
