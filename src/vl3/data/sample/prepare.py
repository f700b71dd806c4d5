"""One sample from bytes to the model's input: tokens, labels, patches, and which of them DiffFP keeps.

Legend: F frames, H height, W width, C channels or the 588 values of a patch, P patches, I items (images and clips),
M merged tokens, T tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from vl3.config.data import DataConfig, DiffFPScale
from vl3.config.picture import FixedPicture
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.chat import EncodedChat, encode_messages, expand_images, render_record
from vl3.data.sample.clips import Clip
from vl3.data.sample.frame_files import FrameFiles
from vl3.data.sample.geometry import ItemSize, fit_sizes
from vl3.data.sample.image import check_image, decode_image, image_size, sized_image
from vl3.data.sample.media import MediaContent
from vl3.data.sample.patches import patchify
from vl3.data.sample.problems import MAX_PATH_CHARACTERS, ProblemKind, SampleProblem, printable
from vl3.data.sample.records import Record
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.data.sample.video import FramePlan, VideoFacts, VideoSource, open_video
from vl3.errors import ConfigError

STREAM_MAX_FRAMES = 400
"""Maximum number of frames of a streaming sample, as in the released code."""

ClipSource: TypeAlias = "VideoSource | FrameFiles"


class Pruner(Protocol):
    """Decides which merged tokens of a video are kept (DiffFP, `data.sample.difffp.keep_mask`)."""

    def __call__(
        self,
        frames_FHWC: np.ndarray,
        *,
        patch_size: int,
        merge_size: int,
        threshold: float,
        min_tokens: int,
        scale: DiffFPScale,
    ) -> np.ndarray:
        """Boolean mask over the merged tokens in the order (frame, row, column), True where a token is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareSettings:
    """The settings of a stage that decide how its samples are prepared."""

    image_merge_size: int
    """Side of the square of patches that becomes one image token."""
    video_merge_size: int
    """Side of the square of patches that becomes one video token."""
    difffp: bool
    """Whether video tokens that do not change are dropped."""
    data: DataConfig
    """Limits on frames and tokens."""
    patch_size: int = PATCH_SIZE_PX
    """Side of a patch in pixels."""
    picture: FixedPicture | None = None
    """The square that every image and frame becomes, for an encoder of fixed resolution; None keeps their shapes."""

    def __post_init__(self) -> None:
        if self.picture is None:
            return
        self.picture.check_merge(self.image_merge_size)
        if self.difffp:
            raise ConfigError(
                "difffp=true with an encoder of fixed resolution: it needs whole squares, and datasets count what "
                "DiffFP keeps at the sizes of any resolution. Set difffp=false for its stages."
            )

    @property
    def merges(self) -> tuple[int, int]:
        """(image merge, video merge)."""
        return self.image_merge_size, self.video_merge_size


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedSample:
    """What one sample contributes to a packed row; see the legend for shapes.

    `pixels_PC` has all patches, or only those of the kept tokens if `data.prune_before_encoder` is set.
    """

    sample_id: str
    input_ids_T: np.ndarray
    labels_T: np.ndarray
    pixels_PC: np.ndarray
    grid_thw_I3: np.ndarray
    merge_sizes_I: np.ndarray
    keep_M: np.ndarray
    answer_start: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedMedia:
    """The media of a sample as the encoder takes them, without any text; see the legend for shapes."""

    pixels_PC: np.ndarray
    """All patches, or only those of the kept tokens if `data.prune_before_encoder` is set."""
    grid_thw_I3: np.ndarray
    merge_sizes_I: np.ndarray
    keep_M: np.ndarray
    counts_F: np.ndarray
    """Kept tokens of each picture and frame, in the order of the `<image>` marks."""
    clip_times: tuple[np.ndarray, ...]
    """The times of the frames of each clip, in seconds of its file."""


def prepare_sample(
    record: Record,
    media: Mapping[str, MediaContent],
    tokenizer: ChatTokenizer,
    settings: PrepareSettings,
    prune: Pruner,
) -> PreparedSample:
    """Decode, resize, cut into patches, prune and tokenise one sample.

    Args:
        record: the annotation.
        media: content of each of `record.media_paths`.
        tokenizer: the language model's tokenizer.
        settings: merges, DiffFP and limits.
        prune: DiffFP; called only for videos of several frames, and only if `settings.difffp` is set.

    Raises:
        SampleProblem: a file cannot be decoded or the sample is longer than a row.
    """
    decoded = decode_media(
        record, media, settings.data, [settings.merges], settings.patch_size, picture=settings.picture
    )
    return prepare_decoded(record, decoded, tokenizer, settings, prune)


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
        fitted = (_fit(items, merge, data, patch_size, picture) for merge in merges)
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


def prepare_decoded(
    record: Record, decoded: DecodedSample, tokenizer: ChatTokenizer, settings: PrepareSettings, prune: Pruner
) -> PreparedSample:
    """The part of `prepare_sample` after decoding.

    Two frames of four tokens each, of which DiffFP keeps 4 and 1: the counts are 4 and 1, so the first `<image>` of
    the text becomes four tokens and the second one token, and `keep_M` has 8 entries, 5 of them True.
    """
    return place_media(record, prepare_media(decoded, settings, prune), tokenizer, settings.data)


def prepare_media(decoded: DecodedSample, settings: PrepareSettings, prune: Pruner) -> PreparedMedia:
    """Patches of decoded media, and which of their tokens are kept: the same for every question about them."""
    items, merge_sizes = resized_items(decoded, settings)
    patches = [patchify(frames, merge, settings.patch_size) for frames, merge in zip(items, merge_sizes, strict=True)]
    keep = [keep_tokens(frames, merge, settings, prune) for frames, merge in zip(items, merge_sizes, strict=True)]
    counts = [mask.reshape(len(frames), -1).sum(axis=1) for mask, frames in zip(keep, items, strict=True)]
    pixels = [pixels_PC for pixels_PC, _ in patches]
    if settings.data.prune_before_encoder:
        pixels = [kept_patches(*item) for item in zip(pixels, keep, merge_sizes, strict=True)]
    patch_values = 3 * settings.patch_size**2
    return PreparedMedia(
        pixels_PC=_concatenate(pixels, (0, patch_values), np.uint8),
        grid_thw_I3=np.array([grid for _, grid in patches], dtype=np.int64).reshape(-1, 3),
        merge_sizes_I=np.array(merge_sizes, dtype=np.int64),
        keep_M=_concatenate(keep, (0,), np.bool_),
        counts_F=np.concatenate(counts) if counts else np.zeros(0, np.int64),
        clip_times=tuple(decoded.clip_times),
    )


def place_media(record: Record, media: PreparedMedia, tokenizer: ChatTokenizer, data: DataConfig) -> PreparedSample:
    """A sample's tokens, in which each `<image>` stands as often as its picture or frame has kept tokens.

    Raises:
        SampleProblem: the sample is longer than a row.
    """
    chat = encode_messages(render_record(record, list(media.clip_times)), tokenizer)
    chat = expand_images(chat, media.counts_F, tokenizer.image_id)
    _check_length(record, chat, data)
    return PreparedSample(
        sample_id=record.sample_id,
        input_ids_T=chat.input_ids_T,
        labels_T=chat.labels_T,
        pixels_PC=media.pixels_PC,
        grid_thw_I3=media.grid_thw_I3,
        merge_sizes_I=media.merge_sizes_I,
        keep_M=media.keep_M,
        answer_start=chat.answer_start,
    )


def keep_tokens(frames_FHWC: np.ndarray, merge_size: int, settings: PrepareSettings, prune: Pruner) -> np.ndarray:
    """Which merged tokens of one item are kept: all, unless DiffFP is on and the item has several frames.

    Two frames of 28x56 px, patches of 14 px and merge 2: a token has 28x28 px, so a frame has two tokens and the mask
    has four entries. Without DiffFP all four are True.
    """
    num_frames, height_px, width_px, _ = frames_FHWC.shape
    if not settings.difffp or num_frames == 1:
        side = settings.patch_size * merge_size
        return np.ones(num_frames * (height_px // side) * (width_px // side), dtype=np.bool_)
    return prune(
        frames_FHWC,
        patch_size=settings.patch_size,
        merge_size=merge_size,
        threshold=settings.data.difffp_threshold,
        min_tokens=settings.data.difffp_min_tokens,
        scale=settings.data.difffp_scale,
    )


def kept_patches(pixels_PC: np.ndarray, keep_M: np.ndarray, merge_size: int) -> np.ndarray:
    """The patches of the kept tokens. The patches of a token are next to each other (see `patchify`).

    merge_size=2 and keep_M = True False: of the patches 0 to 7 the first four are kept.
    """
    return pixels_PC if keep_M.all() else pixels_PC[np.repeat(keep_M, merge_size**2)]


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


def _fit(
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


def fitted_sizes(decoded: DecodedSample, settings: PrepareSettings) -> list[tuple[int, int]]:
    """Height and width of each item with the settings' merges."""
    return _fit(decoded.items, settings.merges, settings.data, settings.patch_size, settings.picture)


def resized_items(decoded: DecodedSample, settings: PrepareSettings) -> tuple[list[np.ndarray], list[int]]:
    """Each item as frames (F, H, W, 3) at its final size, and the merge of each, in the order of the media."""
    sizes = fitted_sizes(decoded, settings)
    frames = [item.frames_by_size[size] for item, size in zip(decoded.items, sizes, strict=True)]
    return frames, [settings.merges[item.facts is not None] for item in decoded.items]


def _check_length(record: Record, chat: EncodedChat, data: DataConfig) -> None:
    length = len(chat.input_ids_T)
    if length > data.max_length_tokens:
        raise SampleProblem(
            ProblemKind.TOO_LONG,
            f"the sample has {length} tokens, a row has {data.max_length_tokens} (data.max_length_tokens). "
            "Shorten the sample or raise the limit.",
            record.where,
        )


def _concatenate(parts: Sequence[np.ndarray], empty_shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(empty_shape, dtype=dtype)
