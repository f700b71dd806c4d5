"""Optimizer groups."""

import pytest
import torch
from torch import nn

from vl3.config.stages import LearningRates
from vl3.errors import ConfigError
from vl3.training.optimizer_groups import freeze_parts, parameter_groups, trainable_parameters


@pytest.fixture
def parts() -> dict[str, list[tuple[str, nn.Parameter]]]:
    def some(prefix: str) -> list[tuple[str, nn.Parameter]]:
        shapes = {"norm.weight": (4,), "fc.weight": (4, 4), "fc.bias": (4,)}
        return [(f"{prefix}.{name}", nn.Parameter(torch.zeros(shape))) for name, shape in shapes.items()]

    return {"vision": some("vision_encoder"), "projector": some("mm_projector"), "language": some("language_model")}


def test_groups_are_part_by_decay_with_their_rates(parts: dict[str, list[tuple[str, nn.Parameter]]]) -> None:
    rates = LearningRates(vision=1e-5, projector=1e-3, language=2e-5)
    freeze_parts(parts, rates)
    groups = parameter_groups(parts, rates, weight_decay=0.1)
    assert [(g["name"], g["part"], g["lr"], g["peak_lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("vision/decay", "vision", 1e-5, 1e-5, 0.1, 1),
        ("vision/no_decay", "vision", 1e-5, 1e-5, 0.0, 2),
        ("projector/decay", "projector", 1e-3, 1e-3, 0.1, 1),
        ("projector/no_decay", "projector", 1e-3, 1e-3, 0.0, 2),
        ("language/decay", "language", 2e-5, 2e-5, 0.1, 1),
        ("language/no_decay", "language", 2e-5, 2e-5, 0.0, 2),
    ]
    by_name = dict(parts["vision"])
    assert groups[1]["params"][0] is by_name["vision_encoder.fc.bias"]  # sorted by name, not as they came
    assert groups[1]["params"][1] is by_name["vision_encoder.norm.weight"]


def test_a_part_without_a_rate_is_frozen_and_left_out(parts: dict[str, list[tuple[str, nn.Parameter]]]) -> None:
    rates = LearningRates(vision=1e-5, projector=1e-3, language=None)
    parts["vision"][0][1].requires_grad_(False)
    freeze_parts(parts, rates)
    assert [g["name"] for g in parameter_groups(parts, rates, weight_decay=0.1)] == [
        "vision/decay",
        "vision/no_decay",
        "projector/decay",
        "projector/no_decay",
    ]
    assert not any(parameter.requires_grad for _, parameter in parts["language"])
    assert parts["vision"][0][1].requires_grad
    assert [name for name, _ in trainable_parameters(parts)] == [
        "mm_projector.fc.bias",
        "mm_projector.fc.weight",
        "mm_projector.norm.weight",
        "vision_encoder.fc.bias",
        "vision_encoder.fc.weight",
        "vision_encoder.norm.weight",
    ]


def test_without_decay_a_part_is_one_group(parts: dict[str, list[tuple[str, nn.Parameter]]]) -> None:
    rates = LearningRates(vision=1e-5, projector=1e-3, language=2e-5)
    groups = parameter_groups(parts, rates, weight_decay=0.0)
    assert [(g["name"], len(g["params"])) for g in groups] == [
        ("vision/no_decay", 3),
        ("projector/no_decay", 3),
        ("language/no_decay", 3),
    ]


def test_groups_of_nothing_are_refused() -> None:
    rates = LearningRates(vision=1e-5, projector=None, language=None)
    with pytest.raises(ConfigError, match="no parameter of the model is trainable"):
        parameter_groups({"vision": [], "projector": [], "language": []}, rates, weight_decay=0.0)


def test_with_adapters_nothing_else_of_the_language_model_trains(
    parts: dict[str, list[tuple[str, nn.Parameter]]],
) -> None:
    name = "language_model.fc.lora_A.default.weight"
    parts["language"].append((name, nn.Parameter(torch.zeros(2, 4))))
    freeze_parts(parts, LearningRates(vision=None, projector=1e-3, language=2e-5), adapters_only=True)
    assert [found for found, _ in trainable_parameters(parts)] == [
        name,
        "mm_projector.fc.bias",
        "mm_projector.fc.weight",
        "mm_projector.norm.weight",
    ]
    groups = parameter_groups(parts, LearningRates(vision=None, projector=1e-3, language=2e-5), weight_decay=0.1)
    assert [group["name"] for group in groups] == ["projector/decay", "projector/no_decay", "language/decay"]
