"""What a pool's pods need beyond cores, memory and GPUs: the network between them, and which nodes take them.

A pool of eight GPUs a node with InfiniBand, whose device plugin offers `rdma/hca`:

    FabricConfig(devices={"rdma/hca": 8}, capabilities=["IPC_LOCK"], environment={"NCCL_IB_HCA": "mlx5"})
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

from vl3.config.checks import Amount, OneOf, Range, Workers, check_fields
from vl3.errors import ConfigError

GPU_RESOURCE = "nvidia.com/gpu"
"""Resource name of a GPU, which `gpus_per_node` requests."""
HUGEPAGE_SIZES = ("2Mi", "1Gi")
"""Page sizes of which Kubernetes has resources."""

_DEVICE = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(
    r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?",
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_CAPABILITY = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_OURS = ("VL3_", "PET_", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")


@dataclass(frozen=True, kw_only=True, slots=True)
class FabricConfig:
    """The network between the nodes of a pool, as each pod needs it."""

    devices: dict[str, Workers] = field(default_factory=dict, hash=False)
    """Resources of device plugins that each pod requests besides its GPUs, such as `rdma/hca: 8`."""
    hugepages_gib: dict[str, Amount] = field(default_factory=dict, hash=False)
    """Huge pages of each pod in GiB by page size, `2Mi` or `1Gi`, mounted at `/hugepages-<size>`; they do not count as
    memory."""
    capabilities: list[str] = field(default_factory=list, hash=False)
    """Linux capabilities that the training container gets, such as `IPC_LOCK` to pin memory for RDMA. The namespace has
    to allow them: the Pod Security levels `baseline` and `restricted` do not."""
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    """Variables of the training processes, such as `NCCL_IB_HCA`; never a secret, because they are in the job."""

    def __post_init__(self) -> None:
        check_fields(self, "placement.fabric")
        for name in self.devices:
            if name == GPU_RESOURCE or not _DEVICE.fullmatch(name):
                why = "is what gpus_per_node requests" if name == GPU_RESOURCE else "is no resource of a device plugin"
                raise ConfigError(
                    f"placement.fabric.devices has {name!r}, which {why}. Name a resource as a node's `allocatable` "
                    "does, such as rdma/hca or nvidia.com/hostdev."
                )
        for size in self.hugepages_gib:
            if size not in HUGEPAGE_SIZES:
                raise ConfigError(
                    f"placement.fabric.hugepages_gib has the page size {size!r}. Use "
                    f"one of {', '.join(HUGEPAGE_SIZES)}."
                )
        for name in self.capabilities:
            if not _CAPABILITY.fullmatch(name) or name.startswith("CAP_"):
                raise ConfigError(
                    f"placement.fabric.capabilities has {name!r}. Write a capability as Kubernetes does, without CAP_: "
                    "IPC_LOCK."
                )
        for name, value in self.environment.items():
            self._check_variable(name, value)

    def _check_variable(self, name: str, value: str) -> None:
        if not _VARIABLE.fullmatch(name) or name.startswith(_OURS):
            why = "vl3 sets itself" if name.startswith(_OURS) else "is no name of a variable"
            raise ConfigError(
                f"placement.fabric.environment has {name!r}, which {why}. Use capitals, digits and '_', such as "
                "NCCL_IB_HCA or NCCL_SOCKET_IFNAME."
            )
        if len(value) > 1000 or not value.isprintable():
            raise ConfigError(
                f"placement.fabric.environment.{name} has {len(value)} characters or one that cannot be printed. Use "
                "up to 1000 printable characters."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Toleration:
    """A taint of nodes that the pods accept, with the words of Kubernetes."""

    key: str
    """Key of the taint."""
    operator: Annotated[str, OneOf(("Exists", "Equal"))] = "Exists"
    """`Exists` accepts any value, `Equal` only this one."""
    value: str = ""
    """Value of the taint, for `Equal`."""
    effect: Annotated[str, OneOf(("", "NoSchedule", "PreferNoSchedule", "NoExecute"))] = ""
    """Effect of the taint; empty accepts all."""
    seconds: Annotated[int, Range(at_least=0, at_most=10**9)] | None = None
    """How long a pod stays on a node that gets the taint (`NoExecute`); None stays."""

    def __post_init__(self) -> None:
        check_fields(self, "placement.scheduling.tolerations")
        _require_label("placement.scheduling.tolerations", self.key, self.value)
        if self.value and self.operator == "Exists":
            raise ConfigError(
                f"placement.scheduling.tolerations: {self.key} has the value {self.value!r}, which operator=Exists "
                "does not compare. Set operator=Equal, or leave the value out."
            )
        if self.seconds is not None and self.effect != "NoExecute":
            raise ConfigError(
                f"placement.scheduling.tolerations: {self.key} has seconds={self.seconds}, which Kubernetes takes only "
                "with effect=NoExecute. Set that, or leave the seconds out."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulingConfig:
    """Which nodes of a pool take the pods; the pool's own runtime and flavour say the rest."""

    tolerations: list[Toleration] = field(default_factory=list, hash=False)
    """Taints that the pods accept, in place of those of the pool's runtime: Trainer replaces this list and merges
    nothing into it, so name all that the pool's nodes have. Empty leaves the runtime's."""
    node_labels: dict[str, str] = field(default_factory=dict, hash=False)
    """Labels that a node must have."""
    required_topology: str = ""
    """Label of nodes, such as `cloud.provider.com/topology-rack`, of which all pods must have the same value: Kueue
    admits the job only there. The flavour needs a Topology with this level."""
    preferred_topology: str = ""
    """The same as a wish: Kueue takes the pods as near to each other as it can from this level up."""

    def __post_init__(self) -> None:
        check_fields(self, "placement.scheduling")
        for key, value in self.node_labels.items():
            _require_label("placement.scheduling.node_labels", key, value)
        for name in ("required_topology", "preferred_topology"):
            if level := getattr(self, name):
                _require_label(f"placement.scheduling.{name}", level, "")
        if self.required_topology and self.preferred_topology:
            raise ConfigError(
                f"placement.scheduling asks for required_topology={self.required_topology} and "
                f"preferred_topology={self.preferred_topology}, of which Kueue takes one. Leave one out."
            )


def _require_label(where: str, key: str, value: str) -> None:
    if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
        raise ConfigError(
            f"{where} has {key!r}={value!r}, which is no label of Kubernetes. Use a name of up to 63 letters, digits, "
            "'-', '_' and '.', with a prefix such as example.com/ if it has one."
        )
