"""Training stages as rows of a table, in the order in which they run (arXiv 2501.13106 sec. 3.2 and 3.3 has four)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vl3.config.checks import require_choice, require_positive
from vl3.config.data import Category
from vl3.errors import ConfigError


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
            raise ConfigError(f"stage.lora.dropout={self.dropout} must be at least 0 and below 1. Set such a value.")


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
                "would stay zero. Set learning_rates.language or stage.lora=null."
            )
        _check_mixture(self.mixture)


def _check_mixture(mixture: dict[str, float]) -> None:
    """Raise ConfigError for an unknown category, a weight that is not positive or an empty mixture."""
    if not mixture:
        raise ConfigError("stage.mixture is empty, so no sample could be drawn. Name at least one category.")
    require_positive("stage.mixture", **mixture)
    for key in mixture:
        require_choice("stage", "mixture key", key.partition(":")[0], tuple(Category))


StageTable = dict[str, StageConfig]
"""The stages of a recipe by name, in the order in which they run."""

_STAGE_NAME = re.compile(r"[a-z]([a-z0-9_]{0,30}[a-z0-9])?")
"""Also valid in a Kubernetes name, with `-` for `_`: `vl3-0123456789-vision-adaptation-1`."""


def stage_table(*rows: tuple[str, StageConfig]) -> StageTable:
    """The table of a recipe from its rows, in order.

    Raises:
        ConfigError: two rows have the same name.
    """
    names = [name for name, _ in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"stages has {', '.join(map(repr, twice))} twice, so one row would silently replace the other. Give "
            "each stage its own name."
        )
    return dict(rows)


def check_stage_names(names: Iterable[str]) -> None:
    """Raise ConfigError unless there is a stage and every name can be used for tasks, folders and TrainJobs."""
    names = list(names)
    if not names:
        raise ConfigError("stages is empty, so nothing would be trained. Give the recipe at least one stage.")
    for name in names:
        if not _STAGE_NAME.fullmatch(name):
            raise ConfigError(
                f"stages has a stage named {name!r}, which cannot name a task, a folder and a TrainJob on a cluster. "
                "Use up to 32 characters of a-z, 0-9 and '_', with a letter first and a letter or digit last."
            )
