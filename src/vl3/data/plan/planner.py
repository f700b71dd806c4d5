"""The plan of a stage: which samples make which row of which step, computed once and written as flat arrays.

A plan is a pure function of what it is asked and of the indexes that it reads. It knows nothing of ranks: step k has
the packs [k * G, (k + 1) * G), so the state of the data is one step number, at any world size. With G = 4, step 2 has
the packs 8, 9, 10 and 11: two each for two ranks, one each for four.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vl3.data.plan.arrays import ArrayFacts, ArrayWriter
from vl3.data.plan.demand import Demand, PlanRequest, find_demand
from vl3.data.plan.facts import DRAWN, PACKS, SAMPLES, BalanceFacts, FillFacts, KindFacts, PlanFacts
from vl3.data.plan.order import Order, order_samples
from vl3.data.plan.packing import CostModel, deal_packs, pack_table
from vl3.data.plan.samples import SAMPLE, SampleTable, read_samples

_WRITTEN_SAMPLES = 1 << 18
"""Samples written at once."""
_SIMULATED_STEPS = 128
_SIMULATED_RANKS = (2, 4, 8, 16, 32, 64)


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
    demand = find_demand(table, folders, request)
    order = order_samples(table, demand, request)
    packs = pack_table(order.packs, table.sizes[order.rows])
    arrays = {
        SAMPLES: _write_samples(out, table, order),
        PACKS: _write(out, PACKS, packs),
        DRAWN: _write(out, DRAWN, _running_sums(order, len(demand.served)).ravel()),
    }
    facts = PlanFacts(
        asked=asdict(request),
        datasets=table.datasets,
        usable_samples=len(table),
        steps=order.steps,
        packs_per_step=order.packs_per_step,
        samples=len(order.rows),
        kinds=tuple(_kind_facts(demand, order, request)),
        notes=tuple(demand.notes),
        fill=_fill(packs, request),
        balance=tuple(_balance(packs, order.packs_per_step)),
        arrays=arrays,
    )
    facts.write(out)
    return facts


def _kind_facts(demand: Demand, order: Order, request: PlanRequest) -> Iterator[KindFacts]:
    drawn = np.bincount(order.kinds, minlength=len(demand.served)).tolist()
    epochs = request.epochs or len(order.rows) / sum(kind.amount for kind in demand.served)
    for number, kind in enumerate(demand.served):
        yield KindFacts(
            key=kind.key,
            asked=epochs * kind.amount,
            share=order.shares[number],
            available=kind.available,
            drawn=drawn[number],
            categories=demand.categories[number],
        )


def _running_sums(order: Order, num_kinds: int) -> np.ndarray:
    """Samples of each kind before each step, uint64 (steps + 1, kinds).

    Steps of 2 and 3 samples, of the kinds a b and a a b: the sums are 0 0, then 1 1, then 3 2.
    """
    steps = order.packs // order.packs_per_step
    counts = np.bincount(steps * num_kinds + order.kinds, minlength=order.steps * num_kinds)
    sums = np.zeros((order.steps + 1, num_kinds), dtype="<u8")
    np.cumsum(counts.reshape(order.steps, num_kinds), axis=0, out=sums[1:])
    return sums


def _write_samples(out: Path, table: SampleTable, order: Order) -> ArrayFacts:
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
