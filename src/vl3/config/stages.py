"""Training stages as rows of a table, in the order in which they run (arXiv 2501.13106 sec. 3.2 and 3.3 has four)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import (
    Count,
    LearningRate,
    OneOf,
    PartialFraction,
    Range,
    Seconds,
    check_fields,
)
from vl3.config.mixture import Epochs, MixtureValue, check_mixture
from vl3.config.placement import RESERVED
from vl3.conventions import IMAGE_MERGE_SIZES, VIDEO_MERGE_SIZE
from vl3.errors import ConfigError

STARTUP_SECONDS = 7200.0
"""Long enough to load a base from a hub on a slow line; a person who waits sees the log."""
STALL_SECONDS = 1800.0
"""Longer than an outage of the object store that the loader survives, and than NCCL's own limit of a collective."""

_VIDEO_MERGE = "the method merges a video's patches 2x2 in every stage (arXiv 2501.13106), and datasets are counted so"


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """Peak learning rate of each part; None freezes the part."""

    vision: LearningRate | None
    """Peak rate of the vision encoder, or None to freeze it."""
    projector: LearningRate | None
    """Peak rate of the projector, or None to freeze it."""
    language: LearningRate | None
    """Peak rate of the language model, its embeddings and head, or None to freeze it."""

    def __post_init__(self) -> None:
        check_fields(self, "learning_rates")
        if self.vision is None and self.projector is None and self.language is None:
            raise ConfigError("learning_rates freezes every part, so nothing would train. Give one part a rate.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters on the decoder's linear layers but the head; the defaults are the original's."""

    rank: Annotated[int, Range(at_least=1, at_most=65536)] = 64
    """Width of each adapter."""
    alpha: Annotated[float, Range(above=0, at_most=1e6)] = 16.0
    """Adapters are scaled by alpha / rank."""
    dropout: PartialFraction = 0.05
    """Share of an adapter's inputs that is dropped in training."""

    def __post_init__(self) -> None:
        check_fields(self, "stage.lora")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One row of the stage table."""

    learning_rates: LearningRates
    """Peak learning rate of each part; which part is trainable follows from it."""
    image_merge_size: Annotated[int, OneOf(IMAGE_MERGE_SIZES)]
    """Side of the square of patches that are merged into one image token."""
    video_merge_size: Annotated[int, OneOf((VIDEO_MERGE_SIZE,), reason=_VIDEO_MERGE)]
    """Side of the square of patches that are merged into one video token; always 2."""
    difffp: bool
    """Whether video tokens that do not change between frames are dropped (DiffFP)."""
    mixture: dict[str, MixtureValue]
    """What is drawn: `DATASET` or `[DATASET:]CATEGORY[:SOURCE]`, and its amount or more (vl3.config.mixture.Draw)."""
    missing: Annotated[str, OneOf(("refuse", "drop"))] = "refuse"
    """What becomes of the stage when the data lack something that its mixture asks for: `refuse` it, or `drop` what is
    missing. Then a stage of `epochs` draws fewer samples, and one of `steps` more of the others."""
    steps: Count | None = None
    """Optimizer steps of the stage, in which the mixture's amounts are proportions; None counts them from `epochs`."""
    epochs: Epochs | None = None
    """How often the mixture's amounts, which are then numbers of samples, are drawn; None takes `steps`."""
    packs_per_step: Count | None = None
    """Packed rows of one optimizer step over all processes (the global batch); None counts them from
    `samples_per_step`."""
    samples_per_step: Count | None = None
    """Samples that one optimizer step should have, about: the plan takes the number of packed rows that comes nearest.
    None takes `packs_per_step`."""
    packs_divisible_by: Count = 1
    """With `samples_per_step`: the packed rows of a step are a multiple of this, so that any number of processes that
    divides it can share them."""
    startup_seconds: Seconds = STARTUP_SECONDS
    """Time that the stage may take before its first step (loading) and again after its last one (publishing)."""
    stall_seconds: Seconds = STALL_SECONDS
    """Time without a finished step after which the stage is taken for hung and stopped; ten times the slowest step of
    this launch if that is longer, so that a slow machine is never too slow."""
    timeout_seconds: Seconds | None = None
    """Time that the stage may run in all, whatever progress it makes; None sets no limit."""
    lora: LoraConfig | None = None
    """Adapters that train in place of the language model's own weights and are merged into them at the end of the
    stage; None trains the weights themselves."""

    def __post_init__(self) -> None:
        check_fields(self, "stage")
        if self.lora is not None and self.learning_rates.language is None:
            raise ConfigError(
                "stage.lora adapts the language model, but learning_rates.language=null freezes it, so the adapters "
                "would stay zero. Set learning_rates.language or stage.lora=null."
            )
        for first, second in (("steps", "epochs"), ("packs_per_step", "samples_per_step")):
            if (getattr(self, first) is None) == (getattr(self, second) is None):
                count = "neither" if getattr(self, first) is None else "both"
                raise ConfigError(
                    f"stage sets {count} of {first} and {second}; one follows from the other. Set one of them, and "
                    "the other to null."
                )
        check_mixture(self.mixture, by_epochs=self.epochs is not None)


LIMITS = ("startup_seconds", "stall_seconds", "timeout_seconds")
"""The fields of a stage that decide when it is stopped, and nothing about its result."""

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
        if name in RESERVED:
            raise ConfigError(f"stages has a stage named {name!r}, as the {name}'s placement is. Give it another name.")
        if not _STAGE_NAME.fullmatch(name):
            raise ConfigError(
                f"stages has a stage named {name!r}, which cannot name a task, a folder and a TrainJob on a cluster. "
                "Use up to 32 characters of a-z, 0-9 and '_', with a letter first and a letter or digit last."
            )
