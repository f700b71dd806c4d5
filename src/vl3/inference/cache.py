"""Keys and values of a batch of samples of unequal length, without padding on the left.

Shapes: B samples · T packed tokens · Q new tokens of a row · L places of the longest row · G key-value heads · H head
dim.
"""

import torch
from torch import Tensor
from torch.nn import functional


class RaggedCache:
    """Each sample fills its row from place 0: first all samples at once as one packed row, then a few tokens per row.

    The decoder's layers call `update` and attend to what it returns.

    Samples of 3 and 1 tokens and one new token each (letters are keys, dots are empty places):

        after the packed pass   a b c . .     new tokens go to the places 3 and 1   a b c x .
                                d . . . .     (places_BQ)                           d y . . .
        key_mask_BQL            1 1 1 1       the second row's token sees d and itself
                                1 1 0 0
    """

    def __init__(self, lengths: list[int], spare_tokens: int, device: torch.device) -> None:
        """Make rows for samples of the given lengths, with room for spare_tokens more than the longest."""
        self._lengths = lengths
        self._capacity_tokens = max(lengths) + spare_tokens
        self.lengths_B = torch.tensor(lengths, device=device)
        """Number of tokens in each row."""
        self._rows_T = torch.repeat_interleave(torch.arange(len(lengths), device=device), self.lengths_B)
        self._places_T = torch.cat([torch.arange(length, device=device) for length in lengths])
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._is_packed = True
        self._num_new = 1

    def update(self, key: Tensor, value: Tensor, layer_index: int) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer and return all that the new tokens may attend to."""
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
        """Number of tokens of the longest row."""
        return max(self._lengths)

    @property
    def width(self) -> int:
        """Places of the longest row, including the tokens that are being added."""
        return max(self._lengths) + self._num_new

    @property
    def places_BQ(self) -> Tensor:  # noqa: N802 (a tensor's name carries its shape)
        """Place of each token that is being added, which is also its position."""
        return self.lengths_B[:, None] + torch.arange(self._num_new, device=self.lengths_B.device)

    @property
    def key_mask_BQL(self) -> Tensor:  # noqa: N802
        """The places to which each token that is being added attends: its own row up to and including itself."""
        return torch.arange(self.width, device=self.lengths_B.device) <= self.places_BQ[:, :, None]

    def begin(self, num_new: int) -> None:
        """Make room for `num_new` tokens in every row; call it before the layers call `update`."""
        self._num_new = num_new
        missing = self.width - self._capacity_tokens
        if missing > 0:
            missing = max(missing, self._capacity_tokens)  # at least double it, so that copies are rare
            self._capacity_tokens += missing
            self._layers = [
                (functional.pad(keys, (0, 0, 0, missing)), functional.pad(values, (0, 0, 0, missing)))
                for keys, values in self._layers
            ]

    def advance(self) -> None:
        """Count the new tokens; call it after the layers have called `update`."""
        self._lengths = [length + self._num_new for length in self._lengths]
        self.lengths_B = self.lengths_B + self._num_new

    def finish_prefill(self) -> None:
        """End the packed pass; from now on each row receives the same number of tokens at a time."""
        self._is_packed = False

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, in the given order."""
        index = torch.tensor(rows, device=self.lengths_B.device)
        self._layers = [(keys[index], values[index]) for keys, values in self._layers]
        self.lengths_B = self.lengths_B[index]
        self._lengths = [self._lengths[row] for row in rows]

    def truncate(self, lengths: list[int]) -> None:
        """Drop everything after the given number of tokens of each row. Causal keys before it stay valid."""
        self._lengths = lengths
        self.lengths_B = torch.tensor(lengths, device=self.lengths_B.device)

    def _spread(self, packed_1GTH: Tensor) -> Tensor:
        heads, head_dim = packed_1GTH.shape[1], packed_1GTH.shape[3]
        rows = packed_1GTH.new_zeros((len(self._lengths), heads, self._capacity_tokens, head_dim))
        rows[self._rows_T, :, self._places_T] = packed_1GTH[0].transpose(0, 1)
        return rows
