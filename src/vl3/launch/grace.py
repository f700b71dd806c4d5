"""How long a pod may take to end: time for the step at work, and for the checkpoint that it writes before it ends.

When that time is over the pod ends its ranks, and all since the checkpoint before is lost. What a checkpoint takes is
known from the stage's own checkpoints once there are some, and before from the size of the weights.

A variable tells the pod how long it has. Kubernetes' own limit is the same for every stage and is set in the training
runtime, not in the TrainJob. Kueue 0.18 knows only the API of Trainer 2.2: when it admits a TrainJob, it drops
terminationGracePeriodSeconds from the patches. JobSet then sees other pods than before and never resumes the job.
"""

import math
from collections.abc import Iterable
from typing import Any

from vl3.config.run import RunConfig

DEFAULT_GRACE_SECONDS = 120
"""The least that a pod gets, and what it takes if it is told nothing."""
LONGEST_GRACE_SECONDS = 1800
"""What the training runtimes set: when Kubernetes kills a pod that has not ended by itself."""
GRACE_VARIABLE = "VL3_GRACE_SECONDS"
"""Tells a pod its own grace period."""
MARGIN_SECONDS = 15
"""Of the grace period, what is left for the pod to end after its workers."""
_ASSUMED_BYTES_PER_SECOND = 100e6
"""Of each rank, until a checkpoint was measured: a slow store, or a disk that many share."""
_STATE_BYTES = 12
"""Of a parameter: fp32 weight and two moments."""


def estimate_grace(save_seconds: float, step_seconds: float) -> int:
    """The grace period: a step, a checkpoint that is being written already, the last one, and a margin.

    Steps of 20 s and checkpoints of 60 s: 20 + 60 + 60 + 15 = 155 s. It is never below 120 s, nor above half an hour.
    """
    seconds = step_seconds + 2 * save_seconds + MARGIN_SECONDS
    return min(max(math.ceil(seconds), DEFAULT_GRACE_SECONDS), LONGEST_GRACE_SECONDS)


def measured_save_seconds(events: Iterable[dict[str, Any]]) -> float | None:
    """The longest that one of a stage's last ten checkpoints took, from its events; None without any."""
    saved = [event for event in events if event.get("type") == "checkpoint" and event.get("state") == "saved"]
    times = [(event.get("stall_seconds"), event.get("write_seconds")) for event in saved[-10:]]
    return max((a + b for a, b in times if isinstance(a, float) and isinstance(b, float)), default=None)


def longest_step_seconds(events: Iterable[dict[str, Any]]) -> float:
    """The longest mean time of a step in a stage's metrics; 0 without any."""
    means = (event["values"].get("seconds/step", 0.0) for event in events if event.get("type") == "metrics")
    return max(means, default=0.0)


def estimated_save_seconds(weight_bytes: int, item_bytes: int, config: RunConfig, stage: str) -> float:
    """What a checkpoint would take if every rank wrote 100 MB/s.

    Args:
        weight_bytes: of the weights that the stage starts from.
        item_bytes: of one of their values.
        config: the run.
        stage: which stage.

    15 GB of bf16 weights are 7.6 billion parameters, 91 GB of state; 16 ranks write it in 57 s.
    """
    return weight_bytes / item_bytes * _STATE_BYTES / config.num_processes(stage) / _ASSUMED_BYTES_PER_SECOND
