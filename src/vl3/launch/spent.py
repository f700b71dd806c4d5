"""What a stage has taken of its pool: GPU-hours, node-hours and their price, over all of its attempts.

The events of a stage outlive launchers and pods, so they are counted, and not what one launcher saw. An attempt begins
when its processes were launched and ends with the last event before the next one:

    start of 16 processes, launched 10:00, last metrics 12:00 (node lost)      32 GPU-hours
    start of 8 processes, launched 12:10, end 13:10                             8 GPU-hours
    40 GPU-hours at 2.50 USD are 100 USD
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vl3.config.placement import PlacementConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptSpan:
    """One attempt of a stage."""

    processes: int
    """Number of its training processes."""
    seconds: float
    """From its launch to its last sign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What a stage takes of its pool, spent or planned."""

    pool: str
    """The pool; `local` for processes of one machine."""
    gpu: str = ""
    """Kind of its GPUs, as far as the placement says."""
    hours: float
    """Time with processes; of all attempts together."""
    process_hours: float
    """The same times the processes of each attempt."""
    gpu_hours: float
    """The same for GPUs, of which each process has one; 0 on a pool without."""
    cost: float | None = None
    """Their price; None if the placement has none."""
    currency: str = ""
    """Currency of the price."""
    attempts: int = 1
    """Number of attempts."""

    def metrics(self, prefix: str) -> dict[str, float]:
        """The numbers as metrics, `<prefix>/gpu_hours`."""
        values = {"hours": self.hours, "process_hours": self.process_hours, "gpu_hours": self.gpu_hours}
        if self.cost is not None:
            values["cost"] = self.cost
        return {f"{prefix}/{name}": value for name, value in values.items()}


def spans_of(events: Iterable[dict[str, Any]]) -> list[AttemptSpan]:
    """The attempts that the events of a stage tell of, as they were written (not `settled_events`)."""
    spans: list[AttemptSpan] = []
    began, latest, processes = 0.0, 0.0, 0
    for event in events:
        moment = event.get("time")
        if event["type"] == "start":
            if processes:
                spans.append(AttemptSpan(processes=processes, seconds=max(0.0, latest - began)))
            if not isinstance(moment, int | float):
                processes = 0
                continue
            processes = _count(event.get("world_size"))
            began, latest = moment - _seconds(event.get("startup_seconds")), moment
        elif isinstance(moment, int | float) and event["type"] in ("metrics", "skipped_update", "straggler", "end"):
            latest = max(latest, moment)
    if processes:
        spans.append(AttemptSpan(processes=processes, seconds=max(0.0, latest - began)))
    return spans


def spent_of(spans: Iterable[AttemptSpan], placement: PlacementConfig | None) -> Spent:
    """What some attempts took.

    Args:
        spans: the attempts.
        placement: where they ran; None for processes of this machine.
    """
    all_spans = list(spans)
    process_hours = sum(span.processes * span.seconds for span in all_spans) / 3600
    hours = sum(span.seconds for span in all_spans) / 3600
    if placement is None:
        return Spent(
            pool="local", hours=hours, process_hours=process_hours, gpu_hours=0.0, attempts=max(1, len(all_spans))
        )
    gpu_hours = process_hours if placement.gpus_per_node else 0.0
    price = placement.price_per_gpu_hour
    return Spent(
        pool=placement.pool,
        gpu=placement.gpu,
        hours=hours,
        process_hours=process_hours,
        gpu_hours=gpu_hours,
        cost=None if price is None else price * gpu_hours,
        currency="" if price is None else placement.currency,
        attempts=max(1, len(all_spans)),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 10**7 else 0


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 10**7 else 0.0
