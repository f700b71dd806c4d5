"""Annotations in the VideoLLaMA3 format: each line, a JSON object, becomes a Record or a problem with its reason."""

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.config.data import Category
from vl3.data.sample import checks
from vl3.data.sample.keys import unknown_keys
from vl3.data.sample.lines import parse_line, read_lines
from vl3.data.sample.problems import ProblemKind, SampleProblem, printable, shown

IMAGE_TAG = checks.IMAGE_TAG
VIDEO_TAG = checks.VIDEO_TAG
DEFAULT_SOURCE = "default"
MAX_NAME_CHARACTERS = 512
"""Maximum length of an id or a source: they are printed, and kept in memory for every line."""
_NAME_RULE = f"Write a text of 1 to {MAX_NAME_CHARACTERS} characters without control characters"
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def annotations_file(split: str) -> str:
    """Path of a split's annotations within a data folder."""
    return f"annotations/{split}.jsonl"


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
    images: tuple[str, ...]
    video: str | None
    turns: tuple[Turn, ...]
    events: tuple[StreamEvent, ...]
    start_seconds: float | None
    end_seconds: float | None
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
    def media_paths(self) -> tuple[str, ...]:
        """Paths of all media, images first."""
        return self.images + ((self.video,) if self.video else ())

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
    name = printable(f"{path.parent.name}/{path.name}")
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip(b" \t\r\n"):
            continue
        where = f"{name}:{number}"
        try:
            yield parse_record(line, where=where, split=split)
        except SampleProblem as problem:
            yield BadLine(where=where, kind=problem.kind, reason=problem.reason, sample_id=f"{split}-{number}")


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
    images, video = _media_fields(data, where)
    start_seconds = end_seconds = None
    turns: tuple[Turn, ...] = ()
    events: tuple[StreamEvent, ...] = ()
    warning = None
    if is_stream:
        events = _parse_events(data, images, video, where)
        start_seconds, end_seconds = checks.check_stream_times(data, [e.time_seconds for e in events], where)
    else:
        parsed, warning = _parse_turns(data, len(images), int(video is not None), where)
        turns = tuple(parsed)
    texts = [turn.text for turn in turns] + [event.text for event in events]
    if images or video:
        checks.check_boxes(texts, where)
    category = _category(data, images, video, turns, events, where)
    if category is Category.TEMPORAL_GROUNDING:
        checks.check_time_ranges(texts, where)
    return Record(
        sample_id=_sample_id(data, default_id(split, where), where),
        split=split,
        category=category,
        source=_source(data, where),
        images=images,
        video=video,
        turns=turns,
        events=events,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        chance=_chance(data, where),
        where=where,
        warning=warning,
        unknown_keys=unknown,
    )


def _is_stream(data: dict[str, Any], where: str) -> bool:
    value = data.get("stream")
    if value is not None and not isinstance(value, bool):
        raise _structure(where, f"stream={shown(value)} is neither true nor false. Write one of them.")
    return bool(value)


def _media_fields(data: dict[str, Any], where: str) -> tuple[tuple[str, ...], str | None]:
    images, videos = (_paths(data, key, where) for key in ("image", "video"))
    if len(videos) > 1:
        raise _structure(where, f"video names {len(videos)} files, but a sample has at most one. Split the sample.")
    if images and videos:
        raise _structure(where, "the sample has both image and video; the format allows only one of them. Split it.")
    return images, videos[0] if videos else None


def _paths(data: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = data.get(key)
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise _structure(where, f"{key}={shown(value)} is not a path or a list of paths. Correct it.")
    return tuple(paths)


def _parse_turns(data: dict[str, Any], num_images: int, num_videos: int, where: str) -> tuple[list[Turn], str | None]:
    """The checked turns of a conversation, and a note on what was corrected.

    Two corrections are made: turns before the first human turn are dropped, and if no turn has a tag, one tag per file
    is put before the text of the first human turn.
    """
    raw = data.get("conversations")
    if not isinstance(raw, list):
        raise _structure(where, f"conversations is {type(raw).__name__}, not a list of turns. Correct the line.")
    if not raw:
        raise SampleProblem(ProblemKind.NO_TURNS, "conversations is empty. Add turns or drop the line.", where)
    turns = [Turn(role=role, text=text) for role, text in (_message(turn, "from", "value", where) for turn in raw)]
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
    data: dict[str, Any], images: tuple[str, ...], video: str | None, where: str
) -> tuple[StreamEvent, ...]:
    if video is None or images:
        raise _structure(where, "a stream needs one video and no image. Name the video.")
    raw = data.get("conversation")
    if not isinstance(raw, list):
        raise _structure(where, f"conversation is {type(raw).__name__}, not a list of messages. Correct the line.")
    if not raw:
        raise SampleProblem(ProblemKind.NO_TURNS, "conversation is empty. Add messages or drop the line.", where)
    events = []
    for message in raw:
        role, text = _message(message, "role", "content", where)
        events.append(StreamEvent(role=role, text=text, time_seconds=checks.finite_seconds(message, "time", where)))
    if events[-1].role != "assistant":
        reason = "the last message of the stream is not an answer, so nothing is learnt from it. End with an answer."
        raise SampleProblem(ProblemKind.NO_ANSWER, reason, where)
    checks.check_texts([(event.role, event.text) for event in events], 0, 0, where)
    return tuple(events)


def _message(message: Any, role_key: str, text_key: str, where: str) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get(text_key), str):
        raise _structure(where, f"a turn is {shown(message)}; it must have {role_key!r} and a text {text_key!r}.")
    role = message.get(role_key)
    if not isinstance(role, str) or role not in _ROLES:
        raise _structure(where, f"speaker {shown(role)} is unknown. Use one of {', '.join(_ROLES)}.")
    return _ROLES[role], message[text_key].strip()


def _category(
    data: dict[str, Any],
    images: tuple[str, ...],
    video: str | None,
    turns: tuple[Turn, ...],
    events: tuple[StreamEvent, ...],
    where: str,
) -> Category:
    named = data.get("category")
    if named is not None:
        if named not in tuple(Category):
            raise _structure(where, f"category {shown(named)} is unknown. Use one of {', '.join(Category)}.")
        return Category(named)
    if events:
        return Category.STREAMING
    if video:
        is_range = checks.TIME_RANGE.fullmatch(turns[-1].text)
        return Category.TEMPORAL_GROUNDING if is_range else Category.GENERAL_VIDEO
    if len(images) > 1:
        return Category.MULTI_IMAGE
    if images:
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
        raise _structure(where, f"id={shown(value)} is not a name. {_NAME_RULE}.")
    return value


def _source(data: dict[str, Any], where: str) -> str:
    value = data.get("source")
    if value is None:
        return DEFAULT_SOURCE
    if not _is_name(value) or ":" in value:
        raise _structure(where, f"source={shown(value)} is not a name. {_NAME_RULE}, and without ':'.")
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
        raise _structure(where, f"chance={shown(value)} is not a probability. Write a number from 0 to 1.")
    return float(value)


def _structure(where: str, reason: str) -> SampleProblem:
    return SampleProblem(ProblemKind.STRUCTURE, reason, where)
