"""Packs: which samples share a row, what the row costs, and which rank computes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vl3.data.build.index import DatasetIndex
from vl3.data.sample.prepare import PrepareSettings
from vl3.errors import ConfigError

OPEN_PACKS = 32
"""Packs that are filled at the same time. More of them waste less room but move samples further from their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The samples that will make one row, as row numbers of the index, and their size."""

    rows: tuple[int, ...]
    length_tokens: int
    """Tokens of the row, after DiffFP."""
    visual_tokens: int
    """Vision tokens of the row after merging, before DiffFP."""
    cost: float
    """Relative cost of a training step on the row (GFLOP under the cost model)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Training FLOPs of a sample: 6 per parameter and token, plus attention.

    Attention takes 12 x layers x width FLOPs per pair of tokens, of which the causal decoder computes half. The
    defaults are the sizes of VideoLLaMA3-2B; only ratios matter for distributing rows over ranks.
    """

    decoder_parameters: float = 1.54e9
    decoder_layers: int = 28
    decoder_width: int = 1536
    encoder_parameters: float = 0.41e9
    encoder_layers: int = 27
    encoder_width: int = 1152

    def sample_costs(self, index: DatasetIndex, settings: PrepareSettings) -> np.ndarray:
        """GFLOP of each row of the index, float (rows,)."""
        length = index.length_tokens(settings).astype(np.float64)
        cost = length * (6 * self.decoder_parameters + 6 * self.decoder_layers * self.decoder_width * length)
        seen = "kept_tokens" if settings.difffp and settings.data.prune_before_encoder else "video_tokens"
        for tokens, pictures, merge in (
            (f"image_tokens_m{settings.image_merge_size}", "num_images", settings.image_merge_size),
            (f"{seen}_m{settings.video_merge_size}", "num_frames", settings.video_merge_size),
        ):
            patches = index.column(tokens).astype(np.float64) * merge**2
            per_picture = patches / np.maximum(index.column(pictures), 1)
            pair = 12 * self.encoder_layers * self.encoder_width * per_picture
            cost += patches * (6 * self.encoder_parameters + pair)
        return cost / 1e9


class Packer:
    """Fills packs from a stream of samples: best fit over OPEN_PACKS packs; if none fits, the fullest is closed.

    Two open packs of 10 tokens, samples of 6, 3, 5 and 8 tokens:

        6 goes into the first pack (room 4), 3 too (room 1, the tighter fit), 5 into the second (room 5)
        8 fits neither: the first pack, 6 + 3, is the fullest and is closed; 8 starts a new one in its place
    """

    def __init__(self, *, max_length_tokens: int, max_visual_tokens: int) -> None:
        """Start with empty packs of the given limits."""
        self._limits = np.array([max_length_tokens, max_visual_tokens], dtype=np.int64)
        self._room = np.tile(self._limits, (OPEN_PACKS, 1))
        self._members: list[list[tuple[int, int]]] = [[] for _ in range(OPEN_PACKS)]

    def add(self, row: int, kind: int, length_tokens: int, visual_tokens: int) -> list[tuple[int, int]] | None:
        """Place a sample. Returns the (row, kind) members of the pack that had to be closed for it, or None."""
        need = np.array([length_tokens, visual_tokens], dtype=np.int64)
        fits = np.flatnonzero((self._room >= need).all(axis=1))
        closed = None
        if len(fits):
            place = int(fits[self._room[fits, 0].argmin()])
        else:
            place = int((self._room / self._limits).min(axis=1).argmin())
            closed, self._members[place] = self._members[place], []
            self._room[place] = self._limits
        self._members[place].append((row, kind))
        self._room[place] -= need
        return closed


def deal_packs(packs: Sequence[Pack], rank: int, world_size: int) -> list[Pack]:
    """The packs of one rank: the same number for each rank, and about the same cost.

    The costliest pack comes first; each goes to the rank with the lowest cost so far that still has a free place. So
    the packs that the ranks compute at the same time also have similar costs.

    Costs 4, 9, 2, 5 over two ranks: 9 to rank 0, 5 and 4 to rank 1 (now full), 2 to rank 0. Totals 11 and 9.

    Raises:
        ConfigError: the number of packs is not a multiple of the world size.
    """
    if len(packs) % world_size:
        raise ConfigError(
            f"packs_per_step={len(packs)} is not divisible by the world size {world_size}. Some ranks would have fewer "
            f"packs and wait in every step. Use a multiple of {world_size}."
        )
    costs = [0.0] * world_size
    hands: list[list[Pack]] = [[] for _ in range(world_size)]
    for pack in sorted(packs, key=lambda pack: -pack.cost):
        open_ranks = [r for r in range(world_size) if len(hands[r]) < len(packs) // world_size]
        cheapest = min(open_ranks, key=lambda r: costs[r])
        hands[cheapest].append(pack)
        costs[cheapest] += pack.cost
    return hands[rank]
