"""Keys and values of sequences that come and go: each has a row, and a row that is free takes the next sequence.

Shapes: R rows · S rows in use · T packed tokens · L places of a row · G key-value heads · H head dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """Keys and values of the first tokens of a sequence."""

    length: int
    """Number of tokens."""
    layers: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values (G, L, H) of each layer."""


class SlotCache:
    """Rows of keys and values; a packed pass fills free rows, and steps add one token to each row in use.

    The decoder's layers call `update` and attend to what it returns. A row that is not in use has the length 0: its
    token stands at place 0, attends to itself, and nobody reads what comes of it.

    Three rows, of which the middle one is free; a packed pass of a sequence d e fills it, then a step adds x y z:

        a b c . .        a b c . .        a b c x .      lengths 3 0 1 -> 3 2 1 -> 4 3 2
        . . . . .   ->   d e . . .   ->   d e y . .
        f . . . .        f . . . .        f z . . .
    """

    def __init__(self, device: torch.device) -> None:
        """No rows yet: `reserve` makes them."""
        self._device = device
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows_T: Tensor | None = None
        self._places_T: Tensor | None = None
        self._num_used = 0
        self._width = 0
        self.lengths: list[int] = []
        """Tokens of each row; 0 for a free one."""
        self.capacity_tokens = 0
        """Places of each row."""
        self.places_S1 = torch.empty(0, 1, dtype=torch.long, device=device)
        """Place of the token that each row in use gets, which is also its position."""
        self.key_mask_S1L = torch.empty(0, 1, 0, dtype=torch.bool, device=device)
        """The places to which each row's token attends: all up to its own."""

    @property
    def free_rows(self) -> list[int]:
        """Rows without a sequence, the first ones first."""
        return [row for row, length in enumerate(self.lengths) if not length]

    def reserve(self, rows: int, capacity_tokens: int) -> None:
        """Have so many rows of so many places; sequences keep their rows, of which there must be no fewer."""
        if (rows, capacity_tokens) == (len(self.lengths), self.capacity_tokens):
            return
        kept_rows, kept_places = min(rows, len(self.lengths)), min(capacity_tokens, self.capacity_tokens)
        sizes = (rows, capacity_tokens, kept_rows, kept_places)
        self._layers = [(_resized(keys, *sizes), _resized(values, *sizes)) for keys, values in self._layers]
        self.lengths = (self.lengths + [0] * rows)[:rows]
        self.capacity_tokens = capacity_tokens

    def begin_packed(self, rows: list[int], lengths: list[int]) -> None:
        """The next pass has sequences of these lengths end to end, which go to these free rows."""
        for row, length in zip(rows, lengths, strict=True):
            self.lengths[row] = length
        device, sizes = self._device, torch.tensor(lengths)
        self._rows_T = torch.repeat_interleave(torch.tensor(rows), sizes).to(device)
        self._places_T = torch.cat([torch.arange(length) for length in lengths]).to(device)

    def begin_step(self) -> None:
        """The next pass has one token of each row up to the last one in use."""
        self._rows_T = self._places_T = None
        self._num_used = max(row for row, length in enumerate(self.lengths) if length) + 1
        self._width = max(self.lengths) + 1
        self.places_S1 = torch.tensor(self.lengths[: self._num_used], device=self._device)[:, None]
        self.key_mask_S1L = torch.arange(self._width, device=self._device) <= self.places_S1[:, :, None]

    def advance(self) -> None:
        """Count the tokens of a step; call it after the layers have called `update`."""
        self.lengths = [length + 1 if length else 0 for length in self.lengths]

    def begin_of(self, row: int, length: int) -> "Beginning":
        """A copy of the first tokens of a row."""
        layers = tuple(
            (keys[row, :, :length].clone(), values[row, :, :length].clone()) for keys, values in self._layers
        )
        return Beginning(length=length, layers=layers)

    def restore(self, row: int, beginning: "Beginning") -> None:
        """Begin a free row with tokens that another one began with."""
        self.lengths[row] = beginning.length
        for layer, kept in zip(self._layers, beginning.layers, strict=True):
            for stored, values in zip(layer, kept, strict=True):
                stored[row, :, : beginning.length] = values

    def release(self, row: int) -> None:
        """The row is free."""
        self.lengths[row] = 0

    def move(self, moves: dict[int, int]) -> None:
        """Move sequences from rows to free rows, so that those in use stand in front: {5: 1} moves row 5 to row 1."""
        if not moves:
            return
        sources, targets = (torch.tensor(list(rows), device=self._device) for rows in (moves.keys(), moves.values()))
        width = max(self.lengths[row] for row in moves)
        for layer in self._layers:
            for stored in layer:
                stored[targets, :, :width] = stored[sources, :, :width]
        for source, target in moves.items():
            self.lengths[target], self.lengths[source] = self.lengths[source], 0

    def update(self, key: Tensor, value: Tensor, layer_index: int) -> tuple[Tensor, Tensor]:
        """Store new keys and values of a layer, packed (1, G, T, H) or of a step (S, G, 1, H).

        Returns:
            All that the new tokens may attend to; of a packed pass what was given, because its sequences begin in it.
        """
        if self._rows_T is not None:
            if layer_index == len(self._layers):
                shape = (len(self.lengths), key.shape[1], self.capacity_tokens, key.shape[3])
                self._layers.append((key.new_zeros(shape), value.new_zeros(shape)))
            for stored, new in zip(self._layers[layer_index], (key, value), strict=True):
                stored[self._rows_T, :, self._places_T] = new[0].transpose(0, 1)
            return key, value
        keys, values = self._layers[layer_index]
        rows_S = torch.arange(self._num_used, device=self._device)
        places_S = self.places_S1[:, 0]
        keys[rows_S, :, places_S] = key[:, :, 0]
        values[rows_S, :, places_S] = value[:, :, 0]
        return keys[: self._num_used, :, : self._width], values[: self._num_used, :, : self._width]


def _resized(stored: Tensor, rows: int, capacity_tokens: int, kept_rows: int, kept_places: int) -> Tensor:
    """Rows of another number and size with the same beginning."""
    larger = stored.new_zeros((rows, stored.shape[1], capacity_tokens, stored.shape[3]))
    larger[:kept_rows, :, :kept_places] = stored[:kept_rows, :, :kept_places]
    return larger
