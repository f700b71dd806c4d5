"""What share of its GPUs' peak a stage reaches (MFU).

    MFU = FLOPs that the stage needs / (seconds x GPUs x peak of one GPU)

Needed are the forward and backward passes of the rows that are really there: padding, recomputation, and gradients of
frozen parts do not count, however they are computed (vl3.planning.flops). The peak is the maker's figure for dense
arithmetic in the stage's precision (vl3.planning.devices). A step of 130 TFLOPs on each GPU in .4 s on an H200:
130 / (.4 x 989) = 33 %.
"""

from collections.abc import Sequence

import torch

from vl3.config.run import RunConfig
from vl3.config.stages import StageConfig
from vl3.data.loader.rows import PackedRow
from vl3.models.config import VideoLlama3Config
from vl3.planning.devices import device_names, peak_flops_per_second
from vl3.planning.flops import row_flops
from vl3.planning.parameters import TrainedParts
from vl3.planning.row_shapes import shape_of_row


class FlopCounter:
    """Counts what a rank's rows need."""

    def __init__(self, model: VideoLlama3Config, stage: StageConfig) -> None:
        """`model` has the sizes, `stage` says what trains."""
        self._model = model
        self._trained = TrainedParts.of(stage)

    def __call__(self, rows: Sequence[PackedRow]) -> float:
        """FLOPs that the rows of one step need."""
        return row_flops(self._model, self._trained, [shape_of_row(row) for row in rows]).needed


def peak_of_stage(config: RunConfig, stage: str) -> float | None:
    """Peak of one of the stage's GPUs in its precision, FLOP/s; None if it has no GPU, or nobody says which.

    Raises:
        ConfigError: the placement names a GPU of which no peak is known.
    """
    named = config.placements[stage].gpu if config.launch.backend != "local" else _gpu_here()
    return peak_flops_per_second(named, config.engine.precision) if named else None


def _gpu_here() -> str:
    """The name of this machine's GPU, as far as it is a known one: `NVIDIA H200` is h200; empty for others."""
    if not torch.cuda.is_available():
        return ""
    words = torch.cuda.get_device_name().lower().replace("-", " ").split()
    memory_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    if "a100" in words:
        return "a100" if memory_gib > 60 else "a100_40gb"
    if "h100" in words:
        return "h100_pcie" if "pcie" in words else "h100"
    return next((name for name in device_names() if name in words), "")
