"""Annotations in the VideoLLaMA3 format: each line, a JSON object, becomes a Record or a problem with its reason."""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from vl3.config.data import Category
from vl3.data.sample import checks
from vl3.data.sample.clips import Clip, Medium, in_prompt_order, parse_media
from vl3.data.sample.keys import unknown_keys
from vl3.data.sample.lines import is_blank, parse_line, read_lines
from vl3.data.sample.problems import ProblemKind, SampleProblem, field_problem, printable, shown
from vl3.errors import DataError

IMAGE_TAG = checks.IMAGE_TAG
VIDEO_TAG = checks.VIDEO_TAG
DEFAULT_SOURCE = "default"
MAX_NAME_CHARACTERS = 512
"""Maximum length of an id or a source: they are printed, and kept in memory for every line."""
_NAME_RULE = f"Write a text of 1 to {MAX_NAME_CHARACTERS} characters without control characters"
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def annotations_file(split: str) -> str:
    """Path of a split's annotations within a data folder, unless the file is packed (`annotations_names`)."""
    return f"annotations/{split}.jsonl"


def annotations_names(split: str) -> tuple[str, ...]:
    """Paths that a split's annotations may have within a data folder: plain, or packed by gzip or zstd."""
    return tuple(annotations_file(split) + suffix for suffix in ("", ".gz", ".zst"))


def find_annotations(folder: Path, split: str) -> Path:
    """The annotation file of a split within a data folder; the plain one's path if there is none.

    Raises:
        DataError: there are two of them.
    """
    found = [name for name in annotations_names(split) if (folder / name).exists()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {found[0]} and {found[1]}, and only one can be read. Keep one of them.")
    return folder / (found or annotations_names(split))[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation; the text still contains its `<image>` and `<video>` tags."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamEvent:
    """One message of a streaming sample and its time, in seconds of the video."""

    role: str
    text: str
    time_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One annotated sample. A streaming sample has events, all others have turns."""

    sample_id: str
    split: str
    category: Category
    source: str
    media: tuple[Medium, ...]
    """In the order in which the prompt shows them. A stream has one clip, whose interval is the stream."""
    turns: tuple[Turn, ...]
    events: tuple[StreamEvent, ...]
    chance: float | None
    where: str
    warning: str | None = None
    """What was corrected while reading, such as a missing tag; None if nothing was."""
    unknown_keys: tuple[str, ...] = ()
    """Keys of the line that are not read."""

    @property
    def is_stream(self) -> bool:
        """Whether the sample is a stream of frames with messages in between."""
        return bool(self.events)

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the pictures."""
        return tuple(item for item in self.media if isinstance(item, str))

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips in order."""
        return tuple(item for item in self.media if isinstance(item, Clip))

    @property
    def media_paths(self) -> tuple[str, ...]:
        """Paths of all files in order; a file that is shown twice stands there twice."""
        return tuple(path for item in self.media for path in ((item,) if isinstance(item, str) else item.files))

    @property
    def start_seconds(self) -> float:
        """Second of its video at which a stream starts."""
        return self.clips[0].start_seconds or 0.0

    @property
    def answer(self) -> str:
        """The last assistant message."""
        messages: tuple[Turn | StreamEvent, ...] = self.events or self.turns
        return next(message.text for message in reversed(messages) if message.role == "assistant")


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line that is not a usable sample: its location, the kind of problem and the reason."""

    where: str
    kind: ProblemKind
    reason: str
    sample_id: str


def read_annotations(path: Path, split: str) -> Iterator[Record | BadLine]:
    """Read an annotation file line by line; a bad line becomes a BadLine, empty lines are skipped.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    name = annotations_name(path)
    for number, line in enumerate(read_lines(path), start=1):
        if not is_blank(line):
            yield read_record(line, where=f"{name}:{number}", split=split)


def annotations_name(path: PurePath) -> str:
    """What messages call an annotation file: its folder and its name."""
    return printable(f"{path.parent.name}/{path.name}")


def read_record(line: bytes, *, where: str, split: str) -> Record | BadLine:
    """The record of one line, or its refusal."""
    try:
        return parse_record(line, where=where, split=split)
    except SampleProblem as problem:
        return BadLine(where=where, kind=problem.kind, reason=problem.reason, sample_id=default_id(split, where))


def default_id(split: str, where: str) -> str:
    """The id of a line that has none.

    >>> default_id("train", "annotations/train.jsonl:3")
    'train-3'
    """
    return f"{split}-{where.rpartition(':')[2]}"


def parse_record(line: str | bytes, *, where: str, split: str) -> Record:
    """Parse and check one annotation line; media files are not opened.

    >>> parse_record('{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}',
    ...              where="annotations/train.jsonl:3", split="train").sample_id
    'train-3'

    Raises:
        SampleProblem: the line is refused; the error has the kind, the reason and the location.
    """
    data = parse_line(line, where)
    is_stream = _is_stream(data, where)
    unknown = unknown_keys(data, is_stream, where)
    images, clips = parse_media(data, where)
    turns: tuple[Turn, ...] = ()
    events: tuple[StreamEvent, ...] = ()
    warning = None
    media: tuple[Medium, ...]
    if is_stream:
        events = _parse_events(data, images, clips, where)
        start, end = checks.check_stream_times(data, [event.time_seconds for event in events], where)
        media = (replace(clips[0], start_seconds=start, end_seconds=end),)
    else:
        parsed, warning = _parse_turns(data, len(images), len(clips), where)
        turns = tuple(parsed)
        media = in_prompt_order([turn.text for turn in turns if turn.role == "user"], images, clips)
    texts = [turn.text for turn in turns] + [event.text for event in events]
    category = _category(data, media, turns, events, where)
    if media:
        checks.check_boxes(texts, where, points=category is Category.FINE_GRAINED)
    if category is Category.TEMPORAL_GROUNDING:
        checks.check_time_ranges(texts, where)
    return Record(
        sample_id=_sample_id(data, default_id(split, where), where),
        split=split,
        category=category,
        source=_source(data, where),
        media=media,
        turns=turns,
        events=events,
        chance=_chance(data, where),
        where=where,
        warning=warning,
        unknown_keys=unknown,
    )


def _is_stream(data: dict[str, Any], where: str) -> bool:
    value = data.get("stream")
    if value is not None and not isinstance(value, bool):
        raise field_problem(where, "stream", f"{shown(value)} is neither true nor false. Write one of them.")
    return bool(value)


def _parse_turns(data: dict[str, Any], num_images: int, num_videos: int, where: str) -> tuple[list[Turn], str | None]:
    """The checked turns of a conversation, and a note on what was corrected.

    Two corrections are made: turns before the first human turn are dropped, and if no turn has a tag, one tag per file
    is put before the text of the first human turn.
    """
    raw = data.get("conversations")
    if not isinstance(raw, list):
        raise field_problem(where, "conversations", f"{type(raw).__name__}, not a list of turns. Correct the line.")
    if not raw:
        raise SampleProblem(ProblemKind.NO_TURNS, "conversations: empty. Add turns or drop the line.", where)
    turns = [Turn(role=role, text=text) for role, text in _messages(raw, "conversations", "from", "value", where)]
    notes = []
    system, rest = (turns[:1], turns[1:]) if turns[0].role == "system" else ([], turns)
    first_user = next((index for index, turn in enumerate(rest) if turn.role == "user"), len(rest))
    if first_user:
        notes.append(f"{first_user} turn(s) before the first human turn were dropped")
    turns = [*system, *rest[first_user:]]
    checks.check_alternation([turn.role for turn in rest[first_user:]], where)
    if not any(tag in turn.text for turn in turns for tag in (IMAGE_TAG, VIDEO_TAG)) and num_images + num_videos:
        tags = f"{IMAGE_TAG}\n" * num_images + f"{VIDEO_TAG}\n" * num_videos
        turns[len(system)] = Turn(role="user", text=tags + turns[len(system)].text)
        notes.append(f"no tag for the {num_images + num_videos} media file(s), so it was put before the first turn")
    checks.check_texts([(turn.role, turn.text) for turn in turns], num_images, num_videos, where)
    return turns, "; ".join(notes) or None


def _parse_events(
    data: dict[str, Any], images: tuple[str, ...], clips: tuple[Clip, ...], where: str
) -> tuple[StreamEvent, ...]:
    if len(clips) != 1 or images:
        raise field_problem(where, "video", "a stream needs one video and no image. Name the video.")
    if clips[0].start_seconds is not None or clips[0].end_seconds is not None:
        raise field_problem(where, "video", "a stream has its interval in start_time and end_time. Write it there.")
    raw = data.get("conversation")
    if not isinstance(raw, list):
        raise field_problem(where, "conversation", f"{type(raw).__name__}, not a list of messages. Correct the line.")
    if not raw:
        raise SampleProblem(ProblemKind.NO_TURNS, "conversation: empty. Add messages or drop the line.", where)
    events = []
    messages = _messages(raw, "conversation", "role", "content", where)
    for message, (role, text) in zip(raw, messages, strict=True):
        events.append(StreamEvent(role=role, text=text, time_seconds=checks.finite_seconds(message, "time", where)))
    if events[-1].role != "assistant":
        reason = "the last message of the stream is not an answer, so nothing is learnt from it. End with an answer."
        raise SampleProblem(ProblemKind.NO_ANSWER, reason, where)
    checks.check_texts([(event.role, event.text) for event in events], 0, 0, where)
    return tuple(events)


def _messages(raw: list[Any], field: str, role_key: str, text_key: str, where: str) -> Iterator[tuple[str, str]]:
    """Role and text of each message."""
    for index, message in enumerate(raw):
        name = f"{field}[{index}]"
        if not isinstance(message, dict) or not isinstance(message.get(text_key), str):
            reason = f"a turn is {shown(message)}; it must have {role_key!r} and a text {text_key!r}."
            raise field_problem(where, name, reason)
        role = message.get(role_key)
        if not isinstance(role, str) or role not in _ROLES:
            reason = f"speaker {shown(role)} is unknown. Use one of {', '.join(_ROLES)}."
            raise field_problem(where, f"{name}.{role_key}", reason)
        yield _ROLES[role], message[text_key].strip()


def _category(
    data: dict[str, Any],
    media: tuple[Medium, ...],
    turns: tuple[Turn, ...],
    events: tuple[StreamEvent, ...],
    where: str,
) -> Category:
    named = data.get("category")
    if named is not None:
        if named not in tuple(Category):
            reason = f"category {shown(named)} is unknown. Use one of {', '.join(Category)}."
            raise field_problem(where, "category", reason)
        return Category(named)
    if events:
        return Category.STREAMING
    if any(isinstance(item, Clip) for item in media):
        return Category.TEMPORAL_GROUNDING if checks.time_ranges(turns[-1].text) else Category.GENERAL_VIDEO
    if len(media) > 1:
        return Category.MULTI_IMAGE
    if media:
        return Category.FINE_GRAINED if any("[[" in turn.text for turn in turns) else Category.SCENE_IMAGE
    return Category.TEXT_ONLY


def _sample_id(data: dict[str, Any], default: str, where: str) -> str:
    """The id, of which a number is taken as text: 7 is the same id as "7"."""
    value = data.get("id")
    if value is None:
        return default
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and math.isfinite(value)):
        value = str(value)
    if not _is_name(value):
        raise field_problem(where, "id", f"{shown(value)} is not a name. {_NAME_RULE}.")
    return value


def _source(data: dict[str, Any], where: str) -> str:
    value = data.get("source")
    if value is None:
        return DEFAULT_SOURCE
    if not _is_name(value) or ":" in value:
        raise field_problem(where, "source", f"{shown(value)} is not a name. {_NAME_RULE}, and without ':'.")
    return value


def _is_name(value: object) -> bool:
    """Whether a value can stand on one line of a list, whatever prints it: some text, no control characters."""
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_CHARACTERS:
        return False
    return value.isprintable() or not any(unicodedata.category(char) in _CONTROLS for char in value)


def _chance(data: dict[str, Any], where: str) -> float | None:
    value = data.get("chance")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise field_problem(where, "chance", f"{shown(value)} is not a probability. Write a number from 0 to 1.")
    return float(value)
