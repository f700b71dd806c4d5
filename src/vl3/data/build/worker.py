"""The worker process of a dataset build: decodes, measures and writes one shard at a time.

A decoder may crash or hang. So the worker reports each sample before it opens it, and the parent process, which
survives both, refuses that sample.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from vl3.conventions import IGNORED_LABEL
from vl3.config.data import DataConfig
from vl3.data.sample.chat import encode_messages, render_record
from vl3.data.sample.checks import TIME_RANGE, check_times_in_video
from vl3.data.build.index import MERGE_SIZES, IndexRow
from vl3.data.sample.media import MediaContent, media_digest, read_media, resolve_media_path
from vl3.data.sample.prepare import DecodedSample, PrepareSettings, Pruner, decode_media, keep_tokens, resized_items
from vl3.data.sample.problems import ProblemKind, SampleProblem, shown
from vl3.data.sample.records import Record
from vl3.data.build.shards import ShardWriter, shard_name
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import FAMILIES, Vl3Error

PROCESS_BYTES = 1 << 30
"""Memory of a process of the build."""
_DROP = ". Replace the file with a smaller one or drop the sample."


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSetup:
    """What all shards of a build share."""

    data_folder: Path
    out_folder: Path
    config: DataConfig
    tokenizer: ChatTokenizer
    prune: Pruner


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardJob:
    """One shard: its records, the position of the first in the dataset, and those known to break the decoder."""

    number: int
    first_position: int
    records: tuple[Record, ...]
    poisoned: dict[int, str]
    """Samples on which a worker crashed or hung: reason by position within the shard."""


def run_worker(connection: Connection, setup: WorkerSetup) -> None:
    """Run shard jobs until None is received or the parent is gone."""
    _limit_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while (job := connection.recv()) is not None:
            try:
                rows = write_shard(job, setup, connection)
            except Vl3Error as error:
                connection.send(
                    ("failed", type(error).__name__ if type(error).__name__ in FAMILIES else "", str(error))
                )
                return
            connection.send(("done", rows))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _limit_memory() -> None:
    """Let allocations fail before the process has more than `PROCESS_BYTES` in memory.

    A header of a few bytes can make a library allocate gigabytes. Counted is what is reserved for writing (`VmData`), of
    which only a part is in memory: with 200 MiB reserved and 50 MiB in memory, 1024 - 50 more may be reserved.
    """
    if sys.platform != "linux":
        return
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    reserved, used = (int(status[name].split()[0]) << 10 for name in ("VmData", "VmRSS"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (reserved + PROCESS_BYTES - used, hard))


def _end_with_parent() -> None:
    """Exit when the parent is gone; otherwise a hanging decoder would outlive a killed parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_shard(job: ShardJob, setup: WorkerSetup, connection: Connection | None = None) -> list[IndexRow]:
    """Measure the records of a shard and write the good ones; returns a row for each record.

    Raises:
        StorageError: the shard cannot be written.
    """
    rows = []
    with ShardWriter(setup.out_folder / shard_name(job.number)) as writer:
        for position, record in enumerate(job.records):
            row = new_row(record)
            rows.append(row)
            if position in job.poisoned:
                row.refuse(ProblemKind.UNDECODABLE, job.poisoned[position])
                continue
            if connection is not None:  # a decoder may kill this process: the parent must know which sample it was
                connection.send(("at", position))
            try:
                media = load_media(record, setup.data_folder)
                measure_sample(row, record, media, setup)
            except SampleProblem as problem:
                row.refuse(problem.kind, str(problem).removeprefix(f"{record.where}: "))
                continue
            except MemoryError:
                row.refuse(ProblemKind.UNDECODABLE, f"its media need more memory than {PROCESS_BYTES >> 20} MiB{_DROP}")
                continue
            span = writer.write(f"{job.first_position + position:08d}", record, media)
            row.shard, row.sha256 = span.shard, span.sha256
            row.offset_bytes, row.length_bytes = span.offset_bytes, span.length_bytes
            row.media_sha256, row.content_sha256 = content_digests(record, media)
            row.accept()
    return rows


def new_row(record: Record) -> IndexRow:
    """A row with the values that follow from the annotation alone."""
    return IndexRow(
        sample_id=record.sample_id,
        split=record.split,
        category=record.category.value,
        source=record.source,
        where=record.where,
        num_turns=len(record.turns) + len(record.events),
        num_images=len(record.images),
        chance=record.chance,
        warning=record.warning,
        unknown_keys=", ".join(record.unknown_keys) or None,
    )


def content_digests(record: Record, media: dict[str, MediaContent]) -> tuple[str, str]:
    """`IndexRow.media_sha256` and `IndexRow.content_sha256` of a sample.

    Two questions on one picture have the same first digest; the same question with another id has both.
    """
    by_path = {path: media_digest(content) for path, content in media.items()}
    files = " ".join(by_path[path] for path in record.media_paths)
    messages = [(turn.role, turn.text) for turn in record.turns]
    messages += [(f"{event.role} {event.time_seconds}", event.text) for event in record.events]
    content = json.dumps([files, record.start_seconds, record.end_seconds, messages])
    return files, hashlib.sha256(content.encode()).hexdigest()


def load_media(record: Record, data_folder: Path) -> dict[str, MediaContent]:
    """Content of each media file of a record.

    Raises:
        SampleProblem: a path leads outside the data folder, or a file is missing.
    """
    paths = {path: resolve_media_path(data_folder, path, record.where) for path in record.media_paths}
    return {path: read_media(found, path, record.where) for path, found in paths.items()}


def measure_sample(row: IndexRow, record: Record, media: dict[str, MediaContent], setup: WorkerSetup) -> None:
    """Decode a sample once and fill in its facts and token counts for every merge.

    Raises:
        SampleProblem: a file cannot be decoded, a time is after the end of the video, or the sample exceeds the limits at
            every merge.
    """
    decoded = decode_media(record, media, setup.config, [(merge, merge) for merge in MERGE_SIZES], whole=True)
    _note_media(row, decoded)
    if decoded.video_facts is not None:
        check_times_in_video(_annotated_times(record), decoded.video_facts.duration_seconds, record.where)
    chat = encode_messages(render_record(record, decoded.timestamps_F), setup.tokenizer)
    row.text_tokens = int((chat.input_ids_T != setup.tokenizer.image_id).sum())
    row.supervised_tokens = int((chat.labels_T != IGNORED_LABEL).sum())
    shortest = []
    for merge in MERGE_SIZES:
        settings = PrepareSettings(image_merge_size=merge, video_merge_size=merge, difffp=True, data=setup.config)
        image_tokens, video_tokens, kept_tokens = count_vision_tokens(record, decoded, settings, setup.prune)
        setattr(row, f"image_tokens_m{merge}", image_tokens)
        setattr(row, f"video_tokens_m{merge}", video_tokens)
        setattr(row, f"kept_tokens_m{merge}", kept_tokens)
        shortest.append((row.text_tokens + image_tokens + kept_tokens, image_tokens + video_tokens))
    _check_limits(shortest, record, setup.config)


def _annotated_times(record: Record) -> list[tuple[str, float]]:
    """The times that an annotation claims to be in its video: those of a stream, and of answers such as `2.0-4.5 s`."""
    if record.is_stream:
        messages = [("a message", event.time_seconds) for event in record.events]
        return [*messages, ("end_time", record.end_seconds or 0.0)]
    answers = [TIME_RANGE.fullmatch(turn.text) for turn in record.turns if turn.role == "assistant"]
    return [(f"the answer {shown(found[0])}", float(found[2])) for found in answers if found]


def count_vision_tokens(
    record: Record, decoded: DecodedSample, settings: PrepareSettings, prune: Pruner
) -> tuple[int, int, int]:
    """Number of image tokens, and of video tokens before and after DiffFP, with the settings' merges."""
    items, merges = resized_items(record, decoded, settings)
    num_images = len(decoded.image_sizes)
    everything = dataclasses.replace(settings, difffp=False)
    counts = [keep_tokens(frames, merge, everything, prune).size for frames, merge in zip(items, merges, strict=True)]
    kept = [
        int(keep_tokens(frames, merge, settings, prune).sum())
        for frames, merge in zip(items[num_images:], merges[num_images:], strict=True)
    ]
    return sum(counts[:num_images]), sum(counts[num_images:]), sum(kept)


def _note_media(row: IndexRow, decoded: DecodedSample) -> None:
    sizes = list(decoded.image_sizes)
    facts = decoded.video_facts
    row.num_frames = decoded.num_frames
    if facts is not None:
        sizes.append((facts.height_px, facts.width_px))
        row.duration_seconds, row.source_fps = facts.duration_seconds, facts.fps
    if sizes:
        sides = np.array(sizes, dtype=np.int64)
        row.min_side_px, row.max_side_px = int(sides.min()), int(sides.max())
        row.aspect_ratio = float((sides.max(axis=1) / sides.min(axis=1)).max())


def _check_limits(shortest: list[tuple[int, int]], record: Record, config: DataConfig) -> None:
    """Refuse a sample that is too large at any merge; `shortest` has (length, vision tokens) for each merge."""
    length, visual = (min(values) for values in zip(*shortest, strict=True))
    if length > config.max_length_tokens:
        reason = f"the sample has {length} tokens, a row has {config.max_length_tokens} (data.max_length_tokens)"
    elif visual > config.visual_budget_tokens:
        reason = (
            f"the sample has {visual} vision tokens at its smallest, a sample may have {config.visual_budget_tokens} "
            "(data.visual_budget_tokens)"
        )
    else:
        return
    raise SampleProblem(ProblemKind.TOO_LONG, f"{reason}. Shorten the sample or raise the limit.", record.where)
