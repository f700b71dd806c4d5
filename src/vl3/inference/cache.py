"""Keys and values of a batch of samples of unequal length, without padding on the left.

Shapes: B samples · T packed tokens · Q new tokens of a row · L places of the longest row · G key-value heads · H head
dim.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class RaggedCache:
    """Each sample fills its row from place 0. First all samples at once as one packed row, then some tokens a row.

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
        self._num_new = 1

    def update(self, key: Tensor, value: Tensor, layer_index: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer and return those to attend to."""
        if self._is_packed:
            self._layers.append((self._spread(key), self._spread(value)))
            return key, value
        rows_B1 = torch.arange(len(self._lengths), device=key.device)[:, None]
        for stored, new in zip(self._layers[layer_index], (key, value), strict=True):
            stored[rows_B1, :, self.places_BQ] = new.transpose(1, 2)
        width = self.width
        keys, values = self._layers[layer_index]
        return keys[:, :, :width], values[:, :, :width]

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest row."""
        return max(self._lengths)

    @property
    def width(self) -> int:
        """Places of the longest row, the tokens that are being added included."""
        return max(self._lengths) + self._num_new

    @property
    def places_BQ(self) -> Tensor:  # noqa: N802 (a tensor's name carries its shape)
        """Place, which is the position, of each token that is being added."""
        return self.lengths_B[:, None] + torch.arange(self._num_new, device=self.lengths_B.device)

    @property
    def key_mask_BQL(self) -> Tensor:  # noqa: N802
        """Which places hold a key that each token that is being added attends to: its row's up to itself."""
        return torch.arange(self.width, device=self.lengths_B.device) <= self.places_BQ[:, :, None]

    def begin(self, num_new: int) -> None:
        """Make room for tokens that every row is about to receive in all layers."""
        self._num_new = num_new
        missing = self.width - self._capacity_tokens
        if missing > 0:
            missing = max(missing, self._capacity_tokens)  # doubled, so that growing costs a copy now and then
            self._capacity_tokens += missing
            self._layers = [
                (functional.pad(keys, (0, 0, 0, missing)), functional.pad(values, (0, 0, 0, missing)))
                for keys, values in self._layers
            ]

    def advance(self) -> None:
        """Count the tokens that every row has received in all layers."""
        self._lengths = [length + self._num_new for length in self._lengths]
        self.lengths_B = self.lengths_B + self._num_new

    def finish_prefill(self) -> None:
        """From here on each row receives the same number of tokens at a time."""
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
