"""A task's chat messages become one question with its media: what is asked, in a form that any engine can answer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.data.sample.records import IMAGE_TAG, VIDEO_TAG
from vl3.errors import DataError
from vl3.inference.question import Question

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAsk:
    """One question of a task."""

    name: str
    """Unique among the questions of an evaluation: task and number of the document."""
    text: str
    """The question, a tag for each medium where it stands."""
    images: tuple["Image | str", ...]
    video: str | None
    """File of the video; None if there is none."""
    span: tuple[float | None, float | None]
    """Start and end within the video in seconds."""
    system: str | None
    max_new_tokens: int
    stops: tuple[str, ...]
    """The answer ends before the first of these."""
    media_names: tuple[str, ...]
    sha256: str
    """Digest of the text and of the media: pixels of images, name and size of videos."""
    media_sha256: str
    """Digest of the media alone; empty if there are none."""

    @property
    def question(self) -> Question:
        """The question as `vl3.inference` takes it."""
        return Question(
            text=self.text,
            images=self.images,
            video=self.video,
            start_seconds=self.span[0],
            end_seconds=self.span[1],
        )


def read_messages(
    messages: Sequence[Mapping[str, Any]], *, name: str, max_new_tokens: int, stops: Sequence[str] = ()
) -> TaskAsk:
    """The question of a task's messages.

    A user message of an image, a text and a video gives three lines: `<image>`, the text, `<video>`.

    Args:
        messages: as lmms-eval's tasks make them: role, and a list of contents with type, text or url.
        name: the question's name.
        max_new_tokens: maximum tokens of the answer.
        stops: texts before which the answer ends.

    Raises:
        DataError: there is more than one user message or video, or a kind of content that the model cannot be shown.
    """
    system, user = None, None
    for message in messages:
        role = message["role"]
        if role == "system" and system is None:
            system = "\n".join(part["text"] for part in message["content"] if part["type"] == "text")
        elif role == "user" and user is None:
            user = message["content"]
        else:
            raise DataError(
                f"{name}: the task's messages are {[one['role'] for one in messages]}; a question has one of the "
                "user, after one of the system or none. Ask it without examples."
            )
    reader = _Contents(name)
    for part in user or ():
        reader.add(part)
    if not reader.texts:
        raise DataError(
            f"{name}: the task's message has no content, so there is nothing to ask. Check the copy's columns."
        )
    return TaskAsk(
        name=name,
        text="\n".join(reader.texts),
        images=tuple(reader.images),
        video=reader.video,
        span=reader.span,
        system=system,
        max_new_tokens=max_new_tokens,
        stops=tuple(stops),
        media_names=tuple(reader.names),
        sha256=reader.digest.hexdigest(),
        media_sha256=reader.media_digest.hexdigest() if reader.names else "",
    )


class _Contents:
    """Collects the contents of a message."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.texts: list[str] = []
        self.images: list[Image | str] = []
        self.video: str | None = None
        self.span: tuple[float | None, float | None] = (None, None)
        self.names: list[str] = []
        self.digest, self.media_digest = hashlib.sha256(), hashlib.sha256()

    def add(self, part: Mapping[str, Any]) -> None:
        kind = part["type"]
        if kind == "text":
            # What stands in a benchmark's own text is no medium.
            text = part["text"].replace(IMAGE_TAG, "[image]").replace(VIDEO_TAG, "[video]")
            self.texts.append(text.strip("\n"))
            self.digest.update(b"text" + text.encode(errors="surrogatepass"))
        elif kind == "image":
            self._add_image(part["url"])
        elif kind == "video":
            self._add_video(part)
        else:
            raise DataError(f"{self._name}: content of type {kind} cannot be shown to the model. Leave the task out.")

    def _add_image(self, image: Any) -> None:
        self.texts.append(IMAGE_TAG)
        self.images.append(image)
        self.names.append(str(image) if isinstance(image, str) else f"image {len(self.images)}")
        self._add_medium(image.encode() if isinstance(image, str) else image.mode.encode() + image.tobytes())

    def _add_video(self, part: Mapping[str, Any]) -> None:
        url, start, end = part["url"], part.get("start_time"), part.get("end_time")
        if isinstance(url, Mapping):
            start, end = url.get("video_start", start), url.get("video_end", end)
            url = url.get("url") or url.get("path")
        if self.video is not None or not isinstance(url, str):
            raise DataError(
                f"{self._name}: the task shows {url!r:.100} as video; a question has one, given by its file."
            )
        path = Path(url)
        if path.is_dir():
            raise DataError(f"{self._name}: {url} is a folder of frames, not a video file. Use the published videos.")
        if not path.is_file():
            raise DataError(
                f"{self._name}: {url} is missing from the benchmark's copy. Bring it again (vl3 eval data)."
            )
        self.texts.append(VIDEO_TAG)
        self.video, self.span = url, (start, end)
        self.names.append(path.name)
        self._add_medium(f"video {path.name} {path.stat().st_size} {start} {end}".encode())

    def _add_medium(self, facts: bytes) -> None:
        self.digest.update(facts)
        self.media_digest.update(facts)
