"""Keys and values of a batch of samples of unequal length, without padding on the left.

Shapes: B samples · T packed tokens · L places of the longest row · G key-value heads · H head dim.
"""

from typing import Any

import torch
from torch import Tensor


class RaggedCache:
    """Each sample fills its row from place 0. First all samples at once as one packed row, then a token a row.

    transformers' Qwen2 layers call `update` and attend to what it returns.
    """

    def __init__(self, lengths: list[int], spare_tokens: int, device: torch.device) -> None:
        """Plan rows for samples of the given lengths, each with room for spare_tokens more."""
        self._lengths = lengths
        self._capacity_tokens = max(lengths) + spare_tokens
        self.lengths_B = torch.tensor(lengths, device=device)
        """Tokens that each row holds."""
        self._rows_T = torch.repeat_interleave(torch.arange(len(lengths), device=device), self.lengths_B)
        self._places_T = torch.cat([torch.arange(length, device=device) for length in lengths])
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._is_packed = True

    def update(self, key: Tensor, value: Tensor, layer_index: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer and return those to attend to."""
        if self._is_packed:
            self._layers.append((self._spread(key), self._spread(value)))
            return key, value
        rows = torch.arange(len(self._lengths), device=key.device)
        for stored, new in zip(self._layers[layer_index], (key, value), strict=True):
            stored[rows, :, self.lengths_B] = new[:, :, 0]
        width = self.width
        keys, values = self._layers[layer_index]
        return keys[:, :, :width], values[:, :, :width]

    @property
    def width(self) -> int:
        """Places of the longest row, the token that is being added included."""
        return max(self._lengths) + 1

    @property
    def key_mask_BL(self) -> Tensor:  # noqa: N802 (a tensor's name carries its shape)
        """Which places hold a key of their row, the token that is being added included."""
        return torch.arange(self.width, device=self.lengths_B.device) <= self.lengths_B[:, None]

    def advance(self) -> None:
        """Count the token that every row has received in all layers."""
        self._lengths = [length + 1 for length in self._lengths]
        self.lengths_B = self.lengths_B + 1

    def finish_prefill(self) -> None:
        """From here on each row receives one token at a time."""
        self._is_packed = False

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, in this order."""
        index = torch.tensor(rows, device=self.lengths_B.device)
        self._layers = [(keys[index], values[index]) for keys, values in self._layers]
        self.lengths_B = self.lengths_B[index]
        self._lengths = [self._lengths[row] for row in rows]

    def truncate(self, lengths: list[int]) -> None:
        """Forget what comes after the given number of tokens of each row; causal keys before it stay right."""
        self._lengths = lengths
        self.lengths_B = torch.tensor(lengths, device=self.lengths_B.device)

    def _spread(self, packed_1GTH: Tensor) -> Tensor:
        heads, head_dim = packed_1GTH.shape[1], packed_1GTH.shape[3]
        rows = packed_1GTH.new_zeros((len(self._lengths), heads, self._capacity_tokens, head_dim))
        rows[self._rows_T, :, self._places_T] = packed_1GTH[0].transpose(0, 1)
        return rows
