"""The resources of the API server that the launcher uses, and their paths."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object of the API server."""

    api: str
    """Root of its API: `api/v1` or `apis/<group>/<version>`."""
    plural: str
    """Name of the kind in paths."""
    is_namespaced: bool = True
    """Whether its objects belong to a namespace."""

    def path(self, namespace: str, name: str | None = None, part: str | None = None) -> str:
        """Path of one object (or a part of it), or of all objects in a namespace."""
        where = f"/namespaces/{quote(namespace, safe='')}" if self.is_namespaced else ""
        path = f"/{self.api}{where}/{self.plural}"
        if name is not None:
            path += f"/{quote(name, safe='')}"
        return path if part is None else f"{path}/{part}"

    @property
    def group(self) -> str:
        """API group, empty for the core."""
        return self.api.split("/")[1] if self.api.startswith("apis/") else ""


TRAINJOBS = Resource("apis/trainer.kubeflow.org/v1alpha1", "trainjobs")
RAYJOBS = Resource("apis/ray.io/v1", "rayjobs")
POD_TEMPLATES = Resource("api/v1", "podtemplates")
WORKLOADS = Resource("apis/kueue.x-k8s.io/v1beta2", "workloads")
LOCAL_QUEUES = Resource("apis/kueue.x-k8s.io/v1beta2", "localqueues")
CLUSTER_QUEUES = Resource("apis/kueue.x-k8s.io/v1beta2", "clusterqueues", is_namespaced=False)
PRIORITY_CLASSES = Resource("apis/kueue.x-k8s.io/v1beta2", "workloadpriorityclasses", is_namespaced=False)
QUEUE_PLACES = Resource("apis/visibility.kueue.x-k8s.io/v1beta2", "localqueues")
PODS = Resource("api/v1", "pods")
EVENTS = Resource("api/v1", "events")
