"""Versions, names and folders of the kind cluster, defined only here."""

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
MODULES = HERE / "modules"

KUBERNETES_VERSION = "v1.36.3"
DEFAULT_NAME = "vl3"
POD_SUBNET = "10.244.0.0/16"
NODE_PORTS = (30833, 30500)
"""S3 and MLflow: the same number as NodePort, container port and port on 127.0.0.1."""

JOBSET_IMAGE = "registry.k8s.io/jobset/jobset:v0.12.0"
TRAINER_IMAGE = "ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.3.0"
KUEUE_IMAGE = "registry.k8s.io/kueue/kueue:v0.18.4"
KUBERAY_IMAGE = "quay.io/kuberay/operator:v1.5.0"
KWOK_IMAGE = "registry.k8s.io/kwok/kwok:v0.7.0"
SEAWEEDFS_IMAGE = "vl3/seaweedfs:kind"
POSTGRES_IMAGE = "vl3/postgres:kind"
_ROLES = ("launcher", "trainer", "mlflow", "data", "evaluator", "curator")
PROJECT_IMAGES = tuple(f"ghcr.io/vl3/{role}:0.1.0" for role in _ROLES)
"""Built by `make images`; loaded into the cluster if Docker has them. All that the whole workflow runs in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One cluster and the folders of its files."""

    name: str
    cache: Path
    """Built programs and the workers' image stores; survives `down`."""
    state: Path
    """kubeconfig and what `up` records about this cluster; removed by `down`."""
    pull: bool
    """Try kind's stock node image before making one."""

    @property
    def kubeconfig(self) -> Path:
        """The file to set KUBECONFIG to; never ~/.kube/config."""
        return self.state / "kubeconfig"

    @property
    def worker(self) -> str:
        """Container and node name of the worker."""
        return f"{self.name}-worker"


def read_settings(name: str = DEFAULT_NAME) -> Settings:
    """Settings of the cluster `name`, with the folders from the environment."""
    cache = Path(os.environ.get("VL3_CACHE") or Path.home() / ".cache" / "vl3") / "kind"
    folder = "kind" if name == DEFAULT_NAME else f"kind-{name}"
    return Settings(
        name=name,
        cache=cache,
        state=ROOT / "build" / folder,
        pull=os.environ.get("VL3_KIND_PULL") == "1",
    )
