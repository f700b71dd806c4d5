"""Where a stage's pods run on a cluster, as data: pool, size, queue, priority, limits."""

import re
from dataclasses import dataclass
from typing import Annotated

from vl3.config.checks import Amount, Range, Seconds, Workers, check_fields
from vl3.errors import ConfigError

BUILD = "build"
"""Name of the placement of the dataset's build; without one, the step's own pod builds."""

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """What a stage asks of the cluster; its pods are all alike."""

    pool: str
    """Pool of nodes: names the training runtime `vl3-torch-<pool>` and the resource flavour."""
    nodes: Workers
    """Pods of the stage; a pod that takes all GPUs of a node has the node to itself."""
    processes_per_node: Workers
    """Training processes of each pod: one a GPU, or one a core on a pool without GPUs."""
    gpus_per_node: Annotated[int, Range(at_least=0, at_most=4096)]
    """GPUs of each pod; 0 on a pool without GPUs."""
    cpus_per_node: Amount
    """CPU cores that each pod requests and may use."""
    memory_gib: Amount
    """Memory of each pod in GiB; one that needs more is killed."""
    shm_gib: Amount
    """Shared memory of each pod in GiB, for NCCL and the loader; it counts as memory."""
    queue: str
    """LocalQueue of the run's namespace through which the stage is admitted."""
    priority: str
    """WorkloadPriorityClass; a higher one may preempt a lower one, which later resumes from its checkpoint."""
    queue_timeout_seconds: Seconds
    """Time that the stage may wait for quota; what it may take once it runs is in `stages.<stage>`."""
    max_retries: Annotated[int, Range(at_least=0, at_most=1000)]
    """Retries after failures of the platform: a lost node, an eviction, a crash."""

    def __post_init__(self) -> None:
        check_fields(self, "placement")
        for name in ("pool", "queue", "priority"):
            _require_kubernetes_name(name, getattr(self, name))
        if self.gpus_per_node not in (0, self.processes_per_node):
            raise ConfigError(
                f"placement.gpus_per_node={self.gpus_per_node} must equal processes_per_node={self.processes_per_node} "
                "or GPUs would be idle or shared. Make them equal, or set gpus_per_node=0 for a pool without GPUs."
            )
        if self.shm_gib >= self.memory_gib:
            raise ConfigError(
                f"placement.shm_gib={self.shm_gib:g} counts as memory and leaves nothing of "
                f"memory_gib={self.memory_gib:g}. Lower shm_gib or raise memory_gib."
            )

    @property
    def num_processes(self) -> int:
        """World size of the stage."""
        return self.nodes * self.processes_per_node


PlacementTable = dict[str, PlacementConfig]
"""The placement of each stage by its name, and of the build if it is to run on a Ray cluster."""


def _require_kubernetes_name(field: str, value: str) -> None:
    """Names go into labels and paths of the API server, so they are checked before they reach it."""
    if not _KUBERNETES_NAME.fullmatch(value):
        raise ConfigError(
            f"placement.{field}={value!r} is not a valid Kubernetes name. Use up to 63 characters of a-z, 0-9 and '-', "
            "with a letter or digit at both ends."
        )
