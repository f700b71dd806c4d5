"""A snapshot of a cluster: the facts that the checks judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vl3.launch.check.retries import WorkflowDefaults

Object = Mapping[str, Any]
"""A Kubernetes object as the API gives it."""

TRAINER = "trainer.kubeflow.org/v1alpha1"
JOBSET = "jobset.x-k8s.io/v1alpha2"
RAY = "ray.io/v1"
KUEUE = ("kueue.x-k8s.io/v1beta2", "kueue.x-k8s.io/v1beta1")
"""Supported versions of Kueue's API, the preferred one first."""
TRAINJOB_FIELDS = ("runtimeRef", "trainer", "runtimePatches", "suspend", "activeDeadlineSeconds")
"""Fields of TrainJob.spec that vl3 sets; runtimePatches came with Trainer 2.2."""


class ObjectKind(Enum):
    """Kinds of objects that are checked: (kind, plural, whether it is namespaced)."""

    NAMESPACE = ("Namespace", "namespaces", False)
    RUNTIME = ("ClusterTrainingRuntime", "clustertrainingruntimes", False)
    POD_TEMPLATE = ("PodTemplate", "podtemplates", True)
    LOCAL_QUEUE = ("LocalQueue", "localqueues", True)
    CLUSTER_QUEUE = ("ClusterQueue", "clusterqueues", False)
    COHORT = ("Cohort", "cohorts", False)
    FLAVOR = ("ResourceFlavor", "resourceflavors", False)
    PRIORITY = ("WorkloadPriorityClass", "workloadpriorityclasses", False)
    NODE = ("Node", "nodes", False)
    CONFIG_MAP = ("ConfigMap", "configmaps", True)
    SERVICE_ACCOUNT = ("ServiceAccount", "serviceaccounts", True)

    @property
    def label(self) -> str:
        """The kind as Kubernetes writes it."""
        return self.value[0]

    @property
    def plural(self) -> str:
        """The kind in paths and rules."""
        return self.value[1]

    @property
    def is_namespaced(self) -> bool:
        """Whether its objects belong to a namespace."""
        return self.value[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFacts:
    """A snapshot of what the checks need, read once."""

    server: str
    """Address of the API server."""
    version: str
    """Version of the API server, `v1.36.3`."""
    namespace: str
    """Namespace in which the jobs would run."""
    apis: Mapping[str, frozenset[str]]
    """Plural names that each served `group/version` has; a version that is not served is absent."""
    trainjob_fields: frozenset[str] | None
    """Fields of TrainJob.spec that the server knows; None if it publishes no schema."""
    denied: tuple[str, ...]
    """Rights that this identity needs and lacks: `create trainjobs.trainer.kubeflow.org`."""
    refusals: Mapping[str, str]
    """Why the server would reject one of our jobs now, by their kind: only of those that were tried."""
    objects: Mapping[ObjectKind, Mapping[str, Object]]
    """Objects by name, of the kinds that could be read."""
    unreadable: Mapping[ObjectKind, str]
    """Why objects of a kind could not be read."""
    workflow_defaults: WorkflowDefaults | None = None
    """Defaults of the cluster's workflow controller; None if nobody asked."""

    def known(self, kind: ObjectKind) -> Mapping[str, Object]:
        """Objects of a kind by name; empty if they could not be read."""
        return self.objects.get(kind, {})

    def is_known(self, kind: ObjectKind) -> bool:
        """Whether objects of a kind could be read, so that one that is not there is really missing."""
        return kind in self.objects

    @property
    def kueue(self) -> str | None:
        """The preferred version of Kueue's API that the server has; None if it has none."""
        return next((version for version in KUEUE if version in self.apis), None)
