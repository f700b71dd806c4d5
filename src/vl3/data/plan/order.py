"""The order of samples as a pure function of the index, the mixture and the seed.

Every rank computes the same global sequence of packs without communicating. Step k takes packs [k * G, (k + 1) * G),
so the state of the data is one step number, at any world size. With G = 4, step 2 takes the packs 8, 9, 10 and 11: two
each for two ranks, one each for four.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from vl3.data.build.index import DatasetIndex
from vl3.data.plan.mixture import MixtureKind, MixtureWalk, resolve_mixture
from vl3.data.plan.packing import CostModel, Pack, Packer, deal_packs
from vl3.data.sample.prepare import PrepareSettings
from vl3.errors import ConfigError

_NAMED_SAMPLES = 3


def plan_stage(
    index: DatasetIndex,
    *,
    mixture: Mapping[str, float],
    seed: int,
    steps: int,
    packs_per_step: int,
    max_length_tokens: int,
    visual_budget_tokens: int,
    settings: PrepareSettings,
    cost_model: CostModel | None = None,
) -> "StagePlan":
    """Plan the packs of a stage from the usable training samples of a dataset.

    Args:
        index: the dataset.
        mixture: weight by `category` or `category:source`.
        seed: seed of the order.
        steps: optimizer steps of the stage.
        packs_per_step: packs of one step, over all ranks.
        max_length_tokens: maximum number of tokens of a row.
        visual_budget_tokens: maximum number of vision tokens of a row, before DiffFP.
        settings: merges and DiffFP, which decide the lengths.
        cost_model: what a row costs; by default that of VideoLLaMA3-2B.

    Raises:
        DataError: no sample fits the mixture and the limits.
    """
    lengths, visual = index.length_tokens(settings), index.visual_tokens(settings)
    usable = index.usable_rows("train")
    # A sample that no row can hold would never be packed; it is left out here, by name.
    fits = (lengths[usable] <= max_length_tokens) & (visual[usable] <= visual_budget_tokens)
    kinds, notes = resolve_mixture(index, mixture, usable[fits])
    if not fits.all():
        names = index.column("sample_id")[usable[~fits]]
        notes.append(
            f"{len(names)} sample(s) have more than {max_length_tokens} tokens or {visual_budget_tokens} vision tokens "
            f"with this stage's settings and are left out: {', '.join(names[:_NAMED_SAMPLES])}"
            + (", ..." if len(names) > _NAMED_SAMPLES else "")
        )
    return StagePlan(
        kinds=kinds,
        notes=notes,
        seed=seed,
        steps=steps,
        packs_per_step=packs_per_step,
        lengths=lengths,
        visual=visual,
        costs=(cost_model or CostModel()).sample_costs(index, settings),
        packer=Packer(max_length_tokens=max_length_tokens, max_visual_tokens=visual_budget_tokens),
    )


class StagePlan:
    """The packs of a stage, computed on demand. Made by `plan_stage`."""

    def __init__(
        self,
        *,
        kinds: list[MixtureKind],
        notes: list[str],
        seed: int,
        steps: int,
        packs_per_step: int,
        lengths: np.ndarray,
        visual: np.ndarray,
        costs: np.ndarray,
        packer: Packer,
    ) -> None:
        """Take the parts that `plan_stage` prepared."""
        self.steps = steps
        self.packs_per_step = packs_per_step
        self.mixture_notes = notes
        """One sentence for each thing that the mixture asks for and the dataset does not have."""
        self.mixture_asked = {kind.key: kind.share for kind in kinds}
        """Share of each kind, after the weight of missing kinds was spread; they sum to 1."""
        self._kinds = kinds
        self._walk = MixtureWalk(kinds, seed)
        self._lengths, self._visual, self._costs = lengths, visual, costs
        self._packer = packer
        self._packs: list[Pack] = []
        self._pack_kinds: list[list[int]] = []
        self._next_chunk = 0

    def packs(self, step: int) -> list[Pack]:
        """The packs of one step, over all ranks.

        Raises:
            ConfigError: the stage has no such step.
        """
        if not 0 <= step < self.steps:
            raise ConfigError(f"the stage has no step {step}: it has {self.steps} steps, 0 to {self.steps - 1}.")
        first, last = step * self.packs_per_step, (step + 1) * self.packs_per_step
        self._extend(last)
        return self._packs[first:last]

    def deal(self, step: int, rank: int, world_size: int) -> list[Pack]:
        """The packs of one step that a rank computes: the same number for each rank, balanced by cost.

        Raises:
            ConfigError: the packs of a step cannot be dealt evenly, or the stage has no such step.
        """
        return deal_packs(self.packs(step), rank, world_size)

    def mixture_drawn(self, up_to_step: int) -> dict[str, int]:
        """Number of samples of each kind of the mixture in the steps before `up_to_step`."""
        if up_to_step > 0:
            self.packs(up_to_step - 1)
        drawn: Counter[int] = Counter()
        for kinds in self._pack_kinds[: up_to_step * self.packs_per_step]:
            drawn.update(kinds)
        return {kind.key: drawn[position] for position, kind in enumerate(self._kinds)}

    def _extend(self, num_packs: int) -> None:
        """Draw chunk after chunk until there are enough packs."""
        while len(self._packs) < num_packs:
            rows, kinds = self._walk.chunk(self._next_chunk)
            self._next_chunk += 1
            lengths, visual = self._lengths[rows], self._visual[rows]
            for sample in zip(rows.tolist(), kinds.tolist(), lengths.tolist(), visual.tolist(), strict=True):
                closed = self._packer.add(*sample)
                if closed is not None:
                    self._append(closed)

    def _append(self, members: list[tuple[int, int]]) -> None:
        rows = [row for row, _ in members]
        self._packs.append(
            Pack(
                rows=tuple(rows),
                length_tokens=int(self._lengths[rows].sum()),
                visual_tokens=int(self._visual[rows].sum()),
                cost=float(self._costs[rows].sum()),
            )
        )
        self._pack_kinds.append([kind for _, kind in members])
