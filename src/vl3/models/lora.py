"""Low-rank adapters on the decoder's linear layers except the head, never on the encoder or projector.

As in the original paper: W x + (alpha / rank) B A dropout(x), with A random and B zero, so that training starts from
the unchanged model. Only this module imports peft.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vl3.config.stages import LoraConfig

if TYPE_CHECKING:
    from vl3.models.model import VideoLlama3

_ADAPTER = "default"
_MARKS = (".lora_A.", ".lora_B.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """The adapter of one layer, by the names of its parameters in a model with adapters."""

    base: str
    """The layer's own weight."""
    down: str
    """A, of shape (rank, inputs)."""
    up: str
    """B, of shape (outputs, rank)."""
    scaling: float
    """alpha / rank."""


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return any(mark in name for mark in _MARKS)


def add_adapters(model: "VideoLlama3", settings: LoraConfig, *, seed: int) -> None:
    """Add an adapter to every linear layer of the decoder; the layers themselves are no longer trained.

    Args:
        model: a model without adapters.
        settings: rank, scale and dropout.
        seed: seed of the initial values, the same in every process.
    """
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    decoder = model.language_model
    linear = {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    config = PeftConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(linear),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, decoder, adapter_name=_ADAPTER)


def adapters_of(model: "VideoLlama3") -> dict[str, LoraLayer]:
    """The adapter of each layer that has one, by the name that its weight has in a model without adapters.

    `language_model.layers.0.mlp.up_proj.weight` is `....up_proj.base_layer.weight` and two adapter weights here.
    """
    if not any(is_adapter(name) for name, _ in model.named_parameters()):
        return {}  # without adapters peft need not be imported, which takes seconds
    from peft.tuners.lora import Linear

    found = {}
    for layer, module in model.named_modules():
        if isinstance(module, Linear):
            found[f"{layer}.weight"] = LoraLayer(
                base=f"{layer}.base_layer.weight",
                down=f"{layer}.lora_A.{_ADAPTER}.weight",
                up=f"{layer}.lora_B.{_ADAPTER}.weight",
                scaling=module.scaling[_ADAPTER],
            )
    return found


def plain_name(name: str) -> str:
    """The name that a parameter has in a model without adapters; meaningless for an adapter's own."""
    return name.replace(".base_layer.", ".")


def merged(base: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """A layer's weight with its adapter added, in fp32: W + (alpha / rank) B A."""
    return base.float() + scaling * (up.float() @ down.float())


@torch.no_grad()
def merge_adapters(model: "VideoLlama3") -> None:
    """Add each adapter's weights to its layer (in fp32, rounded once) and remove the adapters."""
    from peft.tuners.lora import Linear

    decoder = model.language_model
    for name, layer in list(decoder.named_modules()):
        if isinstance(layer, Linear):
            plain = layer.get_base_layer()
            down, up = layer.lora_A[_ADAPTER].weight.float(), layer.lora_B[_ADAPTER].weight.float()
            plain.weight.copy_(merged(plain.weight, down, up, layer.scaling[_ADAPTER]))
            decoder.set_submodule(name, plain)
