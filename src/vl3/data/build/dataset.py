"""Builds a dataset: annotations and media in, tar shards with a Parquet index out.

The work is done in units, each of which appears by itself (vl3.data.build.work), so that a build that was killed goes
on where it was. The finished folder appears under its name in one step.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vl3.config.codec import digest, to_dict
from vl3.config.data import DataConfig
from vl3.data.build.executors import Executor, Processes, RayActors, run_units
from vl3.data.build.finish import Tally, merge_parts, most_frequent
from vl3.data.build.index import SUMMARY_NAME, read_summary
from vl3.data.build.shards import shard_name
from vl3.data.build.units import Unit, are_packed, find_annotations_of, find_units, unpack
from vl3.data.build.work import Work
from vl3.data.build.worker import BuildSetup
from vl3.data.sample.prepare import Pruner
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_text, storage_errors
from vl3.system.folders import remove, resumed_folder
from vl3.system.uris import file_uri

_WORK = "work"
_FORMAT = 1
"""Of the units: those of another version are made again."""
LIBRARIES = ("av", "pillow", "pyarrow", "tokenizers")
"""Distributions whose version decides the bytes of a dataset."""
Progress = Callable[[int, int], None]
"""Called with the number of lines worked off and the total."""
_DECIDE_NOTHING = ("build_workers", "max_bad_fraction", "prune_before_encoder")
"""Settings of the data that change no byte of a dataset: how it is built, judged and used."""


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
    """Where held-out samples come from: `annotations`, `hash` or `none` (no share asked for, or all share files)."""
    config: dict[str, object]
    config_digest: str


def built_settings(config: DataConfig) -> dict[str, Any]:
    """The settings of the data that decide the bytes of a dataset."""
    return {name: value for name, value in to_dict(config).items() if name not in _DECIDE_NOTHING}


def build_dataset(
    data: Path | str,
    out_folder: Path,
    *,
    config: DataConfig,
    tokenizer: ChatTokenizer,
    prune: Pruner,
    workers: int,
    ray: str | None = None,
    annotations: Path | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> BuildSummary:
    """Build a dataset folder from `annotations/train.jsonl` (and `heldout.jsonl`) and the media that they name.

    A killed build goes on with its units if it is started again with the same identity and settings.

    Args:
        data: folder or s3:// URI to which the paths in the annotations are relative.
        out_folder: folder to make; it must not exist or be empty.
        config: frame sampling and token limits.
        tokenizer: counts the text tokens.
        prune: DiffFP, an importable function (workers import it).
        workers: number of processes.
        ray: `local`, or the address of a Ray cluster that sees `out_folder`: its actors instead of processes.
        annotations: file to read instead of the two in the data folder.
        identity: what else decides the bytes: versions of data, tokenizer and code.
        progress: called with the number of lines worked off and the total.

    Raises:
        DataError: the annotations are missing or have no line.
        StorageError: the folder already exists and is not empty, is being built, or cannot be written.
    """
    source_uri = file_uri(data.resolve()) if isinstance(data, Path) else data.rstrip("/")
    executor: Executor = Processes(workers=workers)
    if ray is not None:
        executor = RayActors(workers=workers, address=None if ray == "local" else ray)
    given = None if annotations is None else file_uri(annotations)
    with resumed_folder(Path(out_folder)) as folder:
        setup = BuildSetup(
            source_uri=source_uri,
            work=Work(file_uri(folder / _WORK)),
            config=config,
            tokenizer=tokenizer,
            prune=prune,
        )
        if not begin(setup, identity):
            _clear(folder)
        if not (folder / SUMMARY_NAME).exists():
            units = plan_units(setup, given)
            make_units(units, setup, executor, progress)
            finish_dataset(units, setup, folder)
        with storage_errors(folder):
            remove(folder / _WORK)
    return BuildSummary(**read_summary(Path(out_folder)))


def begin(setup: BuildSetup, identity: str) -> bool:
    """Keep the units of an earlier build of the same, and remove all others; returns whether it was the same."""
    own = {"config": built_settings(setup.config), "source": setup.source_uri, "format": _FORMAT, "of": identity}
    return setup.work.begin(digest(own))


def _clear(folder: Path) -> None:
    """Remove what a build of something else has finished in a folder."""
    with storage_errors(folder):
        for path in folder.iterdir():
            if path.name != _WORK:
                remove(path)


def plan_units(setup: BuildSetup, annotations: str | None = None) -> list[Unit]:
    """The units of a build, found in one pass over the annotations; packed ones are unpacked beside the units first.

    Args:
        setup: the build's.
        annotations: URI of the one file to read; None reads those of the source.

    Raises:
        DataError: the annotations are missing, cannot be read or have no line.
        StorageError: the store fails.
    """
    files = []
    for file in find_annotations_of(setup.source_uri, annotations):
        if are_packed(file):
            key = f"annotations-{file.split}.jsonl"
            setup.work.put_chunks(unpack(file), key)
            file = replace(file, uri=join_uri(setup.work.uri, key))
        files.append(file)
    return find_units(files)


def make_units(units: Sequence[Unit], setup: BuildSetup, executor: Executor, progress: Progress | None = None) -> None:
    """Make the units that are not there; see run_units for errors."""
    total = sum(unit.lines for unit in units)
    run_units(units, setup, executor, lambda done: progress(min(done, total), total) if progress else None)


def finish_dataset(units: Sequence[Unit], setup: BuildSetup, folder: Path) -> BuildSummary:
    """Write everything but the shards into a folder, the summary last; shards that are on this machine are linked.

    Raises:
        StorageError: a unit is missing or damaged, or the disk is full.
    """
    tally = merge_parts(
        units,
        setup.work,
        folder,
        brings_heldout=any(span.split == "heldout" for unit in units for span in unit.spans),
        holdout_fraction=setup.config.holdout_fraction,
    )
    if setup.work.folder is not None:
        with storage_errors(folder):
            for unit in units:
                link = folder / shard_name(unit.number)
                remove(link)
                link.hardlink_to(setup.work.shard_path(unit.number))
    summary = _summarize(tally, len(units), setup.config)
    atomic_write_text(folder / SUMMARY_NAME, json.dumps(asdict(summary), indent=2, sort_keys=True) + "\n")
    return summary


def _summarize(tally: Tally, shards: int, config: DataConfig) -> BuildSummary:
    settings = built_settings(config)
    return BuildSummary(
        lines=tally.lines,
        samples=tally.splits.total(),
        splits=dict(sorted(tally.splits.items())),
        categories=dict(sorted(tally.categories.items())),
        problems=dict(sorted(tally.problems.items())),
        warnings=tally.warnings,
        unknown_keys=most_frequent(tally.unknown_keys),
        shards=shards,
        media_bytes=tally.media_bytes,
        heldout_from=tally.heldout_from,
        config=settings,
        config_digest=digest(settings),
    )
