"""The media of one sample as pixels: which frames are taken, and at which sizes.

Legend: F frames, H height, W width, C channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from vl3.config.data import DataConfig
from vl3.config.picture import FixedPicture
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.clips import Clip
from vl3.data.sample.frame_files import FrameFiles
from vl3.data.sample.geometry import ItemSize, fit_sizes
from vl3.data.sample.image import check_image, decode_image, image_size, sized_image
from vl3.data.sample.media import MediaContent
from vl3.data.sample.problems import MAX_PATH_CHARACTERS, ProblemKind, SampleProblem, printable
from vl3.data.sample.records import Record
from vl3.data.sample.video import FramePlan, VideoFacts, VideoSource, open_video
from vl3.errors import ConfigError

STREAM_MAX_FRAMES = 400
"""Maximum number of frames of a streaming sample, as in the released code."""

ClipSource: TypeAlias = "VideoSource | FrameFiles"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedItem:
    """A picture, which is one frame, or a clip, as pixels at every requested (height, width)."""

    height_px: int
    """Height of the file."""
    width_px: int
    frames_by_size: dict[tuple[int, int], np.ndarray]
    facts: VideoFacts | None = None
    """Of a clip's file; None for a picture."""
    timestamps_F: np.ndarray | None = None
    """Of a clip: the time of each frame in seconds of the file."""

    @property
    def num_frames(self) -> int:
        """Number of frames; 1 for a picture."""
        return 1 if self.timestamps_F is None else len(self.timestamps_F)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedSample:
    """The media of a sample as pixels, in the order of `Record.media`."""

    items: tuple[DecodedItem, ...]

    @property
    def clip_times(self) -> list[np.ndarray]:
        """The times of the frames of each clip."""
        return [item.timestamps_F for item in self.items if item.timestamps_F is not None]

    @property
    def num_frames(self) -> int:
        """Number of frames of all clips."""
        return sum(len(times) for times in self.clip_times)


def decode_media(
    record: Record,
    media: Mapping[str, MediaContent],
    data: DataConfig,
    merges: Sequence[tuple[int, int]],
    patch_size: int = PATCH_SIZE_PX,
    *,
    picture: FixedPicture | None = None,
    whole: bool = False,
) -> DecodedSample:
    """Decode a sample's media once; pixels are kept only at the sizes that the (image merge, video merge) pairs need.

    One image or frame at a time has its full size: what a sample takes in memory follows from the token budget.

    Args:
        record: the annotation.
        media: content of each of `record.media_paths`.
        data: limits on frames and tokens.
        merges: the pairs.
        patch_size: side of a patch in pixels.
        picture: the square that every image and frame becomes; None keeps their shapes.
        whole: look for damage also where no frame is taken, and keep no pixels of pictures; for the build, which
            decides what is trained on, and counts the tokens of a picture from its size.

    Raises:
        SampleProblem: a file cannot be decoded, or there are more images than vision tokens.
    """
    _check_count(record, data)
    _check_frames(record, picture, merges)
    measure = check_image if whole else image_size
    pictures = {path: measure(media[path], _place(record, path)) for path in dict.fromkeys(record.images)}
    with ExitStack() as opened:
        items: list[DecodedItem] = []
        clips: list[tuple[DecodedItem, ClipSource, FramePlan]] = []
        for medium in record.media:
            if isinstance(medium, str):
                height_px, width_px = pictures[medium]
                items.append(DecodedItem(height_px=height_px, width_px=width_px, frames_by_size={}))
            else:
                source = opened.enter_context(_open_clip(record, medium, media, whole=whole))
                plan = _plan_frames(record, medium, source, data)
                items.append(_clip_item(source, plan))
                clips.append((items[-1], source, plan))
        fitted = (fit_items(items, merge, data, patch_size, picture) for merge in merges)
        wanted = [set(sizes) for sizes in zip(*fitted, strict=True)]
        for path in () if whole else pictures:  # a file that is shown several times is decoded once
            image_HWC = decode_image(media[path], _place(record, path))
            places = [place for place, medium in enumerate(record.media) if medium == path]
            sizes = set().union(*(wanted[place] for place in places))
            resized = {size: sized_image(image_HWC, size, picture)[None] for size in sizes}
            for place in places:
                items[place].frames_by_size.update(resized)
        wanted_of_clips = [sizes for item, sizes in zip(items, wanted, strict=True) if item.facts is not None]
        for (item, source, plan), sizes in zip(clips, wanted_of_clips, strict=True):
            for size in sizes:
                item.frames_by_size[size] = np.empty((item.num_frames, *size, 3), dtype=np.uint8)
            for index, frame_HWC in enumerate(source.frames(plan)):
                for size, frames_FHWC in item.frames_by_size.items():
                    frames_FHWC[index] = sized_image(frame_HWC, size, picture)
    return DecodedSample(items=tuple(items))


@contextmanager
def _open_clip(record: Record, clip: Clip, media: Mapping[str, MediaContent], *, whole: bool) -> Iterator[ClipSource]:
    if clip.frames_fps is not None:
        yield FrameFiles(clip, media, record.where, whole=whole)
    else:
        with open_video(media[clip.path], _place(record, clip.path), whole=whole) as source:
            yield source


def _clip_item(source: ClipSource, plan: FramePlan) -> DecodedItem:
    return DecodedItem(
        height_px=source.facts.height_px,
        width_px=source.facts.width_px,
        frames_by_size={},
        facts=source.facts,
        timestamps_F=plan.timestamps_F,
    )


def _place(record: Record, path: str) -> str:
    return f"{record.where}: {printable(path, MAX_PATH_CHARACTERS)}"


def _check_count(record: Record, data: DataConfig) -> None:
    """Refuse more media than a sample may have vision tokens, before they are decoded: each takes one at least."""
    if len(record.media) > data.visual_budget_tokens:
        raise SampleProblem(
            ProblemKind.TOO_LONG,
            f"the sample has {len(record.media)} media, more than its vision tokens, {data.visual_budget_tokens} "
            "(data.visual_budget_tokens). Split the sample or raise the limit.",
            record.where,
        )


def _check_frames(record: Record, picture: FixedPicture | None, merges: Sequence[tuple[int, int]]) -> None:
    """Refuse a clip whose frames become squares that cannot be merged, before it is decoded."""
    if picture is None or not record.clips:
        return
    try:
        for _, video_merge in merges:
            picture.check_merge(video_merge)
    except ConfigError as error:
        raise SampleProblem(ProblemKind.STRUCTURE, str(error), record.where) from error


def _plan_frames(record: Record, clip: Clip, source: ClipSource, data: DataConfig) -> FramePlan:
    """Which frames of a record's clip to take; a stream ends with its last message.

    At 1 frame per second, a stream from 0 to 10 s whose last message is at 3.5 s has the frames at 0, 1, 2 and 3 s.
    """
    plan = source.plan(
        fps=data.video_fps,
        max_frames=min(data.max_frames, STREAM_MAX_FRAMES) if record.is_stream else data.max_frames,
        start_seconds=clip.start_seconds,
        end_seconds=clip.end_seconds,
    )
    if not record.is_stream:
        return plan
    plan = plan.until(record.events[-1].time_seconds)
    if not len(plan.timestamps_F):
        reason = f"no frame comes before the last message at {record.events[-1].time_seconds} s. Correct the times."
        raise SampleProblem(ProblemKind.TIMES, reason, record.where)
    return plan


def fit_items(
    items: Sequence[DecodedItem],
    merges: tuple[int, int],
    data: DataConfig,
    patch_size: int,
    picture: FixedPicture | None,
) -> list[tuple[int, int]]:
    """Size of each item, with an (image merge, video merge)."""
    if picture is not None:
        return [(picture.seen_px, picture.seen_px)] * len(items)
    sizes = [
        ItemSize(
            height_px=item.height_px,
            width_px=item.width_px,
            num_frames=item.num_frames,
            merge_size=merges[item.facts is not None],
        )
        for item in items
    ]
    return fit_sizes(
        sizes, patch_size=patch_size, min_tokens=data.min_item_tokens, max_tokens=data.visual_budget_tokens
    )
