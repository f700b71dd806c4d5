"""The projector between encoder and decoder: two linear layers with exact GELU between them (`mlp2x_gelu`)."""

import math

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Vision tokens (M, V) to the decoder's width (M, D), each token separately."""

    def __init__(self, vision_size: int, text_size: int) -> None:
        super().__init__()
        self.readout = nn.Sequential(nn.Linear(vision_size, text_size), nn.GELU(), nn.Linear(text_size, text_size))

    def forward(self, features_MV: Tensor) -> Tensor:
        """(M, V) to (M, D)."""
        return self.readout(features_MV)

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Initialise the weights at random: uniform within +-1/sqrt(inputs), the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        for layer in self.readout:
            if not isinstance(layer, nn.Linear):
                continue
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in (layer.weight, layer.bias):
                values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.copy_(values)
