"""How a stage is laid out over devices: what its memory, time and cost depend on besides the model and the rows."""

from dataclasses import dataclass

from vl3.planning.flops import Recompute

BYTES = {"fp32": 4, "bf16": 2}
"""Bytes of a number in forward and backward, by engine.precision."""
CPU_BUCKET_NUMBERS = 500_000_000
GPU_BUCKET_NUMBERS = 100_000_000
"""Gradients that are exchanged at once, as in vl3.training.engine."""
PERSISTENT_NUMBERS = 100_000
"""Parameters smaller than this stay whole on each rank under ZeRO 3 (DeepSpeed's default)."""
LIVE_NUMBERS = 1_000_000_000
"""Numbers of parameters that ZeRO 3 keeps gathered at most, and updates at once (DeepSpeed's defaults)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How a stage is laid out."""

    zero_stage: int
    """0 replicates, 1 shards optimizer state, 2 gradients too, 3 weights too."""
    ranks: int
    """Processes over which it shards."""
    precision: str
    """`fp32` or `bf16`."""
    recompute: Recompute
    """What backward computes again."""
    offload_optimizer: bool = False
    """Whether fp32 weights and moments are in host memory and updated there."""
    rows_per_rank: int = 1
    """Rows that a rank computes in a step, one after another."""
    is_gpu: bool = True
    """Whether fused kernels and overlapped communication run, as on GPUs."""

    @property
    def number_bytes(self) -> int:
        """Bytes of a weight, activation or gradient."""
        return BYTES[self.precision]

    @property
    def shards(self) -> int:
        """Parts into which the optimizer's state is cut."""
        return self.ranks if self.zero_stage else 1

    def bucket_numbers(self, trainable: int) -> int:
        """Gradients that are exchanged at once."""
        return min(trainable, GPU_BUCKET_NUMBERS if self.is_overlapped else CPU_BUCKET_NUMBERS)

    @property
    def is_overlapped(self) -> bool:
        """Whether gradients are exchanged while backward goes on, for which there are two buckets."""
        return self.is_gpu and self.zero_stage >= 2

    def describe(self) -> str:
        """A few words for tables: `ZeRO 2, none`."""
        return f"ZeRO {self.zero_stage}{' + offload' if self.offload_optimizer else ''}, {self.recompute}"
