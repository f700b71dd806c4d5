"""What a sample may hold and how its media become tokens."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from vl3.config.checks import Count, Fraction, Range, Workers, check_fields
from vl3.errors import ConfigError


class Category(StrEnum):
    """The ten categories of the paper's mixture tables (arXiv 2501.13106, tables 1 to 4)."""

    SCENE_IMAGE = "scene_image"
    SCENE_TEXT = "scene_text"
    DOCUMENT = "document"
    CHART = "chart"
    FINE_GRAINED = "fine_grained"
    MULTI_IMAGE = "multi_image"
    TEXT_ONLY = "text_only"
    GENERAL_VIDEO = "general_video"
    STREAMING = "streaming"
    TEMPORAL_GROUNDING = "temporal_grounding"


class DiffFPScale(StrEnum):
    """In which unit DiffFP measures how much a token changed since the frame before."""

    RELEASED = "released"
    """Mean absolute difference of pixels in [-1, 1], times 255 (paper code): 1 is half a grey level of 255."""
    RLT = "rlt"
    """Mean absolute difference of ImageNet-normalised pixels (RLT, arXiv 2411.05222): 0.1 is about 5.8 grey levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How annotations and media become packed rows of tokens (paper sec. 3.3 gives the big recipes' limits)."""

    max_length_tokens: Count
    """Length of one packed row and of one sample, text and vision tokens together."""
    visual_budget_tokens: Count
    """Vision tokens that one sample may have after merging, before DiffFP; media are resized to fit."""
    max_row_visual_tokens: Count
    """Vision tokens that one packed row may have after merging, before DiffFP: a limit of the encoder's memory."""
    min_item_tokens: Count
    """Vision tokens that one image or frame has at least after merging; smaller media are enlarged."""
    video_fps: Annotated[float, Range(at_least=0.0001, at_most=1000)]
    """Frames taken from each second of a video."""
    max_frames: Count
    """Frames taken from one video at most; longer ones are sampled uniformly."""
    difffp_threshold: Annotated[float, Range(at_least=0, at_most=1e6)]
    """Mean absolute difference to the frame before, in the unit of difffp_scale, above which a token is kept."""
    difffp_min_tokens: Count
    """Tokens of each frame that DiffFP keeps at least."""
    max_bad_fraction: Fraction
    """Share of unreadable samples that is tolerated (they are named and left out); above it the data is refused."""
    holdout_fraction: Fraction
    """Share of the training samples set aside for evaluation where a dataset brings no held-out annotations."""
    build_workers: Workers
    """Processes that probe and pack media when a dataset is built."""
    difffp_scale: DiffFPScale = DiffFPScale.RELEASED
    """Unit of difffp_threshold: the released code's, or RLT's, about 115 times coarser."""
    prune_before_encoder: bool = False
    """Whether tokens that DiffFP drops are left out of the encoder too: cheaper, not what was released."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if self.visual_budget_tokens >= self.max_length_tokens:
            raise ConfigError(
                f"data.visual_budget_tokens={self.visual_budget_tokens} leaves no room for text in "
                f"data.max_length_tokens={self.max_length_tokens}. Lower the budget or raise the length."
            )
        if self.visual_budget_tokens > self.max_row_visual_tokens:
            raise ConfigError(
                f"data.visual_budget_tokens={self.visual_budget_tokens} is more than a row may have "
                f"(data.max_row_visual_tokens={self.max_row_visual_tokens}), so the largest samples would fit into no "
                "row. Lower the budget or raise the row's limit."
            )
