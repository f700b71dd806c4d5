"""The worker process of a dataset build: decodes, measures and writes one shard at a time.

A decoder may crash or hang. So the worker reports each sample before it opens it, and the parent process, which
survives both, refuses that sample.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from vl3.conventions import IGNORED_LABEL
from vl3.config.data import DataConfig
from vl3.data.sample.chat import encode_messages, render_record
from vl3.data.sample.checks import check_times_in_video, time_ranges
from vl3.data.sample.clips import Medium, list_frames
from vl3.data.build.index import MERGE_SIZES, MIXED_MERGES, IndexRow
from vl3.data.sample.media import MediaContent, media_digest, read_all_media
from vl3.data.sample.prepare import DecodedSample, PrepareSettings, Pruner, decode_media, keep_tokens, resized_items
from vl3.data.sample.problems import ProblemKind, SampleProblem, shown
from vl3.data.sample.records import Record
from vl3.data.build.shards import ShardWriter, shard_name
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import FAMILIES, Vl3Error
from vl3.system.memory import limit_memory

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
    limit_memory(PROCESS_BYTES)
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
        for position, annotated in enumerate(job.records):
            record = annotated
            row = new_row(record)
            rows.append(row)
            if position in job.poisoned:
                row.refuse(ProblemKind.UNDECODABLE, job.poisoned[position])
                continue
            if connection is not None:  # a decoder may kill this process: the parent must know which sample it was
                connection.send(("at", position))
            try:
                record = dataclasses.replace(record, media=list_frames(record.media, setup.data_folder, record.where))
                media = read_all_media(setup.data_folder, record.media_paths, record.where)
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
    content = json.dumps([files, [_interval(item) for item in record.media], messages])
    return files, hashlib.sha256(content.encode()).hexdigest()


def _interval(item: Medium) -> list[float | int | None]:
    """What of a medium is shown, beside its bytes: nothing to say of a picture."""
    return [] if isinstance(item, str) else [item.start_seconds, item.end_seconds, item.frames_fps, len(item.files)]


def measure_sample(row: IndexRow, record: Record, media: dict[str, MediaContent], setup: WorkerSetup) -> None:
    """Decode a sample once and fill in its facts and token counts for every merge.

    Raises:
        SampleProblem: a file cannot be decoded, a time is after the end of the video, or the sample exceeds the limits at
            every merge.
    """
    is_mixed = bool(record.images and record.clips)
    pairs = [(merge, merge) for merge in MERGE_SIZES] + (list(MIXED_MERGES) if is_mixed else [])
    decoded = decode_media(record, media, setup.config, pairs, whole=True)
    _note_media(row, decoded)
    durations = [item.facts.duration_seconds for item in decoded.items if item.facts is not None]
    if durations:
        check_times_in_video(_annotated_times(record), max(durations), record.where)
    chat = encode_messages(render_record(record, decoded.clip_times), setup.tokenizer)
    row.text_tokens = int((chat.input_ids_T != setup.tokenizer.image_id).sum())
    row.supervised_tokens = int((chat.labels_T != IGNORED_LABEL).sum())
    shortest = []
    for image_merge, video_merge in pairs:
        settings = PrepareSettings(
            image_merge_size=image_merge, video_merge_size=video_merge, difffp=True, data=setup.config
        )
        counts = count_vision_tokens(decoded, settings, setup.prune)
        suffix = f"m{image_merge}" if image_merge == video_merge else f"m{image_merge}{video_merge}"
        for name, count in zip(("image_tokens", "video_tokens", "kept_tokens"), counts, strict=True):
            setattr(row, f"{name}_{suffix}", count)
        image_tokens, video_tokens, kept_tokens = counts
        shortest.append((row.text_tokens + image_tokens + kept_tokens, image_tokens + video_tokens))
    _check_limits(shortest, record, setup.config)


def _annotated_times(record: Record) -> list[tuple[str, float]]:
    """The times that an annotation claims to be in its video: those of a stream, and of answers such as `2.0-4.5 s`."""
    if record.is_stream:
        messages = [("a message", event.time_seconds) for event in record.events]
        return [*messages, ("end_time", record.clips[0].end_seconds or 0.0)]
    answers = [turn.text for turn in record.turns if turn.role == "assistant"]
    intervals = [(f"the answer {shown(text)}", end) for text in answers for _, end in time_ranges(text)]
    return intervals + [(f"the end of {clip.name}", clip.end_seconds) for clip in record.clips if clip.end_seconds]


def count_vision_tokens(decoded: DecodedSample, settings: PrepareSettings, prune: Pruner) -> tuple[int, int, int]:
    """Number of image tokens, and of video tokens before and after DiffFP, with the settings' merges."""
    image_tokens = video_tokens = kept_tokens = 0
    everything = dataclasses.replace(settings, difffp=False)
    for item, frames, merge in zip(decoded.items, *resized_items(decoded, settings), strict=True):
        count = keep_tokens(frames, merge, everything, prune).size
        if item.facts is None:
            image_tokens += count
        else:
            video_tokens += count
            kept_tokens += int(keep_tokens(frames, merge, settings, prune).sum())
    return image_tokens, video_tokens, kept_tokens


def _note_media(row: IndexRow, decoded: DecodedSample) -> None:
    """Fill in the facts of the media; those of a video are of the longest clip."""
    row.num_frames = decoded.num_frames
    clips = [item.facts for item in decoded.items if item.facts is not None]
    if clips:
        longest = max(clips, key=lambda facts: facts.duration_seconds)
        row.duration_seconds, row.source_fps = longest.duration_seconds, longest.fps
    if decoded.items:
        sides = np.array([(item.height_px, item.width_px) for item in decoded.items], dtype=np.int64)
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
