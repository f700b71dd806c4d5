"""A question with its text, images and video becomes a prepared sample, with the limits of the model's training."""

import io
import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vl3.config.codec import from_dict
from vl3.config.data import Category
from vl3.config.run import RunConfig
from vl3.data.sample.clips import Clip, in_prompt_order
from vl3.data.sample.decoded import STREAM_MAX_FRAMES
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.media import MediaContent, file_media
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, prepare_sample
from vl3.data.sample.problems import shown
from vl3.data.sample.records import IMAGE_TAG, VIDEO_TAG, Record, Turn
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.data.sample.video import open_video
from vl3.errors import ConfigError, DataError
from vl3.models.bases import picture_of
from vl3.models.stored import RUN_FILE, read_json
from vl3.recipes.catalog import get_recipe

if TYPE_CHECKING:
    from PIL.Image import Image

Media: TypeAlias = "str | Path | bytes | np.ndarray | Image"

MIN_FPS, MAX_FPS = 0.0001, 1000
"""Frames that a question may take per second: from one in three hours to what no camera's video exceeds."""
MAX_FRAMES = 1_000_000
MAX_SECONDS = 1e9
"""Thirty years: a longer time is a mistake, and does not fit the clocks of media files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One message of a user, with its media."""

    text: str
    """The text; media come before it unless it contains `<image>` and `<video>` tags."""
    images: Sequence[Media] = ()
    """Files, their bytes, or pixels (uint8 H, W, 3)."""
    video: str | Path | bytes | None = None
    """A file or its bytes."""
    start_seconds: float | None = None
    """Where to start in the video; None for its beginning."""
    end_seconds: float | None = None
    """Where to stop in the video; None for its end."""
    fps: float | None = None
    """Frames to take per second; None for the value of the training."""
    max_frames: int | None = None
    """Maximum number of frames to take; None for the value of the training."""

    def __post_init__(self) -> None:
        check_text("the question", self.text)
        check_span(self.start_seconds, self.end_seconds)
        _check_limit("fps", self.fps, MIN_FPS, MAX_FPS, numbers.Real)
        _check_limit("max_frames", self.max_frames, 1, MAX_FRAMES, numbers.Integral)


def check_text(name: str, text: str) -> None:
    """Raise ConfigError unless a value is text that can be written: half of a surrogate pair cannot."""
    if not isinstance(text, str):
        raise ConfigError(f"{name} is a {type(text).__name__}, not a text. Pass a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} has bytes or characters that are not UTF-8 text (character {error.start + 1}). Remove them."
        ) from error


def _check_limit(name: str, value: Any, lowest: float, highest: int, kind: type) -> None:
    if value is None:
        return
    if not _is_number(value, kind):
        what = "a whole number" if kind is numbers.Integral else "a number"
        raise ConfigError(f"{name}={shown(value)} is not {what}. Set one, or leave it out.")
    if not value > 0:  # nor is NaN
        raise ConfigError(f"{name}={shown(value)} must be greater than 0. Set a positive value or leave it out.")
    if not lowest <= value <= highest:
        raise ConfigError(f"{name}={shown(value)} is not from {lowest:g} to {highest}. Correct it or leave it out.")


def _is_time(value: Any) -> bool:
    """Whether a value is a number of seconds; NaN and infinity are not."""
    return _is_number(value, numbers.Real) and -MAX_SECONDS <= value <= MAX_SECONDS


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def check_span(start_seconds: float | None, end_seconds: float | None) -> None:
    """Raise ConfigError if a time is no finite number, or the start is negative or not before the end."""
    for name, seconds in (("start", start_seconds), ("end", end_seconds)):
        if seconds is not None and not _is_time(seconds):
            raise ConfigError(f"{name}={shown(seconds)} is not a time in seconds. Set a number, or leave it out.")
    if start_seconds is not None and start_seconds < 0:
        raise ConfigError(f"start {start_seconds:g} s is before the video. Use 0 or a later second.")
    if end_seconds is not None and end_seconds <= (start_seconds or 0.0):
        raise ConfigError(
            f"start {start_seconds or 0:g} s is not before end {end_seconds:g} s, so there are no frames. Swap them or "
            "leave one out."
        )


def trained_settings(folder: Path) -> PrepareSettings:
    """Merges, DiffFP and limits of the stage that made a model folder, from its run.json; else of the released models.

    Raises:
        ConfigError: run.json is damaged.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        picture, data = picture_of(folder), get_recipe("vl3_2b").data
        difffp = picture is None
        return PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=difffp, data=data, picture=picture)
    record = read_json(path)
    try:
        stage, run = record["stage"], record["config"]
    except KeyError as error:
        raise ConfigError(f"{path} has no stage or configuration ({error}). Restore it from the run.") from error
    config = from_dict(RunConfig, run)
    if stage not in config.stages:
        raise ConfigError(
            f"{path} names stage {stage!r}, but its configuration has only {', '.join(config.stages)}. Restore it from "
            "the run."
        )
    chosen = config.stages[stage]
    return PrepareSettings(
        image_merge_size=chosen.image_merge_size,
        video_merge_size=chosen.video_merge_size,
        difffp=chosen.difffp,
        data=config.data,
        picture=picture_of(folder),
    )


def prepare_question(
    question: Question, tokenizer: ChatTokenizer, settings: PrepareSettings, *, system: str | None = None
) -> PreparedSample:
    """The sample whose prompt (`input_ids_T[:answer_start]`) ends where the model's answer starts.

    Raises:
        ConfigError: the system message is not text.
        DataError: a file is missing or cannot be decoded, tags do not match the media, or the prompt is too long.
    """
    data = replace(
        settings.data,
        video_fps=question.fps or settings.data.video_fps,
        max_frames=question.max_frames or settings.data.max_frames,
    )
    record, media = read_question(question, system=system)
    return prepare_sample(record, media, tokenizer, replace(settings, data=data), keep_mask)


def read_question(question: Question, *, system: str | None = None) -> tuple[Record, dict[str, MediaContent]]:
    """A question as a record whose answer is empty, and the content of its media by path.

    Raises:
        ConfigError: the system message is not text.
        DataError: a file is missing or cannot be read.
    """
    names = [_name(image, f"image {index}") for index, image in enumerate(question.images, start=1)]
    images = [f"{index}: {name}" if names.count(name) > 1 else name for index, name in enumerate(names, start=1)]
    media = {name: _content(image, name) for name, image in zip(images, question.images, strict=True)}
    clips = []
    if question.video is not None:
        video = _name(question.video, "video")
        media[video] = _content(question.video, video)
        clips = [Clip(path=video, start_seconds=question.start_seconds, end_seconds=question.end_seconds)]
    turns = [Turn(role="user", text=_tagged(question)), Turn(role="assistant", text="")]
    if system is not None:
        check_text("the system message", system)
        turns.insert(0, Turn(role="system", text=system))
    record = Record(
        sample_id="question",
        split="chat",
        category=Category.TEXT_ONLY,
        source="chat",
        media=in_prompt_order([turn.text for turn in turns if turn.role == "user"], images, clips),
        turns=tuple(turns),
        events=(),
        chance=None,
        where="question",
    )
    return record, media


@contextmanager
def open_frames(
    question: Question, settings: PrepareSettings
) -> Iterator[tuple[int, Iterator[tuple[float, np.ndarray]]]]:
    """The number of frames of a question's video, and an iterator of (seconds since its start, frame).

    Raises:
        DataError: the file is missing or cannot be decoded, or there is no frame between start and end.
    """
    assert question.video is not None
    name = _name(question.video, "video")
    with open_video(_content(question.video, name), name) as source:
        plan = source.plan(
            fps=question.fps or settings.data.video_fps,
            max_frames=question.max_frames or min(settings.data.max_frames, STREAM_MAX_FRAMES),
            start_seconds=question.start_seconds,
            end_seconds=question.end_seconds,
        )
        seconds = (plan.timestamps_F - (question.start_seconds or 0.0)).tolist()
        yield len(seconds), zip(seconds, source.frames(plan), strict=True)


def _tagged(question: Question) -> str:
    """The text with a tag for each medium."""
    found = (question.text.count(IMAGE_TAG), question.text.count(VIDEO_TAG))
    given = (len(question.images), int(question.video is not None))
    if found == (0, 0):
        return f"{IMAGE_TAG}\n" * given[0] + f"{VIDEO_TAG}\n" * given[1] + question.text
    if found != given:
        raise DataError(
            f"the question has {found[0]} {IMAGE_TAG} and {found[1]} {VIDEO_TAG} tags but {given[0]} images and "
            f"{given[1]} videos. Write one tag for each, or leave the tags out."
        )
    return question.text


def _name(medium: Media, otherwise: str) -> str:
    return str(medium) if isinstance(medium, str | Path) else otherwise


def _content(medium: Media, name: str) -> MediaContent:
    """The content of a file; pixels become a PNG.

    Raises:
        DataError: the file does not exist or cannot be read, or the pixels are not those of a picture.
    """
    if isinstance(medium, bytes):
        return medium
    if isinstance(medium, str | Path):
        try:
            return file_media(Path(medium))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{name}: {reason[:1].lower()}{reason[1:]}. Check the path.") from error
    from PIL import Image

    buffer = io.BytesIO()
    try:
        picture = Image.fromarray(medium) if isinstance(medium, np.ndarray) else medium
        picture.save(buffer, "PNG", compress_level=0)
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise DataError(f"{name} is not a picture ({error}). Pass a file, its bytes, or uint8 (H, W, 3).") from error
    return buffer.getvalue()
