"""The four training stages as data (arXiv 2501.13106 sec. 3.2 and 3.3)."""

from dataclasses import dataclass
from enum import StrEnum

from vl3.config.checks import require_choice, require_positive
from vl3.config.data import Category
from vl3.errors import ConfigError


class Stage(StrEnum):
    """The training stages in the order in which they run."""

    VISION_ADAPTATION = "vision_adaptation"
    ALIGNMENT = "alignment"
    MULTITASK = "multitask"
    VIDEO = "video"

    @property
    def number(self) -> int:
        """1 to 4, for display only."""
        return list(Stage).index(self) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """Peak learning rate of each part; None freezes the part."""

    vision: float | None
    """Peak rate of the vision encoder, or None to freeze it."""
    projector: float | None
    """Peak rate of the projector, or None to freeze it."""
    language: float | None
    """Peak rate of the language model, its embeddings and head, or None to freeze it."""

    def __post_init__(self) -> None:
        rates = {"vision": self.vision, "projector": self.projector, "language": self.language}
        trained = {part: rate for part, rate in rates.items() if rate is not None}
        if not trained:
            raise ConfigError("learning_rates freezes every part, so nothing would train. Give one part a rate.")
        require_positive("learning_rates", **trained)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters on the decoder's linear layers but the head; the defaults are the original's."""

    rank: int = 64
    """Width of each adapter."""
    alpha: float = 16.0
    """Adapters are scaled by alpha / rank."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is dropped in training."""

    def __post_init__(self) -> None:
        require_positive("stage.lora", rank=self.rank, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"stage.lora.dropout={self.dropout} must be from 0 to below 1, or nothing is learned.")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One row of the stage table."""

    steps: int
    """Optimizer steps of the stage."""
    packs_per_step: int
    """Packed rows of one optimizer step over all processes (the global batch)."""
    learning_rates: LearningRates
    """Peak learning rate of each part; which part is trainable follows from it."""
    image_merge_size: int
    """Side of the square of patches that one image token stands for."""
    video_merge_size: int
    """Side of the square of patches that one video token stands for."""
    difffp: bool
    """Whether video tokens that do not change between frames are dropped (DiffFP)."""
    mixture: dict[str, float]
    """Weight of each kind of sample: key `category` or `category:source`, weights need not sum to 1."""
    timeout_seconds: float
    """Time after which a stage that is still running is stopped."""
    lora: LoraConfig | None = None
    """Adapters that train in place of the language model's own weights and are merged into them at the end of the
    stage; None trains the weights themselves."""

    def __post_init__(self) -> None:
        require_positive(
            "stage", steps=self.steps, packs_per_step=self.packs_per_step, timeout_seconds=self.timeout_seconds
        )
        require_choice("stage", "image_merge_size", self.image_merge_size, (1, 2))
        require_choice("stage", "video_merge_size", self.video_merge_size, (1, 2))
        if self.lora is not None and self.learning_rates.language is None:
            raise ConfigError(
                "stage.lora adapts the language model, but learning_rates.language=null freezes it, so the adapters "
                "would stay zero. Give it a rate or set stage.lora=null."
            )
        _check_mixture(self.mixture)


def _check_mixture(mixture: dict[str, float]) -> None:
    """Raise ConfigError for an unknown category, a weight that is not positive or an empty mixture."""
    if not mixture:
        raise ConfigError("stage.mixture is empty, so no sample could be drawn. Name at least one category.")
    require_positive("stage.mixture", **mixture)
    for key in mixture:
        require_choice("stage", "mixture key", key.partition(":")[0], tuple(Category))


@dataclass(frozen=True, kw_only=True, slots=True)
class StagesConfig:
    """The stage table: one field for each member of Stage, in order."""

    vision_adaptation: StageConfig
    """Stage 1: the encoder learns any resolution, the projector is born; the language model is frozen."""
    alignment: StageConfig
    """Stage 2: all parts are aligned on detailed image data and text."""
    multitask: StageConfig
    """Stage 3: instruction tuning on images, text and general video."""
    video: StageConfig
    """Stage 4: video, streaming and temporal grounding."""

    def __getitem__(self, stage: Stage) -> StageConfig:
        return getattr(self, stage.value)
