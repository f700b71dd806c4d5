"""Updates that were left out because the gradient is not finite: each is counted and its rows are named, up to a limit.

An optimizer skips such an update to save the weights. A few do no harm, but a stage of which most are skipped ends with
weights that hardly moved, and its loss does not tell.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from vl3.data.loader.rows import PackedRow
from vl3.errors import ConfigError
from vl3.training.collectives import gather_json
from vl3.training.events import EventLog

log = logging.getLogger("vl3.training")

_LAST_STEPS = 100
_NOTES = 10
"""Updates that get a note each; all of them have an event."""
_SHOWN_SAMPLES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipLimit:
    """How many updates may be left out among the last ones."""

    last_steps: int
    """The steps that count: the last 100, or all of a shorter stage."""
    allowed: int
    """Updates that may be left out among them."""
    fraction: float
    """engine.max_skipped_fraction."""

    @classmethod
    def of(cls, fraction: float, *, steps: int) -> "SkipLimit":
        """The limit of a stage: 0.1 of 10 steps allows 1, of 600 steps 10 among any 100."""
        last_steps = min(_LAST_STEPS, steps)
        return cls(last_steps=last_steps, allowed=int(fraction * last_steps + 1e-9), fraction=fraction)


class SkippedUpdates:
    """The updates of a stage that were left out; every rank has the same."""

    def __init__(self, events: EventLog, limit: SkipLimit, device: torch.device, steps: Sequence[int] = ()) -> None:
        """`steps`: those that were left out before the checkpoint from which the stage resumed."""
        self.steps = list(steps)
        """The steps whose update was left out, counted from 1."""
        self._events = events
        self._limit = limit
        self._device = device

    def add(self, step: int, rows: Sequence[PackedRow], row_losses: Sequence[float]) -> None:
        """Count the update of a step. Every rank must call it with its own rows in the same step.

        Raises:
            ConfigError: more updates were left out than the limit allows.
        """
        mine = [
            {"samples": list(row.sample_ids), "loss": _json_number(loss)}
            for row, loss in zip(rows, row_losses, strict=True)
        ]
        found: list[dict[str, Any]] = [row for part in gather_json(mine, self._device) for row in part]
        self.steps.append(step)
        text = f"the gradient of step {step} is not finite, so its update was left out; {_named(found)}"
        self._events.write("skipped_update", step=step, time=time.time(), rows=found)
        if dist.get_rank() == 0:  # the other ranks would say the same
            log.warning(text)
        if len(self.steps) <= _NOTES:
            self._events.note(text)
        self._require_few(step, found)

    def _require_few(self, step: int, rows: list[dict[str, Any]]) -> None:
        limit = self._limit
        recent = [one for one in self.steps if one > step - limit.last_steps]
        if len(recent) <= limit.allowed:
            return
        more = min(0.99, max(0.1, 2 * limit.fraction))
        raise ConfigError(
            f"{len(recent)} of the last {min(step, limit.last_steps)} updates were left out, the last in step {step}, "
            f"because {_reason(rows)}, and engine.max_skipped_fraction={limit.fraction:g} allows "
            f"{limit.allowed} of {limit.last_steps}: training has diverged or a sample is bad, and the weights would "
            f"hardly move; {_named(rows)}. Check these samples, and lower the learning rates of the stage or "
            "optimizer.max_grad_norm, or raise optimizer.warmup_ratio; to allow more, add "
            f'SET="engine.max_skipped_fraction={more:g}". The events of the stage name the rows of every such step.'
        )


def _json_number(value: float) -> float | str:
    """A number as JSON can hold it; NaN and the infinities as their names."""
    return value if math.isfinite(value) else str(value)


def _reason(rows: list[dict[str, Any]]) -> str:
    losses = sorted({row["loss"] for row in rows if isinstance(row["loss"], str)})
    return f"the loss is {' or '.join(losses)} there" if losses else "their gradients are not finite"


def _named(rows: list[dict[str, Any]]) -> str:
    """The samples of a step: those of rows whose loss is not finite if there are any, otherwise all."""
    guilty = [row for row in rows if isinstance(row["loss"], str)]
    names = [name for row in guilty or rows for name in row["samples"]]
    shown = ", ".join(names[:_SHOWN_SAMPLES]) + (
        f" and {len(names) - _SHOWN_SAMPLES} more" if names[_SHOWN_SAMPLES:] else ""
    )
    return f"{'samples of the rows whose loss is not finite' if guilty else 'samples of its rows'}: {shown}"
