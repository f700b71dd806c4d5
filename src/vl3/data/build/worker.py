"""The worker process of a dataset build: decodes, measures and writes one unit at a time.

A decoder may crash or hang. So the worker says at which sample it is before it decodes it (`Pulse`), and the parent
process, which survives both, refuses that sample.
"""

import hashlib
import json
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

from vl3.config.data import DataConfig
from vl3.conventions import IGNORED_LABEL, IMAGE_MERGE_SIZES, VIDEO_MERGE_SIZE
from vl3.data.build.index import IndexRow, write_index
from vl3.data.build.shards import ShardWriter, shard_name
from vl3.data.build.source import open_source
from vl3.data.build.units import Unit
from vl3.data.build.work import PART_NAME, MadeUnit, Work
from vl3.data.sample.chat import encode_messages, render_record
from vl3.data.sample.checks import check_times_in_video, time_ranges
from vl3.data.sample.clips import Medium
from vl3.data.sample.decoded import DecodedSample, decode_media
from vl3.data.sample.media import MediaContent, media_digest
from vl3.data.sample.prepare import PrepareSettings, Pruner, fitted_sizes, keep_tokens
from vl3.data.sample.problems import ProblemKind, SampleProblem, shown
from vl3.data.sample.records import BadLine, Record
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import FAMILIES, Vl3Error
from vl3.store.manifest import FileEntry, file_sha256
from vl3.system.files import storage_errors
from vl3.system.memory import limit_memory

PROCESS_BYTES = 1 << 30
"""Memory of a process of the build."""
_DROP = ". Replace the file with a smaller one or drop the sample."


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSetup:
    """What all units of a build share. It is sent to every process."""

    source_uri: str
    """Where annotations and media are: file:// or s3://."""
    work: Work
    """Where the units appear."""
    config: DataConfig
    tokenizer: ChatTokenizer
    prune: Pruner
    """DiffFP, a function that can be imported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitJob:
    """A unit to make, and its samples that are known to break the decoder."""

    unit: Unit
    poisoned: dict[int, str]
    """Samples on which a worker crashed or hung: reason by position within the unit."""


class Pulse:
    """What a worker is at, in memory that it shares with its parent."""

    def __init__(self, context: BaseContext) -> None:
        self._values = context.RawArray("d", 3)  # position, since when, samples begun
        self.begin()

    def begin(self) -> None:
        """A new unit is handed out."""
        self._values[:] = (-1.0, 0.0, 0.0)

    def at(self, position: int) -> None:
        """The worker opens the sample at a position of its unit."""
        self._values[1] = time.monotonic()
        self._values[0] = position
        self._values[2] += 1

    def between(self) -> None:
        """The worker reads or stores, and is at no sample."""
        self._values[0] = -1.0

    @property
    def position(self) -> int:
        """The sample that is being decoded; -1 for none."""
        return int(self._values[0])

    @property
    def begun(self) -> int:
        """Samples of the unit that were begun."""
        return int(self._values[2])

    def seconds_at_sample(self) -> float:
        """How long the sample has been taking; 0 for none. The clock is the same in all processes of a machine."""
        return time.monotonic() - self._values[1] if self._values[0] >= 0 else 0.0


def run_worker(connection: Connection, setup: BuildSetup, pulse: Pulse) -> None:
    """Make units until None is received or the parent is gone."""
    import pyarrow.parquet  # noqa: F401 - before the limit of memory

    limit_memory(PROCESS_BYTES)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while (job := connection.recv()) is not None:
            try:
                make_unit(job, setup, pulse)
            except Vl3Error as error:
                family = type(error).__name__
                connection.send((family if family in FAMILIES else "", str(error)))
                return
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    """Exit when the parent is gone; otherwise a hanging decoder would outlive a killed parent."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def make_unit(job: UnitJob, setup: BuildSetup, pulse: Pulse | None = None) -> None:
    """Make and publish a unit, unless it is there whole.

    Args:
        job: what to make.
        setup: the build's.
        pulse: told each sample before it is decoded: a decoder may kill this process.

    Raises:
        DataError: the annotations cannot be read.
        StorageError: the source cannot be read, or the unit cannot be written.
    """
    number = job.unit.number
    if not job.poisoned and setup.work.find(number) is not None:
        return
    with setup.work.scratch(number) as folder:
        with ShardWriter(folder / shard_name(number)) as writer:
            rows = write_samples(job, setup, writer, pulse)
        with storage_errors(folder):
            write_index(folder / PART_NAME, rows)
            made = MadeUnit(number=number, shard=_entry(folder / shard_name(number)), part=_entry(folder / PART_NAME))
        setup.work.publish(folder, made)


def _entry(path: Path) -> FileEntry:
    return FileEntry(size_bytes=path.stat().st_size, sha256=file_sha256(path))


def write_samples(job: UnitJob, setup: BuildSetup, writer: ShardWriter, pulse: Pulse | None = None) -> list[IndexRow]:
    """Measure the samples of a unit and write the good ones; returns a row for each line. See make_unit."""
    rows = []
    source = open_source(setup.source_uri)
    for position, line in enumerate(job.unit.read()):
        if isinstance(line, BadLine):
            rows.append(bad_row(line))
            continue
        rows.append(row := new_row(line))
        if position in job.poisoned:
            row.refuse(ProblemKind.UNDECODABLE, job.poisoned[position])
            continue
        try:
            with source.opened(line) as (record, media):
                if pulse is not None:
                    pulse.at(position)
                measure_sample(row, record, media, setup)
                digests = content_digests(record, media)
                span = writer.write(f"{job.unit.first_position + position:08d}", record, media)
        except SampleProblem as problem:
            row.refuse(problem.kind, str(problem).removeprefix(f"{line.where}: "))
        except MemoryError:
            row.refuse(ProblemKind.UNDECODABLE, f"its media need more memory than {PROCESS_BYTES >> 20} MiB{_DROP}")
        else:
            row.shard, row.sha256 = span.shard, span.sha256
            row.offset_bytes, row.length_bytes = span.offset_bytes, span.length_bytes
            row.media_sha256, row.content_sha256 = digests
            row.accept()
        finally:
            if pulse is not None:
                pulse.between()
    return rows


def bad_row(line: BadLine) -> IndexRow:
    """The row of a line that is no record. It has no category, unlike that of any record."""
    row = IndexRow(sample_id=line.sample_id, split=line.sample_id.partition("-")[0], where=line.where)
    row.refuse(line.kind, line.reason)
    return row


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


def measure_sample(row: IndexRow, record: Record, media: dict[str, MediaContent], setup: BuildSetup) -> None:
    """Decode a sample once and fill in its facts and token counts for every image merge.

    Raises:
        SampleProblem: a file cannot be decoded, a time is after the end of the video, or the sample exceeds the limits
            at every image merge.
    """
    stages = [
        PrepareSettings(image_merge_size=merge, video_merge_size=VIDEO_MERGE_SIZE, difffp=True, data=setup.config)
        for merge in IMAGE_MERGE_SIZES
    ]
    merges = [(settings.image_merge_size, settings.video_merge_size) for settings in stages]
    decoded = decode_media(record, media, setup.config, merges, whole=True)
    _note_media(row, decoded)
    durations = [item.facts.duration_seconds for item in decoded.items if item.facts is not None]
    if durations:
        check_times_in_video(_annotated_times(record), max(durations), record.where)
    chat = encode_messages(render_record(record, decoded.clip_times), setup.tokenizer)
    row.text_tokens = int((chat.input_ids_T != setup.tokenizer.image_id).sum())
    row.supervised_tokens = int((chat.labels_T != IGNORED_LABEL).sum())
    kept = kept_tokens_by_size(decoded, stages[0], setup.prune)
    shortest = []
    for settings in stages:
        counts = image_tokens, video_tokens, kept_tokens = count_vision_tokens(decoded, settings, kept)
        for name, count in zip(("image_tokens", "video_tokens", "kept_tokens"), counts, strict=True):
            setattr(row, f"{name}_m{settings.image_merge_size}", count)
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


def kept_tokens_by_size(
    decoded: DecodedSample, settings: PrepareSettings, prune: Pruner
) -> list[dict[tuple[int, int], int]]:
    """For each item the number of tokens that DiffFP keeps at each (height, width) that its frames have.

    A clip that has one size for both image merges is compared once. A picture, of which no pixels are there, has none.
    """
    return [
        {
            size: int(keep_tokens(frames, settings.video_merge_size, settings, prune).sum())
            for size, frames in item.frames_by_size.items()
        }
        for item in decoded.items
    ]


def count_vision_tokens(
    decoded: DecodedSample, settings: PrepareSettings, kept: list[dict[tuple[int, int], int]]
) -> tuple[int, int, int]:
    """Number of image tokens, and of video tokens before and after DiffFP, with the settings' merges.

    `kept` is what kept_tokens_by_size gave.
    """
    image_tokens = video_tokens = kept_tokens = 0
    sizes = fitted_sizes(decoded, settings)
    for item, (height_px, width_px), kept_by_size in zip(decoded.items, sizes, kept, strict=True):
        is_clip = item.facts is not None
        merge = settings.video_merge_size if is_clip else settings.image_merge_size
        side_px = settings.patch_size * merge
        count = item.num_frames * (height_px // side_px) * (width_px // side_px)
        if is_clip:
            video_tokens += count
            kept_tokens += kept_by_size[height_px, width_px]
        else:
            image_tokens += count
    return image_tokens, video_tokens, kept_tokens


def _note_media(row: IndexRow, decoded: DecodedSample) -> None:
    """Fill in the facts of the media; those of a video are of the longest clip."""
    row.num_frames = decoded.num_frames
    clips = [item.facts for item in decoded.items if item.facts is not None]
    if clips:
        longest = max(clips, key=lambda facts: facts.duration_seconds)
        row.duration_seconds, row.source_fps = longest.duration_seconds, longest.fps
    if decoded.items:
        sides = [sorted((item.height_px, item.width_px)) for item in decoded.items]
        row.min_side_px, row.max_side_px = min(short for short, _ in sides), max(long for _, long in sides)
        row.aspect_ratio = max(long / short for short, long in sides)


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
