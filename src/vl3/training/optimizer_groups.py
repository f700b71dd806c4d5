"""Optimizer groups of the trainable parameters: {vision, projector, language} x {decay, no decay}."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vl3.config.stages import LearningRates
from vl3.errors import ConfigError
from vl3.models.lora import is_adapter

PARTS = ("vision", "projector", "language")
"""The parts of the model in the order of their groups."""
NamedParameters = list[tuple[str, nn.Parameter]]


def freeze_parts(parts: dict[str, NamedParameters], rates: LearningRates, *, adapters_only: bool = False) -> None:
    """Set requires_grad of every parameter: a part without a learning rate is frozen.

    `adapters_only`: train only the LoRA adapters of the language model.
    """
    for part in PARTS:
        for name, parameter in parts[part]:
            is_chosen = part != "language" or not adapters_only or is_adapter(name)
            parameter.requires_grad_(is_chosen and getattr(rates, part) is not None)


def trainable_parameters(parts: dict[str, NamedParameters]) -> NamedParameters:
    """Every trainable parameter with its name, sorted by name, as in a checkpoint."""
    named = [pair for part in PARTS for pair in parts[part] if pair[1].requires_grad]
    return sorted(named, key=lambda pair: pair[0])


def parameter_groups(
    parts: dict[str, NamedParameters], rates: LearningRates, *, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW with `name` ("vision/decay"), `part`, `peak_lr`, `lr` and `weight_decay`.

    Within a group the parameters are sorted by name, so that every process and run shards them equally. Biases and
    norms (fewer than two dimensions) have no decay. Empty groups are left out, because DeepSpeed cannot shard them.
    With weight_decay=0 each part is one group, because each group costs round trips in every step.

    Raises:
        ConfigError: no parameter is trainable.
    """
    groups = []
    for part in PARTS:
        named = sorted((pair for pair in parts[part] if pair[1].requires_grad), key=lambda pair: pair[0])
        chosen: dict[str, list[nn.Parameter]] = {"decay": [], "no_decay": []}
        for _, parameter in named:
            chosen["decay" if weight_decay and len(_shape(parameter)) >= 2 else "no_decay"].append(parameter)
        for kind, parameters in chosen.items():
            if parameters:
                rate = getattr(rates, part)
                group = {"params": parameters, "name": f"{part}/{kind}", "part": part, "peak_lr": rate, "lr": rate}
                groups.append(group | {"weight_decay": weight_decay if kind == "decay" else 0.0})
    if not groups:
        raise ConfigError("no parameter of the model is trainable in this stage. Give one part a learning rate.")
    return groups


def num_values(parameters: Iterable[nn.Parameter]) -> int:
    """Number of values of whole parameters, also of those that ZeRO-3 has divided among the ranks."""
    return sum(_shape(parameter).numel() for parameter in parameters)


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Its shape; DeepSpeed leaves a parameter that it has divided with no values and its shape beside it."""
    return getattr(parameter, "ds_shape", parameter.shape)
