"""Packs: which samples share a row, what the row costs, and which rank computes it."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vl3.errors import ConfigError

OPEN_PACKS = 64
"""Packs that are filled at the same time. More of them waste less room but move samples further from their order."""
MAX_AGE_PACKS = 1024
"""A pack that is still open when so many later ones were opened is closed, so that none stays open for ever."""

PACK = np.dtype(
    [
        ("first_sample", "<u8"),  # its samples are [first_sample, first_sample + num_samples) of the plan
        ("num_samples", "<u4"),
        ("length_tokens", "<u4"),  # tokens of the row, after DiffFP
        ("visual_tokens", "<u4"),  # vision tokens after merging, before DiffFP
        ("patches", "<u4"),  # patches that the encoder sees
        ("length_pairs", "<f8"),  # pairs of tokens of the same sample
        ("patch_pairs", "<f8"),  # pairs of patches of the same picture
    ]
)
"""One row of a step: which samples it has, and its size, from which any model's cost follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Training FLOPs of a row: 6 per trained parameter and token, plus attention.

    A frozen part costs less: 4 if gradients pass through it (its own are not computed), 2 if it runs forward alone.
    With a frozen decoder and a trained encoder, as in stage 1, rows with many patches count for more.

    Attention takes 12 x layers x width FLOPs per pair of tokens, of which the causal decoder computes half. The
    defaults are the sizes of VideoLLaMA3-2B; only ratios matter for distributing rows over ranks.
    """

    decoder_parameters: float = 1.54e9
    decoder_layers: int = 28
    decoder_width: int = 1536
    encoder_parameters: float = 0.41e9
    encoder_layers: int = 27
    encoder_width: int = 1152
    decoder_passes: int = 6
    """FLOPs per parameter and token of the decoder: 6, or 4 if it is frozen."""
    encoder_passes: int = 6
    """The same of the encoder: 6, or 2 if it is frozen, because nothing is trained below it."""

    def costs(self, packs: np.ndarray) -> np.ndarray:
        """GFLOP of each pack, float64 (packs,)."""
        flop = packs["length_tokens"] * (self.decoder_passes * self.decoder_parameters)
        flop = flop + packs["length_pairs"] * (6 * self.decoder_layers * self.decoder_width)
        flop = flop + packs["patches"] * (self.encoder_passes * self.encoder_parameters)
        flop = flop + packs["patch_pairs"] * (2 * self.encoder_passes * self.encoder_layers * self.encoder_width)
        return flop / 1e9


class Packer:
    """Assigns a stream of samples to packs with two limits; packs are numbered in the order in which they are opened.

    Best fit over OPEN_PACKS packs: a sample goes where the least of the first limit is left over, if the second one
    allows. If no open pack has room and no more may be opened, the fullest is closed. The first limit should be the
    one that binds: then the packs are sorted by what counts.

    Two open packs of 10 tokens, samples of 6, 3, 5 and 8 tokens:

        6 opens pack 0 (room 4), 3 fits too (room 1), 5 does not: it opens pack 1 (room 5)
        8 fits neither: pack 0 is the fullest and is closed; 8 opens pack 2

    The open packs are one sorted list of integers, in which bisection finds the tightest fit. An integer has the room
    of the first limit in its highest bits, then the room of the second, then the number of the pack: a sample's two
    sizes in the same places are subtracted in one go. With one decimal digit for each, pack 7 with rooms 5 and 9 is
    597, and a sample of 2 and 3 (230) leaves 367.
    """

    _NUMBER_BITS = 32
    _ROOM_BITS = 30

    def __init__(self, first_limit: int, second_limit: int) -> None:
        """Start without packs. Limits and sizes are below 2**30, as every Count of a configuration is."""
        self._empty = (first_limit << self._ROOM_BITS | second_limit) << self._NUMBER_BITS
        self._rooms: list[int] = []
        self._opened: dict[int, None] = {}
        self._next = 0

    @property
    def num_packs(self) -> int:
        """Packs opened so far."""
        return self._next

    @property
    def num_final(self) -> int:
        """The packs before this number are closed."""
        return next(iter(self._opened), self._next)

    def place(self, first_sizes: np.ndarray, second_sizes: np.ndarray) -> np.ndarray:
        """The pack of each sample, int64 (samples,). No sample is larger than the limits."""
        rooms, second_shift = self._rooms, self._NUMBER_BITS
        second_mask, number_mask = (1 << self._ROOM_BITS) - 1, (1 << self._NUMBER_BITS) - 1
        needs = (first_sizes.astype(np.int64) << self._ROOM_BITS) | second_sizes
        numbers = []
        for both, second in zip(needs.tolist(), second_sizes.tolist(), strict=True):
            need = both << second_shift
            position = bisect_left(rooms, need)  # the first pack with room for both, or for the first alone
            while position < len(rooms) and rooms[position] >> second_shift & second_mask < second:
                position += 1
            room = (rooms.pop(position) if position < len(rooms) else self._open()) - need
            numbers.append(room & number_mask)
            insort(rooms, room)
        return np.array(numbers, dtype=np.int64)

    def _open(self) -> int:
        """The room of a new pack; closes another one if there are too many."""
        if len(self._rooms) == OPEN_PACKS:
            self._close()
        number = self._next
        self._opened[number] = None
        self._next += 1
        return self._empty | number

    def _close(self) -> None:
        number_mask = (1 << self._NUMBER_BITS) - 1
        oldest = self.num_final
        position = 0
        if oldest < self._next - MAX_AGE_PACKS:
            position = next(at for at, room in enumerate(self._rooms) if room & number_mask == oldest)
        del self._opened[self._rooms.pop(position) & number_mask]


def pack_table(numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The packs, PACK (packs,), of samples in the order of their packs.

    Args:
        numbers: pack of each sample, rising from 0 without a gap, int64 (samples,).
        sizes: vl3.data.plan.samples.SIZE (samples,).
    """
    counts = np.bincount(numbers)
    packs = np.zeros(len(counts), dtype=PACK)
    packs["num_samples"] = counts
    packs["first_sample"] = np.cumsum(counts) - counts
    for name in ("length_tokens", "visual_tokens", "patches", "patch_pairs"):
        packs[name] = np.bincount(numbers, sizes[name])
    packs["length_pairs"] = np.bincount(numbers, sizes["length_tokens"].astype(np.float64) ** 2)
    return packs


def deal_packs(costs: Sequence[float], world_size: int) -> list[list[int]]:
    """The packs of each rank, by their positions: the same number for each rank, and about the same cost.

    The costliest pack comes first; each goes to the rank with the lowest cost so far that still has a free place. So
    the packs that the ranks compute at the same time also have similar costs.

    Costs 4, 9, 2, 5 over two ranks: 9 to rank 0, 5 and 4 to rank 1 (now full), 2 to rank 0. Totals 11 and 9.

    Raises:
        ConfigError: the number of packs is not a multiple of the world size.
    """
    check_world_size(len(costs), world_size)
    hands: list[list[int]] = [[] for _ in range(world_size)]
    open_ranks = [(0.0, rank) for rank in range(world_size)]
    for position in sorted(range(len(costs)), key=lambda position: -costs[position]):
        total, rank = heapq.heappop(open_ranks)
        hands[rank].append(position)
        if len(hands[rank]) < len(costs) // world_size:
            heapq.heappush(open_ranks, (total + costs[position], rank))
    return hands


def check_world_size(packs_per_step: int, world_size: int) -> None:
    """Raise ConfigError unless each rank gets the same number of the packs of a step."""
    if packs_per_step % world_size:
        raise ConfigError(
            f"packs_per_step={packs_per_step} is not divisible by the world size {world_size}. Some ranks would have "
            f"fewer packs and wait in every step. Use a multiple of {world_size}."
        )
