"""The order of a plan: samples are drawn by the mixture and packed until every row of every step is closed."""

import math
from dataclasses import dataclass

import numpy as np

from vl3.data.plan.demand import Demand, PlanRequest
from vl3.data.plan.kinds import fill_draws
from vl3.data.plan.mixture import MixtureKind, MixtureWalk
from vl3.data.plan.packing import Packer
from vl3.data.plan.samples import SampleTable
from vl3.errors import DataError

_PROBE_SAMPLES = 1 << 17
"""Samples that are packed to learn how many make a pack, where the number of steps is given."""
_DRAWN_SAMPLES = 1 << 14
"""Samples drawn at once until the last row is closed."""
_ROUNDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The plan in memory: S samples in the order of their packs."""

    rows: np.ndarray
    """Numbers of the samples in the table, int32 (S)."""
    kinds: np.ndarray
    """Which kind drew each, int32 (S)."""
    packs: np.ndarray
    """The pack of each, int32 (S), rising."""
    steps: int
    packs_per_step: int
    shares: list[float]
    """Share of each kind that it should have."""


def order_samples(table: SampleTable, demand: Demand, request: PlanRequest) -> Order:
    """Draw and pack until every row of every step is closed.

    4 packs a step and one epoch of 1000 samples, which open 98 packs: 25 steps, so 100 packs. More samples are drawn
    until packs 0 to 99 are closed; those that went into later packs are dropped. If no more may be drawn, there are 24
    steps.

    Raises:
        DataError: the mixture gives too few samples for a step, or for the steps that are asked.
    """
    kinds = _kinds(table, demand, request)
    stream = _Stream(table, kinds, request)
    stream.draw(_first_draws(demand, request))
    packs_per_step = request.packs_per_step or _packs_per_step(request, stream.num_drawn / stream.packer.num_packs)
    steps = request.steps or math.ceil(stream.packer.num_packs / packs_per_step)
    if request.epochs is not None:
        _check_amounts(stream, demand, packs_per_step)
    while stream.packer.num_final < steps * packs_per_step and stream.has_more:
        stream.draw(_DRAWN_SAMPLES)
    if not stream.has_more:
        steps = min(steps, _whole_steps(stream, packs_per_step, request))
    rows, of_kinds, packs = stream.drawn()
    by_pack = np.argsort(packs, kind="stable")
    by_pack = by_pack[: np.searchsorted(packs[by_pack], steps * packs_per_step)]
    return Order(
        rows=rows[by_pack],
        kinds=of_kinds[by_pack],
        packs=packs[by_pack],
        steps=steps,
        packs_per_step=packs_per_step,
        shares=[kind.share for kind in kinds],
    )


def _whole_steps(stream: "_Stream", packs_per_step: int, request: PlanRequest) -> int:
    """The steps that can be made of all that may be drawn; what is left over is dropped.

    Raises:
        DataError: there is none, or fewer than asked.
    """
    steps = stream.packer.num_packs // packs_per_step
    if steps < (request.steps or 1):
        raise DataError(
            f"the stage's mixture gives {stream.num_drawn} samples at most, which fill {stream.packer.num_packs} rows; "
            f"{request.steps or 1} step(s) of {packs_per_step} rows are asked for. Raise max_epochs in the mixture, or "
            "train fewer or smaller steps."
        )
    return steps


def _check_amounts(stream: "_Stream", demand: Demand, packs_per_step: int) -> None:
    """Refuse amounts that do not fill a step although there are more samples: they are no numbers of samples."""
    available = sum(kind.available for kind in demand.served)
    if stream.packer.num_packs < packs_per_step and stream.num_drawn < available:
        raise DataError(
            f"the stage's mixture asks for {stream.num_drawn} sample(s) of {available}, which do not fill one step of "
            f"{packs_per_step} rows. In a stage of epochs its amounts are numbers of samples: write them, or "
            '{"epochs": 1} for all samples of a key.'
        )


def _first_draws(demand: Demand, request: PlanRequest) -> int:
    """How many samples are drawn before steps are counted."""
    if request.epochs is not None:
        return max(1, round(sum(fill_draws(demand.served, epochs=request.epochs, total=None))))
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
        self.has_more = True
        self._walk = MixtureWalk(kinds, request.seed)
        self._num_chunks = 0
        self._rest = np.empty((2, 0), dtype=np.int64)
        self._parts: list[np.ndarray] = []

    def draw(self, count: int) -> None:
        """Draw and pack `count` more samples, or fewer if no more may be drawn."""
        while count > 0:
            if not self._rest.shape[1] and not self._read_chunk():
                return
            now, self._rest = self._rest[:, :count], self._rest[:, count:]
            sizes = self._sizes[now[0]]
            packs = self.packer.place(sizes[self._first], sizes[self._second])
            self._parts.append(np.vstack([now, packs]).astype(np.int32))
            self.num_drawn += now.shape[1]
            count -= now.shape[1]

    def drawn(self) -> np.ndarray:
        """Rows, kinds and packs of all samples so far, int32 (3, samples)."""
        return np.concatenate(self._parts, axis=1)

    def _read_chunk(self) -> bool:
        """Take the next chunk that has draws; false if there is none."""
        while not self._rest.shape[1] and self._num_chunks < self._walk.num_chunks:
            self._rest = np.stack(self._walk.chunk(self._num_chunks))
            self._num_chunks += 1
        self.has_more = bool(self._rest.shape[1])
        return self.has_more


def _mean(table: SampleTable, kinds: list[MixtureKind], name: str) -> float:
    """Mean size of a drawn sample, which says which limit binds."""
    return sum(kind.share * float(table.sizes[name][kind.rows].mean()) for kind in kinds if kind.share)


def _kinds(table: SampleTable, demand: Demand, request: PlanRequest) -> list[MixtureKind]:
    """The kinds with the shares that epochs or steps give them.

    How many draws a number of steps takes depends on the shares, which `max_epochs` makes depend on the draws: some are
    packed to see, and after a few rounds the shares stay.
    """
    if request.epochs is not None:
        return _shared(demand, fill_draws(demand.served, epochs=request.epochs, total=None))
    kinds = _shared(demand, fill_draws(demand.served, epochs=None, total=1.0))
    if any(kind.max_draws is not None for kind in kinds):
        for _ in range(_ROUNDS):
            probe = _Stream(table, kinds, request)
            probe.draw(_PROBE_SAMPLES)
            samples_per_pack = probe.num_drawn / probe.packer.num_packs
            packs_per_step = request.packs_per_step or _packs_per_step(request, samples_per_pack)
            total = (request.steps or 1) * packs_per_step * samples_per_pack
            kinds = _shared(demand, fill_draws(demand.served, epochs=None, total=total))
    return kinds


def _shared(demand: Demand, draws: list[float]) -> list[MixtureKind]:
    """The kinds with shares by their draws."""
    return [
        MixtureKind(key=kind.key, share=count / sum(draws), rows=rows, max_draws=kind.max_draws)
        for kind, rows, count in zip(demand.served, demand.rows, draws, strict=True)
    ]
