"""The measurements of each step, summed over ranks and steps until they are written.

Ranks exchange nothing until a window is written or saved, and then only one message. Until then the sums of each step
are kept separately, so that a window that was split by a checkpoint has bit for bit the same sums as an unsplit one.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from vl3.data.loader.rows import PackedRow, StepRows
from vl3.errors import ConfigError
from vl3.training.collectives import sum_over_ranks

SUMMED = ("tokens", "visual_tokens", "visual_tokens_kept", "rows", "read_bytes", "read_retries", "flops")
TIMED = ("data", "forward", "backward", "optimizer", "save")


@dataclass(slots=True)
class Window:
    """The steps since the last metrics, one entry per step, summed over all ranks."""

    losses: list[float] = field(default_factory=list)
    """Loss of each step's global batch, summed over its supervised tokens."""
    supervised_tokens: list[int] = field(default_factory=list)
    counts: list[list[float]] = field(default_factory=list)
    """One row per step: the values of SUMMED, then the seconds of TIMED, each summed over ranks."""
    seconds: float = 0.0
    """Wall time of the steps on rank 0."""

    def to_dict(self) -> dict[str, Any]:
        """The window as JSON-ready data, which later steps do not change: it is written while training goes on."""
        return asdict(self)


class Meter:
    """Collects the steps of this rank; `gather` adds up all ranks and puts the steps into the window."""

    def __init__(
        self,
        device: torch.device,
        world_size: int,
        saved: dict[str, Any] | None = None,
        *,
        count_flops: Callable[[Sequence[PackedRow]], float] | None = None,
        peak_flops_per_second: float | None = None,
    ) -> None:
        """Continue the window of a checkpoint, if there is one.

        Args:
            device: for the exchange.
            world_size: number of ranks.
            saved: the window, as `to_dict` gave it.
            count_flops: counts what the rows of a step need; None counts nothing.
            peak_flops_per_second: what one rank's device can do; None leaves MFU out.
        """
        self._count_flops = count_flops
        self._peak_flops_per_second = peak_flops_per_second
        self.window = _window_of(saved) if saved else Window()
        self.device = device
        self._world_size = world_size
        self._pending_losses: list[float] = []
        self._pending_counts: list[list[float]] = []
        self._pending_supervised: list[int] = []
        self._save_seconds = self._own_data_seconds = 0.0
        self._started = time.perf_counter()

    def note_save(self, seconds: float) -> None:
        """Add time for which training stood still to save; it counts in the next step, because it follows this one."""
        self._save_seconds += seconds

    def take_data_seconds(self) -> float:
        """What this rank alone waited for its rows since the last call."""
        seconds, self._own_data_seconds = self._own_data_seconds, 0.0
        return seconds

    def add(self, taken: StepRows, loss_sum: float, supervised_tokens: int, seconds: dict[str, float]) -> None:
        """Add one step of this rank."""
        rows, seconds, self._save_seconds = taken.rows, seconds | {"save": self._save_seconds}, 0.0
        self._own_data_seconds += seconds["data"]
        counts = [
            sum(len(row.input_ids_T) for row in rows),
            sum(row.visual_tokens for row in rows),
            sum(row.visual_tokens_kept for row in rows),
            len(rows),
            taken.read_bytes,
            taken.retries,
            self._count_flops(rows) if self._count_flops else 0.0,
        ]
        self._pending_losses.append(loss_sum)
        self._pending_counts.append([*counts, *(seconds[name] for name in TIMED)])
        self._pending_supervised.append(supervised_tokens)

    def gather(self) -> Window:
        """Sum the pending steps over all ranks into the window. Every rank must call it in the same step.

        Raises:
            ConfigError: the loss of a step is NaN or infinite.
        """
        if self._pending_losses:
            mine = [[loss, *counts] for loss, counts in zip(self._pending_losses, self._pending_counts, strict=True)]
            for loss, *counts in sum_over_ranks(mine, self.device):
                self.window.losses.append(loss)
                self.window.counts.append(counts)
            self.window.supervised_tokens += self._pending_supervised
            self._pending_losses, self._pending_counts, self._pending_supervised = [], [], []
            _require_finite(self.window.losses)
        now = time.perf_counter()
        self.window.seconds += now - self._started
        self._started = now
        return self.window

    def flush(self) -> dict[str, float]:
        """Metrics of the window, which is then emptied: means per step, except loss, shares, retries and rates.

        `data_wait_share` is the share of the time that training waited for its rows: 0.1 s of steps of 2 s is 0.05;
        `save_stall_share` the share for which it stood still to save a checkpoint.
        Two steps with loss sums 60 and 20 over 30 and 10 supervised tokens: loss 80 / 40 = 2, supervised_tokens 20.
        """
        window = self.gather()
        self.window = Window()
        steps = len(window.losses)
        columns = [sum(column) for column in zip(*window.counts, strict=True)]
        sums = dict(zip((*SUMMED, *TIMED), columns, strict=True))
        supervised = sum(window.supervised_tokens)
        metrics = {
            "loss": sum(window.losses) / max(supervised, 1),
            "supervised_tokens": supervised / steps,
            "tokens_per_second": sums["tokens"] / max(window.seconds, 1e-9),
            "visual_tokens": sums["visual_tokens"] / steps,
            "visual_tokens_kept": sums["visual_tokens_kept"] / steps,
            "kept_share": sums["visual_tokens_kept"] / max(sums["visual_tokens"], 1),
            "rows_per_second": sums["rows"] / max(window.seconds, 1e-9),
            "read_bytes_per_second": sums["read_bytes"] / max(window.seconds, 1e-9),
            "read_retries": sums["read_retries"],
            "data_wait_share": sums["data"] / self._world_size / max(window.seconds, 1e-9),
            "save_stall_share": sums["save"] / self._world_size / max(window.seconds, 1e-9),
            "seconds/step": window.seconds / steps,
        }
        if self._count_flops:
            metrics |= self._arithmetic(sums["flops"] / self._world_size / max(window.seconds, 1e-9))
        return metrics | {f"seconds/{name}": sums[name] / steps / self._world_size for name in TIMED}

    def _arithmetic(self, flops_per_second: float) -> dict[str, float]:
        """What each rank needed a second, and the share of its device's peak (vl3.training.mfu has the formula)."""
        peak = self._peak_flops_per_second
        return {"tflops_per_second": flops_per_second / 1e12} | ({"mfu": flops_per_second / peak} if peak else {})


def _window_of(saved: dict[str, Any]) -> Window:
    """The window of a checkpoint; an empty one if other code wrote it, which summed other values."""
    window = Window(**saved)
    is_ours = all(len(counts) == len(SUMMED) + len(TIMED) for counts in window.counts)
    return window if is_ours else Window()


def _require_finite(losses: list[float]) -> None:
    for back, loss in enumerate(reversed(losses)):
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} ({back} steps ago): training has diverged, or a sample is bad (the stage's notes "
                "name those of the step). Check them, and lower the learning rates of the stage or "
                "optimizer.max_grad_norm, or raise optimizer.warmup_ratio. The last checkpoint is from before it."
            )
