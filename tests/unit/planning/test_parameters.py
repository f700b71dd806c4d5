"""Parameters of each part against the real model's, and against those of the published checkpoints."""

from collections.abc import Callable
from typing import Any

import pytest

from vl3.config.stages import LearningRates, LoraConfig
from vl3.models.lora import add_adapters
from vl3.models.model import VideoLlama3
from vl3.planning.parameters import TrainedParts, count_parameters
from vl3.planning.sizes import PUBLISHED
from vl3.recipes.catalog import get_recipe
from vl3.training.optimizer_groups import freeze_parts, trainable_parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora_rank", [0, 3])
def test_counts_are_those_of_the_model(tied: bool, lora_rank: int, make_sizes: Callable[..., Any]) -> None:
    config = make_sizes(tie_word_embeddings=tied)
    model = VideoLlama3.empty(config)
    if lora_rank:
        add_adapters(model.to_empty(device="cpu"), LoraConfig(rank=lora_rank), seed=0)
    counts = count_parameters(config, lora_rank=lora_rank)
    parts = {name: sum(p.numel() for _, p in named) for name, named in model.parts().items()}
    assert parts == {
        "vision": counts.vision,
        "projector": counts.projector,
        "language": counts.language + counts.adapters,
    }
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    rates = LearningRates(vision=None, projector=1.0, language=1.0)
    freeze_parts(model.parts(), rates, adapters_only=lora_rank > 0)
    trained = TrainedParts(vision=False, projector=True, language=lora_rank == 0, lora_rank=lora_rank)
    assert counts.trainable(trained) == sum(p.numel() for _, p in trainable_parameters(model.parts()))


@pytest.mark.parametrize(
    ("recipe", "vision", "projector", "language", "head"),
    [
        ("vl3_2b", 412_147_440, 4_131_840, 1_543_714_304, 0),
        ("vl3_7b", 412_147_440, 16_980_992, 7_615_616_512, 544_997_376),
    ],
)
def test_counts_are_those_of_the_published_checkpoints(
    recipe: str, vision: int, projector: int, language: int, head: int
) -> None:
    counts = count_parameters(PUBLISHED[recipe])
    assert (counts.vision, counts.projector, counts.language, counts.head) == (vision, projector, language, head)


def test_parts_are_those_with_a_learning_rate() -> None:
    stages = get_recipe("vl3_2b").stages
    assert TrainedParts.of(stages["vision_adaptation"]) == TrainedParts(vision=True, projector=True, language=False)
    assert TrainedParts.of(stages["video"]) == TrainedParts(vision=True, projector=True, language=True)
