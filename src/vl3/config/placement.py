"""Where a stage's pods run on a cluster, as data: pool, size, queue, priority, limits."""

import re
from dataclasses import dataclass, field
from typing import Annotated

from vl3.config.checks import Amount, Range, Seconds, Workers, check_fields
from vl3.config.fabric import FabricConfig, SchedulingConfig
from vl3.errors import ConfigError

CURATE = "curate"
"""Name of the placement of a curation's scorers; without one, the step's own pod scores."""
BUILD = "build"
"""Name of the placement of the dataset's build; without one, the step's own pod builds."""
EVALUATION = "evaluation"
"""Name of the placement of the evaluation; without one, the step's own pod evaluates."""
BENCHMARKS = "benchmarks"
"""Name of the placement of the benchmarks; without one, the step's own machine runs them."""
RESERVED = (BUILD, EVALUATION, BENCHMARKS)
"""Placements that are not those of stages."""

_KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_GPU_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """What a stage asks of the cluster; its pods are all alike."""

    pool: str
    """Pool of nodes: names the training runtime `vl3-torch-<pool>` and the resource flavour."""
    nodes: Workers
    """Pods of the stage; a pod that takes all GPUs of a node has the node to itself. The most of them, if `min_nodes`
    is set."""
    min_nodes: Workers | None = None
    """Fewest pods with which the stage may run: each attempt takes what its queue gives, between this and `nodes`, and
    its samples and steps stay the same. None always runs with `nodes`."""
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
    gpu: str = ""
    """Kind of the pool's GPUs, such as `h200`: decides what a stage can reach and what memory it has. Empty if the pool
    has none, or if nobody has said."""
    image: str = ""
    """Image of the pods, such as that of the benchmarks' harness; empty takes the runtime's."""
    price_per_gpu_hour: Annotated[float, Range(at_least=0, at_most=1e6)] | None = None
    """Price of one GPU for an hour, for the cost of each stage; None leaves costs out."""
    currency: str = "USD"
    """Currency of the price, as three capital letters."""
    fabric: FabricConfig = field(default_factory=FabricConfig)
    """The network between the pool's nodes: devices, capabilities, settings of NCCL."""
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    """Which of the pool's nodes take the pods: tolerations, labels, topology."""

    def __post_init__(self) -> None:
        check_fields(self, "placement")
        for name in ("pool", "queue", "priority"):
            _require_kubernetes_name(name, getattr(self, name))
        if self.gpus_per_node not in (0, self.processes_per_node):
            raise ConfigError(
                f"placement.gpus_per_node={self.gpus_per_node} must equal processes_per_node={self.processes_per_node} "
                "or GPUs would be idle or shared. Make them equal, or set gpus_per_node=0 for a pool without GPUs."
            )
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ConfigError(
                f"placement.min_nodes={self.min_nodes} is more than nodes={self.nodes}, the most that the stage may "
                "take. Lower min_nodes or raise nodes."
            )
        self._check_gpu()
        if self.shm_gib >= self.memory_gib:
            raise ConfigError(
                f"placement.shm_gib={self.shm_gib:g} counts as memory and leaves nothing of "
                f"memory_gib={self.memory_gib:g}. Lower shm_gib or raise memory_gib."
            )

    def _check_gpu(self) -> None:
        if self.gpu and not _GPU_NAME.fullmatch(self.gpu):
            raise ConfigError(
                f"placement.gpu={self.gpu!r} is no name of a kind of GPU. Use up to 32 characters of a-z, 0-9 and '-', "
                "such as h200 or a100-80gb."
            )
        if not _CURRENCY.fullmatch(self.currency):
            raise ConfigError(
                f"placement.currency={self.currency!r} is no currency. Use its three capital letters, such as USD or "
                "EUR."
            )
        for name in ("gpu", "price_per_gpu_hour"):
            if getattr(self, name) and not self.gpus_per_node:
                raise ConfigError(
                    f"placement.{name}={getattr(self, name)} speaks of GPUs, but gpus_per_node=0. Leave it out, or set "
                    "gpus_per_node to the GPUs of each pod."
                )

    @property
    def num_processes(self) -> int:
        """World size of the stage; the largest, if its number of nodes may change."""
        return self.nodes * self.processes_per_node

    def node_counts(self, packs: int | None) -> list[int]:
        """Numbers of nodes with which the stage may run, the largest first: each process has as many of the packs.

        12 packs a step, 2 to 4 nodes of one process: [4, 3, 2]; with 2 processes a node: [3, 2], because 12 packs
        cannot be shared by 8 processes.

        Args:
            packs: packs of a step, or what their number is a multiple of; None if the processes share no packs, so
                that there may be any number of them.
        """
        least = self.nodes if self.min_nodes is None else self.min_nodes
        counts = range(self.nodes, least - 1, -1)
        return [count for count in counts if packs is None or packs % (count * self.processes_per_node) == 0]


PlacementTable = dict[str, PlacementConfig]
"""The placement of each stage by its name, of the build if it is to run on a Ray cluster, and of the evaluation if it
is to run in pods of its own."""


def _require_kubernetes_name(field: str, value: str) -> None:
    """Names go into labels and paths of the API server, so they are checked before they reach it."""
    if not _KUBERNETES_NAME.fullmatch(value):
        raise ConfigError(
            f"placement.{field}={value!r} is not a valid Kubernetes name. Use up to 63 characters of a-z, 0-9 and '-', "
            "with a letter or digit at both ends."
        )
