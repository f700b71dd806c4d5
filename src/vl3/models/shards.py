"""The part of each parameter that a rank owns, and reading it from a file.

DeepSpeed's ZeRO-3 lays a parameter out flat, pads it to a multiple of the ranks and gives each rank one piece. A
parameter of shape (2, 5), 10 values, on 4 ranks: pieces of 3, the file's values

    rank 0: 0 1 2    rank 1: 3 4 5    rank 2: 6 7 8    rank 3: 9 and two zeros of padding
"""

from dataclasses import dataclass

from torch import Tensor

from vl3.models.unread import Source


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the ranks' shares of a model."""

    rank: int
    """The rank that owns it, from 0."""
    ranks: int
    """Number of ranks among which each parameter is divided."""

    def size(self, num_values: int) -> int:
        """Number of values in each piece of a parameter, padding included."""
        return -(-num_values // self.ranks)

    def values(self, num_values: int) -> range:
        """Which values of a parameter this rank owns; empty if the ranks before it own all of them."""
        size = self.size(num_values)
        first = min(self.rank * size, num_values)
        return range(first, min(first + size, num_values))


def read_share(source: Source, share: Share, out_N: Tensor) -> None:
    """Fill a rank's flat piece of a parameter; only these values are read from the file, and padding is zero.

    Raises:
        StorageError: the file cannot be read, or has become shorter.
    """
    owned = share.values(source.num_values)
    out_N[len(owned) :].zero_()
    source.read_into(out_N[: len(owned)], owned.start)
