"""One sample from bytes to the model's input: tokens, labels, patches, and which of them DiffFP keeps.

Legend: F frames, H height, W width, C channels or the 588 values of a patch, P patches, I items (images and clips),
M merged tokens, T tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vl3.config.data import DataConfig, DiffFPScale
from vl3.config.picture import FixedPicture
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.chat import EncodedChat, encode_messages, expand_images, render_record
from vl3.data.sample.decoded import DecodedSample, decode_media, fit_items
from vl3.data.sample.media import MediaContent
from vl3.data.sample.patches import patchify
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.records import Record
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError


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


def fitted_sizes(decoded: DecodedSample, settings: PrepareSettings) -> list[tuple[int, int]]:
    """Height and width of each item with the settings' merges."""
    return fit_items(decoded.items, settings.merges, settings.data, settings.patch_size, settings.picture)


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
