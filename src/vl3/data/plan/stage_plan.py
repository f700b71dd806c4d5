"""A written plan, read at any step in a moment: by ranks of any world size, each for itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vl3.data.build.shards import ShardSpan
from vl3.data.plan.arrays import FlatArray
from vl3.data.plan.facts import DRAWN, PACKS, PLAN_NAME, SAMPLES, PlanFacts, read_facts
from vl3.data.plan.packing import PACK, CostModel, check_world_size, deal_packs
from vl3.data.plan.samples import MAX_BYTES, SAMPLE
from vl3.errors import ConfigError, DataError

_CHUNK = 1 << 17
"""Items that are in memory at once when a whole array is searched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSample:
    """Where a sample is."""

    dataset: int
    """Which of the plan's datasets."""
    row: int
    """Row of the dataset's index."""
    span: ShardSpan
    """Its bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """The samples that make one row, and what the row costs."""

    samples: tuple[PlannedSample, ...]
    length_tokens: int
    """Tokens of the row, after DiffFP."""
    visual_tokens: int
    """Vision tokens of the row after merging, before DiffFP."""
    cost: float
    """Relative cost of a training step on the row (GFLOP under the cost model)."""


class StagePlan:
    """The plan of a stage. Only what a step needs is read, and nothing is kept but one block of each array."""

    def __init__(self, folder: Path, *, cost_model: CostModel | None = None) -> None:
        """Open a plan.

        Args:
            folder: what vl3.data.plan.planner.plan_stage wrote.
            cost_model: what a row costs, the same for every rank; by default that of VideoLLaMA3-2B.

        Raises:
            DataError: it is no complete plan, or a file is not the one that was written.
        """
        self.facts: PlanFacts = read_facts(folder / PLAN_NAME)
        self._folder = folder
        self._cost_model = cost_model or CostModel()
        self._arrays: list[FlatArray] = []
        num_packs, num_kinds = self.facts.steps * self.facts.packs_per_step, len(self.facts.kinds)
        self._samples = self._open(SAMPLES, SAMPLE, self.facts.samples)
        self._packs = self._open(PACKS, PACK, num_packs)
        self._drawn = self._open(DRAWN, np.dtype("<u8"), (self.facts.steps + 1) * num_kinds)

    def __enter__(self) -> "StagePlan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return self.facts.steps

    @property
    def packs_per_step(self) -> int:
        """Rows of a step over all ranks."""
        return self.facts.packs_per_step

    def close(self) -> None:
        """Close the plan's files."""
        for array in self._arrays:
            array.close()

    def check(self, *, world_size: int, index_sha256: tuple[str, ...]) -> None:
        """Check before training that the plan is one for these ranks and these datasets.

        Raises:
            ConfigError: its packs cannot be dealt evenly to the ranks.
            DataError: it was made from other indexes.
        """
        check_world_size(self.packs_per_step, world_size)
        made_from = tuple(one.index_sha256 for one in self.facts.datasets)
        if made_from != index_sha256:
            raise DataError(
                f"{self._folder / PLAN_NAME} was made from other indexes ({_short(made_from)}) than those of the "
                f"stage's datasets ({_short(index_sha256)}), so its rows would be other samples. Plan the stage again."
            )

    def packs(self, step: int) -> list[Pack]:
        """The packs of one step, over all ranks.

        Raises:
            ConfigError: the stage has no such step.
            DataError: the plan is damaged.
        """
        return self._read(*self._table(step))

    def table(self, step: int) -> np.ndarray:
        """The rows of one step as they are stored, vl3.data.plan.packing.PACK (packs,).

        Raises:
            ConfigError: the stage has no such step.
            DataError: the plan is damaged.
        """
        return self._table(step)[0]

    def deal(self, step: int, rank: int, world_size: int) -> list[Pack]:
        """The packs of one step that a rank computes: the same number for each rank, balanced by cost.

        Raises:
            ConfigError: the packs of a step cannot be dealt evenly, or the stage has no such step.
            DataError: the plan is damaged.
        """
        table, costs = self._table(step)
        mine = deal_packs(costs.tolist(), world_size)[rank]
        return self._read(table[mine], costs[mine])

    def places_of(self, index_sha256: str, rows: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
        """Where some samples of a dataset fall: for each index row its (step, row of the step), in order.

        Args:
            index_sha256: SHA-256 (hex) of the dataset's index.
            rows: rows of that index; one that the plan does not draw has no place.

        Raises:
            DataError: the plan was made from other datasets, or is damaged.
        """
        made_from = [one.index_sha256 for one in self.facts.datasets]
        if index_sha256 not in made_from:
            raise DataError(
                f"{self._folder / PLAN_NAME} was made from other datasets ({_short(tuple(made_from))}) than this one "
                f"({index_sha256[:12]}). Give its own plan."
            )
        num_packs = self.steps * self.packs_per_step
        first_samples = np.concatenate(
            [self._packs.read(first, min(first + _CHUNK, num_packs))["first_sample"] for first in _chunks(num_packs)]
        )
        places: dict[int, list[tuple[int, int]]] = {row: [] for row in rows}
        for first in _chunks(len(self._samples)):
            samples = self._samples.read(first, min(first + _CHUNK, len(self._samples)))
            is_wanted = (samples["dataset"] == made_from.index(index_sha256)) & np.isin(samples["row"], rows)
            for place in np.flatnonzero(is_wanted).tolist():
                pack = int(np.searchsorted(first_samples, first + place, side="right")) - 1
                places[int(samples["row"][place])].append(divmod(pack, self.packs_per_step))
        return places

    def mixture_drawn(self, up_to_step: int) -> dict[str, int]:
        """Number of samples of each kind of the mixture in the steps before `up_to_step`.

        Raises:
            DataError: the plan is damaged.
        """
        width = len(self.facts.kinds)
        sums = self._drawn.read(up_to_step * width, (up_to_step + 1) * width).tolist()
        return {kind.key: drawn for kind, drawn in zip(self.facts.kinds, sums, strict=True)}

    def _open(self, name: str, dtype: np.dtype, items: int) -> FlatArray:
        facts = self.facts.arrays.get(name)
        if facts is None or facts.items != items:
            self.close()
            raise DataError(
                f"{self._folder / PLAN_NAME} is damaged: it has {facts.items if facts else 'no'} items of {name}, and "
                f"its steps need {items}. Plan the stage again."
            )
        try:
            array = FlatArray(self._folder / f"{name}.npy", dtype, facts)
        except DataError:
            self.close()
            raise
        self._arrays.append(array)
        return array

    def _table(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """PACK (packs of the step,) and the cost of each."""
        if not 0 <= step < self.steps:
            raise ConfigError(f"the stage has no step {step}: it has {self.steps} steps, 0 to {self.steps - 1}.")
        table = self._packs.read(step * self.packs_per_step, (step + 1) * self.packs_per_step)
        return table, self._cost_model.costs(table)

    def _read(self, table: np.ndarray, costs: np.ndarray) -> list[Pack]:
        packs = []
        for row, cost in zip(table, costs.tolist(), strict=True):
            first = int(row["first_sample"])
            samples = self._samples.read(first, first + int(row["num_samples"]))
            packs.append(
                Pack(
                    samples=tuple(self._sample(sample) for sample in samples),
                    length_tokens=int(row["length_tokens"]),
                    visual_tokens=int(row["visual_tokens"]),
                    cost=cost,
                )
            )
        return packs

    def _sample(self, sample: np.ndarray) -> PlannedSample:
        dataset, shard = int(sample["dataset"]), int(sample["shard"])
        offset_bytes, length_bytes, datasets = (
            int(sample["offset_bytes"]),
            int(sample["length_bytes"]),
            self.facts.datasets,
        )
        is_known = dataset < len(datasets) and shard < len(datasets[dataset].shards)
        if not is_known or max(offset_bytes, length_bytes) > MAX_BYTES:
            raise DataError(
                f"{self._folder / SAMPLES}.npy names {length_bytes} bytes from {offset_bytes} on of shard {shard} of "
                f"dataset {dataset}, which the plan's datasets do not have. Plan the stage again."
            )
        span = ShardSpan(
            shard=datasets[dataset].shards[shard],
            offset_bytes=offset_bytes,
            length_bytes=length_bytes,
            sha256=bytes(sample["sha256"]).hex(),
        )
        return PlannedSample(dataset=dataset, row=int(sample["row"]), span=span)


def _chunks(count: int) -> range:
    return range(0, count, _CHUNK)


def _short(digests: tuple[str, ...]) -> str:
    return ", ".join(one[:12] for one in digests)
