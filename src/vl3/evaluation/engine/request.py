"""What the engine is asked, and what it replies: the same for the held-out evaluation and for every benchmark."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vl3.data.sample.clips import Clip
from vl3.data.sample.media import MediaContent, media_digest
from vl3.data.sample.records import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A record and the content of its media; its last assistant message is not shown to the model."""

    record: Record
    media: Mapping[str, MediaContent]
    """Content of each of `record.media_paths`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a model, whose media are read only when its turn comes."""

    name: str
    """Unique among the requests of a call."""
    load: Callable[[], Loaded]
    """Reads it; called in a thread beside generation. A DataError makes the request fail, and no other."""
    max_new_tokens: int
    """Maximum tokens of the answer."""
    group: str = ""
    """Requests of a group are answered one after the other, because they probably share their media."""
    length_tokens: int = 0
    """How long the prompt will be, as far as known: longer ones are answered first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineReply:
    """What became of a request."""

    name: str
    """That of the request."""
    text: str | None
    """The answer without special tokens; None if the request failed."""
    failure: str = ""
    """Why it failed; empty if it did not."""
    frame_index: int | None = None
    """Of a stream: the frame after which the model first spoke; None if it never did."""
    record: Record | None = None
    """What was asked; None if it could not be read."""
    clip_times: tuple[np.ndarray, ...] = ()
    """The times of the frames of each clip, in seconds of its file."""
    tokens: int = 0
    """Number of tokens generated."""
    seconds: float = 0.0
    """Its share of the time that the model worked."""


def media_key(loaded: Loaded, preparation: str) -> str:
    """Digest of the media as the encoder gets them: equal for all questions about the same media, prepared alike.

    Names do not count: `v.mp4` from 0 to 5 s and a copy of it, `w.mp4` from 0 to 5 s, have the same key; `v.mp4` from
    0 to 6 s has another. What a stream shows ends with its last message, so that its time counts.

    Args:
        loaded: the question with its media.
        preparation: digest of the settings that decide how media are prepared.

    Raises:
        OSError: a file cannot be read.
    """
    record = loaded.record
    if not record.media:
        return ""
    digests = {path: media_digest(loaded.media[path]) for path in dict.fromkeys(record.media_paths)}
    shown = [_by_content(medium, digests) for medium in record.media]
    ends = record.events[-1].time_seconds if record.is_stream else None
    return hashlib.sha256(repr((preparation, shown, ends)).encode()).hexdigest()


def _by_content(medium: str | Clip, digests: Mapping[str, str]) -> object:
    """A medium with its content in the place of its name."""
    if isinstance(medium, str):
        return digests[medium]
    content = tuple(digests[path] for path in medium.files)
    return replace(medium, path="", frames=content)
