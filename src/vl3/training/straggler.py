"""Names a rank that is slower than the others: they wait for it several times a step.

A step takes all ranks the same time, so it does not tell. What differs is what each does before ranks wait for each
other: getting its rows, and the forward pass. Each rank sums up both, and every few steps they exchange two numbers:

    seconds a step   rank 0  .1 + 1.0    rank 1  .1 + 1.1    rank 2  .1 + 1.9    rank 3  .1 + 1.0
    median 1.1, rank 2 is at 2.0: the others wait .9 s of each step of 3.2 s

Under ZeRO-3 ranks also wait for each other's weights in the forward pass, so there only a rank that is late with its
rows stands out.
"""

import logging
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from vl3.training.collectives import gather_json, sum_over_ranks
from vl3.training.events import EventLog

if TYPE_CHECKING:
    from vl3.training.loop import StepDone

log = logging.getLogger("vl3.training")

_SLOWER = 1.3
"""How much slower than the median rank a straggler is at least."""
_COSTS = 0.05
"""The share of a step that the others wait for it at least."""
_NOTICEABLE_SECONDS = 0.03
"""The same as time: steps of a small model vary by as much from rank to rank on any busy machine."""
_WINDOWS = 2
"""So many windows in a row, because one may be a coincidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Straggler:
    """The slowest rank of some steps, if it is slow enough to matter."""

    rank: int
    data_seconds: float
    """What it waited for its rows, per step."""
    forward_seconds: float
    """What its forward passes took, per step."""
    median_seconds: float
    """Both together, of the median rank."""

    @property
    def lost_seconds(self) -> float:
        """What the median rank waits for it in each step."""
        return self.data_seconds + self.forward_seconds - self.median_seconds


def find_straggler(seconds: Sequence[Sequence[float]], step_seconds: float) -> Straggler | None:
    """The straggler among ranks; None if no rank is much slower than the median of all.

    Args:
        seconds: data and forward seconds a step of each rank.
        step_seconds: duration of a step.
    """
    totals = [data + forward for data, forward in seconds]
    rank = max(range(len(totals)), key=totals.__getitem__)
    median = statistics.median_low(totals)  # of two ranks the faster
    found = Straggler(rank=rank, data_seconds=seconds[rank][0], forward_seconds=seconds[rank][1], median_seconds=median)
    least = max(_COSTS * step_seconds, _NOTICEABLE_SECONDS)
    return found if totals[rank] > _SLOWER * median and found.lost_seconds > least else None


class PassTimer:
    """Time of the forward passes of a module on the device that runs them, without waiting for it."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._seconds = self._started = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end())

    def _begin(self) -> None:
        if self._is_cuda:
            self._events.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
            self._events[-1][0].record()
        self._started = time.perf_counter()

    def _end(self) -> None:
        if self._is_cuda:
            self._events[-1][1].record()
        self._seconds += time.perf_counter() - self._started

    def take(self) -> float:
        """Seconds since the last call; on a GPU the last pass must have ended, as it has when a loss was read."""
        if self._is_cuda:
            seconds = sum(first.elapsed_time(last) for first, last in self._events) / 1000
        else:
            seconds = self._seconds
        self._seconds, self._events = 0.0, []
        return seconds


class StragglerWatch:
    """A callback that compares the ranks whenever metrics are due, which read the loss and so wait for the device."""

    def __init__(
        self,
        events: EventLog,
        timer: PassTimer,
        data_seconds: Callable[[], float],
        device: torch.device,
        *,
        every_steps: int,
    ) -> None:
        """Every rank must make one, because they exchange the names of their machines.

        Args:
            events: of the stage.
            timer: of this rank's forward passes.
            data_seconds: what this rank waited for its rows since the last call.
            device: for the exchange.
            every_steps: how often the ranks are compared; metrics must have been written in the same steps.
        """
        self._events, self._timer, self._data_seconds = events, timer, data_seconds
        self._device, self._every_steps = device, every_steps
        self._hosts: list[str] = gather_json(socket.gethostname(), device)
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        self._since, self._steps = time.perf_counter(), 0
        self._last: int | None = None
        self._windows = 0
        self._named: set[int] = set()

    def __call__(self, step: "StepDone") -> None:
        """Compare the ranks if the step is due; every rank must call it."""
        self._steps += 1
        if self._world_size == 1 or (step.done % self._every_steps and step.done != step.total):
            return
        table = [[0.0, 0.0] for _ in range(self._world_size)]
        table[self._rank] = [self._data_seconds() / self._steps, self._timer.take() / self._steps]
        seconds = sum_over_ranks(table, self._device)
        now = time.perf_counter()
        step_seconds = (now - self._since) / self._steps
        self._since, self._steps = now, 0
        self._judge(step.done, find_straggler(seconds, step_seconds), step_seconds)

    def _judge(self, step: int, found: Straggler | None, step_seconds: float) -> None:
        is_same = found is not None and found.rank == self._last
        self._windows = self._windows + 1 if is_same else int(found is not None)
        self._last = None if found is None else found.rank
        if found is None or self._windows < _WINDOWS:
            return
        host = self._hosts[found.rank]
        fields: dict[str, Any] = {
            "step": step,
            "rank": found.rank,
            "host": host,
            "data_seconds": found.data_seconds,
            "forward_seconds": found.forward_seconds,
            "median_seconds": found.median_seconds,
            "step_seconds": step_seconds,
        }
        self._events.write("straggler", time=time.time(), **fields)
        if found.rank in self._named:
            return
        self._named.add(found.rank)
        text = (
            f"rank {found.rank} on {host} is slower than the others: per step it took {found.data_seconds:.2f} s to "
            f"get its rows and {found.forward_seconds:.2f} s for the forward pass, the median rank "
            f"{found.median_seconds:.2f} s for both. So the others wait {found.lost_seconds:.2f} s of each step of "
            f"{step_seconds:.2f} s (seen at step {step}). Look at what else runs on {host}, and at the clock and "
            "temperature of its GPU"
        )
        self._events.note(text)
        if self._rank == 0:
            log.warning(text)
