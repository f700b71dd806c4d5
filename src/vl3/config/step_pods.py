"""What the pods of the workflow's own steps take on a cluster, as data: those that run no training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import Amount, Range, check_fields
from vl3.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PodSize:
    """Size of a step's pod."""

    cpus: Amount
    """CPU cores that the pod requests: a node must have them free."""
    cpu_limit: Amount
    """CPU cores that it may use while the node's others leave them idle."""
    memory_gib: Amount
    """Memory in GiB that it requests and may use; a pod that needs more is killed."""
    shm_gib: Annotated[float, Range(at_least=0, at_most=1e6)] = 0.0
    """Shared memory in GiB, for the processes of an evaluation; it counts as memory. 0 keeps the container runtime's
    64 MiB."""

    def __post_init__(self) -> None:
        check_fields(self, "step_pods")
        if self.cpu_limit < self.cpus:
            raise ConfigError(
                f"step_pods: cpu_limit={self.cpu_limit:g} is less than the requested cpus={self.cpus:g}, which "
                "Kubernetes refuses. Raise cpu_limit or lower cpus."
            )
        if self.shm_gib >= self.memory_gib:
            raise ConfigError(
                f"step_pods: shm_gib={self.shm_gib:g} counts as memory and leaves nothing of "
                f"memory_gib={self.memory_gib:g}. Lower shm_gib or raise memory_gib."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPodsConfig:
    """The size of each kind of step pod; a kind is named like the image that it runs. The defaults suit a 2B model."""

    launcher: PodSize = PodSize(cpus=0.25, cpu_limit=2.0, memory_gib=4.0)
    """The light steps, and those that start a stage's TrainJob and watch it."""
    data: PodSize = PodSize(cpus=4.0, cpu_limit=8.0, memory_gib=16.0)
    """The steps that build and validate the dataset."""
    evaluator: PodSize = PodSize(cpus=4.0, cpu_limit=16.0, memory_gib=64.0, shm_gib=4.0)
    """The step that measures held-out accuracy; it has no GPU."""
    curator: PodSize = PodSize(cpus=4.0, cpu_limit=16.0, memory_gib=32.0, shm_gib=4.0)
    """The step that curates: it selects and hands over, and scores too where no placement names a pool for that."""

    def of(self, kinds: Iterable[str]) -> dict[str, PodSize]:
        """The sizes of some kinds."""
        return {kind: getattr(self, kind) for kind in kinds}


def cpu_quantity(cpus: float) -> str:
    """Cores as Kubernetes writes them, rounded up: 0.1 is `100m`, 4.0 is `4000m`."""
    return f"{math.ceil(round(cpus * 1000, 6))}m"


def memory_quantity(gib: float) -> str:
    """Memory as Kubernetes writes it, rounded up: 0.5 is `512Mi`, 16.0 is `16384Mi`."""
    return f"{math.ceil(round(gib * 1024, 6))}Mi"
