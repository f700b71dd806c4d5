"""A page of samples as the model sees them: resized frames, what DiffFP drops of them, and the supervised text.

Shapes: F frames · H height px · W width px · C channels · M vision tokens · T tokens.
"""

import base64
import io
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.data.build.index import DatasetIndex
from vl3.data.build.shards import ShardReader
from vl3.data.sample.decoded import decode_media
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PrepareSettings, keep_tokens, prepare_decoded, resized_items
from vl3.data.sample.problems import printable
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError
from vl3.report.render import render
from vl3.system.files import atomic_write_text

MAX_FRAMES = 32
"""Frames shown of one item; of a longer video evenly spaced ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameView:
    """One image or frame at the size that the model gets."""

    uri: str
    """The exact pixels, as a data URI."""
    height_px: int
    width_px: int
    dropped: str
    """SVG path over the tokens that DiffFP drops."""
    kept_tokens: int
    tokens: int
    seconds: float | None
    """Time in the video; None for an image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """A part of the prompt."""

    text: str
    supervised: bool
    vision_tokens: int = 0
    """Number of vision tokens that stand here instead of text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleView:
    """One sample, ready to be shown."""

    sample_id: str
    kind: str
    where: str
    split: str
    frames: tuple[FrameView, ...]
    frames_left_out: int
    parts: tuple[TextPart, ...]
    tokens: int
    supervised_tokens: int
    vision_tokens: int
    """Before DiffFP."""
    kept_tokens: int
    places: tuple[tuple[int, int], ...] | None = None
    """Step, and row of the step, of each time that the sample is drawn; None if no plan is shown."""


def choose_rows(index: DatasetIndex, split: str, count: int, seed: int) -> list[int]:
    """Up to `count` usable rows of a split, drawn with a seed, in the order of the annotations.

    Raises:
        DataError: the split has no usable sample.
    """
    usable = index.usable_rows(split)
    if not len(usable):
        raise DataError(f"{index.folder} has no usable sample of the split {split!r}. Choose the other one.")
    drawn = np.random.default_rng(seed).choice(usable, size=min(count, len(usable)), replace=False)
    return sorted(drawn.tolist())


def view_sample(
    index: DatasetIndex,
    reader: ShardReader,
    row: int,
    settings: PrepareSettings,
    tokenizer: ChatTokenizer,
    *,
    places: Sequence[tuple[int, int]] | None = None,
) -> SampleView:
    """Prepare one sample as for training, and keep what is to be seen of it.

    Args:
        index: the dataset's index.
        reader: its shards.
        row: the sample's row.
        settings: those of the stage.
        tokenizer: the language model's tokenizer.
        places: step and row of the step of each time that a plan draws the sample.

    Raises:
        DataError: the sample cannot be read or prepared.
    """
    record, media = reader.read(row)
    decoded = decode_media(
        record, media, settings.data, [settings.merges], settings.patch_size, picture=settings.picture
    )
    prepared = prepare_decoded(record, decoded, tokenizer, settings, keep_mask)
    items, merges = resized_items(decoded, settings)
    frames: list[FrameView] = []
    for frames_FHWC, merge, item in zip(items, merges, decoded.items, strict=True):
        keep_M = keep_tokens(frames_FHWC, merge, settings, keep_mask)
        frames += _frame_views(frames_FHWC, keep_M, merge * settings.patch_size, item.timestamps_F)
    facts = index.row(row)
    return SampleView(
        sample_id=record.sample_id,
        kind=f"{facts['category']}:{facts['source']}",
        where=str(facts["where"]),
        split=str(facts["split"]),
        frames=tuple(frames),
        frames_left_out=sum(len(item) for item in items) - len(frames),
        parts=tuple(text_parts(prepared.input_ids_T, prepared.labels_T, tokenizer)),
        tokens=len(prepared.input_ids_T),
        supervised_tokens=int((prepared.labels_T >= 0).sum()),
        vision_tokens=len(prepared.keep_M),
        kept_tokens=int(prepared.keep_M.sum()),
        places=None if places is None else tuple(places),
    )


def _frame_views(
    frames_FHWC: np.ndarray, keep_M: np.ndarray, side_px: int, seconds_F: np.ndarray | None
) -> Iterator[FrameView]:
    """The frames of one item; of 100 frames the 32 that are evenly spaced from the first to the last."""
    num_frames, height_px, width_px, _ = frames_FHWC.shape
    keep_FRC = keep_M.reshape(num_frames, height_px // side_px, width_px // side_px)
    for place in np.linspace(0, num_frames - 1, min(MAX_FRAMES, num_frames)).round().astype(int).tolist():
        yield FrameView(
            uri=_png_uri(frames_FHWC[place]),
            height_px=height_px,
            width_px=width_px,
            dropped=dropped_path(keep_FRC[place], side_px),
            kept_tokens=int(keep_FRC[place].sum()),
            tokens=keep_FRC[place].size,
            seconds=None if seconds_F is None else float(seconds_F[place]),
        )


def dropped_path(keep_RC: np.ndarray, side_px: int) -> str:
    """SVG path over the dropped tokens of a frame, one rectangle for each run in a row of tokens.

    Tokens of 28 px, kept yes no no / yes yes yes: one rectangle of two tokens, `M28 0h56v28h-56z`.
    """
    runs = []
    for row, keep_C in enumerate(keep_RC):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], ~keep_C, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2).tolist():
            width = (last - first) * side_px
            runs.append(f"M{first * side_px} {row * side_px}h{width}v{side_px}h-{width}z")
    return "".join(runs)


def text_parts(input_ids_T: np.ndarray, labels_T: np.ndarray, tokenizer: ChatTokenizer) -> Iterator[TextPart]:
    """The prompt in runs of supervised and other text; a run of vision tokens is one part.

    Ids `a b <image> <image> c` of which c is supervised: "ab", two vision tokens, "c" supervised.
    """
    is_vision, is_supervised = input_ids_T == tokenizer.image_id, labels_T >= 0
    kinds = is_vision * 2 + is_supervised
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    for first, last in itertools.pairwise(edges):
        if first == last:
            continue
        if is_vision[first]:
            yield TextPart(text="", supervised=False, vision_tokens=last - first)
        else:
            text = tokenizer.decode(input_ids_T[first:last].tolist(), skip_special=False)
            yield TextPart(text=visible_text(text), supervised=bool(is_supervised[first]))


def visible_text(text: str) -> str:
    r"""A text whose control and direction characters are written out; lines and scripts stay as they are.

    >>> visible_text("a\u202eb\x1b\nc")
    'a\\u202eb\\x1b\nc'
    """
    hidden = {"Cc", "Cf", "Cs"}
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in hidden and char != "\n" else char
        for char in text
    )


def _png_uri(picture_HWC: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_samples_page(views: Iterable[SampleView], path: Path, *, dataset: str, stage: str, difffp: bool) -> None:
    """Write the page, which needs no other file.

    Raises:
        StorageError: the page cannot be written.
    """
    page = render(
        "samples.html.j2",
        title=f"Samples · {printable(dataset)}",
        filters={"printable": printable},
        samples=list(views),
        dataset=dataset,
        stage=stage,
        difffp=difffp,
    )
    atomic_write_text(path, page)
