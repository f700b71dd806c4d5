"""The plan of a stage: which samples make which row of which step, computed once and written as flat arrays.

A plan is a pure function of what it is asked and of the indexes that it reads. It knows nothing of ranks: step k has
the packs [k * G, (k + 1) * G), so the state of the data is one step number, at any world size. With G = 4, step 2 has
the packs 8, 9, 10 and 11: two each for two ranks, one each for four.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vl3.data.build.index import read_row
from vl3.data.plan.arrays import ArrayFacts, ArrayWriter
from vl3.data.plan.facts import DRAWN, PACKS, SAMPLES, BalanceFacts, FillFacts, KindFacts, PlanFacts
from vl3.data.plan.mixture import MixtureKind, MixtureWalk, resolve_mixture
from vl3.data.plan.packing import CostModel, Packer, deal_packs, pack_table
from vl3.data.plan.samples import SAMPLE, SampleTable, SizeRule, read_samples
from vl3.errors import DataError

_PROBE_SAMPLES = 1 << 17
"""Samples that are packed to learn how many make a pack, where the number of steps is given."""
_WRITTEN_SAMPLES = 1 << 18
"""Samples written at once."""
_SIMULATED_STEPS = 128
_SIMULATED_RANKS = (2, 4, 8, 16, 32, 64)
_NAMED_SAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What a plan is made for. Of `steps` and `epochs` one is set, and of `packs_per_step` and `samples_per_step`."""

    mixture: Mapping[str, float]
    """Weight by `category` or `category:source`."""
    seed: int
    """Seed of the order."""
    steps: int | None
    """Optimizer steps."""
    epochs: float | None
    """Draws, as a multiple of the samples that the mixture's kinds have together; the last step is filled up."""
    packs_per_step: int | None
    """Rows of a step over all ranks."""
    samples_per_step: int | None
    """Samples that a step should have, about: the rows that hold as many are counted off."""
    packs_divisible_by: int
    """The rows of a step are then a multiple of this, so that each number of ranks that divides it can share them."""
    max_length_tokens: int
    """Tokens that a row may have."""
    max_row_visual_tokens: int
    """Vision tokens that a row may have, before DiffFP."""
    sizes: SizeRule
    """How large the samples are."""


def plan_stage(folders: Sequence[Path], out: Path, request: PlanRequest) -> PlanFacts:
    """Plan a stage and write the plan to an empty folder, plan.json last.

    Args:
        folders: the built datasets that it draws from.
        out: where to write.
        request: what to plan.

    Raises:
        DataError: a dataset cannot be read, or no sample fits the mixture and the limits.
        StorageError: the plan cannot be written.
    """
    table = read_samples(folders, request.sizes)
    kinds, notes = _kinds(table, folders, request)
    order = _order(table, kinds, request)
    packs = pack_table(order.packs, table.sizes[order.rows])
    arrays = {
        SAMPLES: _write_samples(out, table, order),
        PACKS: _write(out, PACKS, packs),
        DRAWN: _write(out, DRAWN, _running_sums(order, len(kinds)).ravel()),
    }
    counts = np.bincount(order.kinds, minlength=len(kinds)).tolist()
    facts = PlanFacts(
        asked=asdict(request),
        datasets=table.datasets,
        usable_samples=len(table),
        steps=order.steps,
        packs_per_step=order.packs_per_step,
        samples=len(order.rows),
        kinds=tuple(
            KindFacts(key=kind.key, share=kind.share, available=len(kind.rows), drawn=drawn)
            for kind, drawn in zip(kinds, counts, strict=True)
        ),
        notes=tuple(notes),
        fill=_fill(packs, request),
        balance=tuple(_balance(packs, order.packs_per_step)),
        arrays=arrays,
    )
    facts.write(out)
    return facts


@dataclass(frozen=True, kw_only=True, slots=True)
class _Order:
    """The plan in memory: S samples in the order of their packs."""

    rows: np.ndarray
    """Numbers of the samples in the table, int32 (S)."""
    kinds: np.ndarray
    """Which kind drew each, int32 (S)."""
    packs: np.ndarray
    """The pack of each, int32 (S), rising."""
    steps: int
    packs_per_step: int


def _kinds(table: SampleTable, folders: Sequence[Path], request: PlanRequest) -> tuple[list[MixtureKind], list[str]]:
    """The kinds of the mixture, without samples that no row can hold: they would never be packed. Notes name some."""
    length, visual = request.max_length_tokens, request.max_row_visual_tokens
    fits = (table.sizes["length_tokens"] <= length) & (table.sizes["visual_tokens"] <= visual)
    too_large = np.flatnonzero(~fits)
    limits = f"{length} tokens or {visual} vision tokens"
    if len(too_large) and len(too_large) == len(table):
        raise DataError(
            f"all {len(table)} usable training samples have more than {limits} with this stage's settings, so no row "
            "can hold one. Raise data.max_length_tokens or data.max_row_visual_tokens, or build the dataset with a "
            "smaller data.visual_budget_tokens."
        )
    kinds, notes = resolve_mixture(table, request.mixture, fits)
    if len(too_large):
        names = ", ".join(_sample_id(table, folders, number) for number in too_large[:_NAMED_SAMPLES].tolist())
        notes.append(
            f"{len(too_large)} sample(s) have more than {limits} with this stage's settings and are left out: {names}"
            + (", ..." if len(too_large) > _NAMED_SAMPLES else "")
        )
    return kinds, notes


def _sample_id(table: SampleTable, folders: Sequence[Path], number: int) -> str:
    place = table.places[number]
    return str(read_row(folders[int(place["dataset"])], int(place["row"]), ["sample_id"])["sample_id"])


def _order(table: SampleTable, kinds: list[MixtureKind], request: PlanRequest) -> _Order:
    """Draw and pack until every row of every step is closed.

    4 packs a step and one epoch of 1000 samples, which open 98 packs: 25 steps, so 100 packs. More samples are drawn
    until packs 0 to 99 are closed; those that went into later packs are dropped.
    """
    stream = _Stream(table, kinds, request)
    stream.draw(_first_draws(kinds, request))
    packs_per_step = request.packs_per_step or _packs_per_step(request, stream.num_drawn / stream.packer.num_packs)
    steps = request.steps or math.ceil(stream.packer.num_packs / packs_per_step)
    while stream.packer.num_final < steps * packs_per_step:
        stream.draw(_WRITTEN_SAMPLES // 16)
    rows, of_kinds, packs = stream.drawn()
    by_pack = np.argsort(packs, kind="stable")
    by_pack = by_pack[: np.searchsorted(packs[by_pack], steps * packs_per_step)]
    return _Order(
        rows=rows[by_pack],
        kinds=of_kinds[by_pack],
        packs=packs[by_pack],
        steps=steps,
        packs_per_step=packs_per_step,
    )


def _first_draws(kinds: list[MixtureKind], request: PlanRequest) -> int:
    """How many samples are drawn before steps are counted."""
    if request.epochs is not None:
        return max(1, round(request.epochs * sum(len(kind.rows) for kind in kinds)))
    if request.samples_per_step is not None and request.steps is not None:
        return min(_PROBE_SAMPLES, request.steps * request.samples_per_step)
    return 1


def _packs_per_step(request: PlanRequest, samples_per_pack: float) -> int:
    """The multiple that is nearest by ratio: 128 samples at 5.6 a pack are 22.9 packs; of 16 and 32, 16 is nearer."""
    assert request.samples_per_step is not None
    unit = request.packs_divisible_by
    wanted = request.samples_per_step / samples_per_pack / unit
    low = max(1, math.floor(wanted))
    return unit * (low if wanted <= math.sqrt(low * (low + 1)) else low + 1)


class _Stream:
    """Draws samples and packs them, as many as are asked for at a time."""

    def __init__(self, table: SampleTable, kinds: list[MixtureKind], request: PlanRequest) -> None:
        self._sizes = table.sizes
        limits = {"length_tokens": request.max_length_tokens, "visual_tokens": request.max_row_visual_tokens}
        self._first, self._second = sorted(limits, key=lambda name: -_mean(table, kinds, name) / limits[name])
        self.packer = Packer(limits[self._first], limits[self._second])
        self.num_drawn = 0
        self._chunks = self._walk(MixtureWalk(kinds, request.seed))
        self._rest = np.empty((2, 0), dtype=np.int64)
        self._parts: list[np.ndarray] = []

    def draw(self, count: int) -> None:
        """Draw and pack `count` more samples."""
        while count > 0:
            if not self._rest.shape[1]:
                self._rest = next(self._chunks)
            now, self._rest = self._rest[:, :count], self._rest[:, count:]
            sizes = self._sizes[now[0]]
            packs = self.packer.place(sizes[self._first], sizes[self._second])
            self._parts.append(np.vstack([now, packs]).astype(np.int32))
            self.num_drawn += now.shape[1]
            count -= now.shape[1]

    def drawn(self) -> np.ndarray:
        """Rows, kinds and packs of all samples so far, int32 (3, samples)."""
        return np.concatenate(self._parts, axis=1)

    @staticmethod
    def _walk(walk: MixtureWalk) -> Iterator[np.ndarray]:
        number = 0
        while True:
            yield np.stack(walk.chunk(number))
            number += 1


def _mean(table: SampleTable, kinds: list[MixtureKind], name: str) -> float:
    """Mean size of a drawn sample, which says which limit binds."""
    return sum(kind.share * float(table.sizes[name][kind.rows].mean()) for kind in kinds)


def _running_sums(order: _Order, num_kinds: int) -> np.ndarray:
    """Samples of each kind before each step, uint64 (steps + 1, kinds).

    Steps of 2 and 3 samples, of the kinds a b and a a b: the sums are 0 0, then 1 1, then 3 2.
    """
    steps = order.packs // order.packs_per_step
    counts = np.bincount(steps * num_kinds + order.kinds, minlength=order.steps * num_kinds)
    sums = np.zeros((order.steps + 1, num_kinds), dtype="<u8")
    np.cumsum(counts.reshape(order.steps, num_kinds), axis=0, out=sums[1:])
    return sums


def _write_samples(out: Path, table: SampleTable, order: _Order) -> ArrayFacts:
    with ArrayWriter(_path(out, SAMPLES), SAMPLE, len(order.rows)) as writer:
        for start in range(0, len(order.rows), _WRITTEN_SAMPLES):
            part = slice(start, start + _WRITTEN_SAMPLES)
            samples = table.places[order.rows[part]]
            samples["kind"] = order.kinds[part]
            writer.write(samples)
    return writer.facts


def _write(out: Path, name: str, values: np.ndarray) -> ArrayFacts:
    with ArrayWriter(_path(out, name), values.dtype, len(values)) as writer:
        writer.write(values)
    return writer.facts


def _path(out: Path, name: str) -> Path:
    return out / f"{name}.npy"


def _fill(packs: np.ndarray, request: PlanRequest) -> FillFacts:
    length = packs["length_tokens"] / request.max_length_tokens
    visual = packs["visual_tokens"] / request.max_row_visual_tokens
    binding = np.maximum(length, visual)
    return FillFacts(length=float(length.mean()), visual=float(visual.mean()), binding=float(binding.mean()))


def _balance(packs: np.ndarray, packs_per_step: int) -> Iterator[BalanceFacts]:
    """Deal some steps, evenly spread over the plan, to simulated ranks."""
    steps = len(packs) // packs_per_step
    chosen = np.unique(np.linspace(0, steps - 1, min(steps, _SIMULATED_STEPS)).astype(np.int64))
    costs = CostModel().costs(packs).reshape(steps, packs_per_step)[chosen]
    for ranks in _SIMULATED_RANKS:
        if packs_per_step % ranks == 0:
            over = [imbalance(step, ranks) for step in costs]
            yield BalanceFacts(ranks=ranks, mean=float(np.mean(over)), worst=float(np.max(over)))


def imbalance(costs: np.ndarray, world_size: int) -> float:
    """The costliest rank of a step over the mean of the ranks, less 1: totals 11 and 9 give 0.1."""
    totals = [costs[hand].sum() for hand in deal_packs(costs.tolist(), world_size)]
    return float(max(totals) * world_size / costs.sum() - 1)
