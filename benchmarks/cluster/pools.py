"""Separate pools for measurements on the kind cluster: rendered from manifests/, removed completely."""

import copy
import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import yaml

from tests.support.cluster.reach import KUBECONFIG, KUBECTL, REPOSITORY, Cluster
from tests.support.cluster.simulated import gpu_node

GPUS_PER_NODE = 8
_ROOM = {"cpu": 128, "memory": 1024, "nvidia.com/gpu": GPUS_PER_NODE}
"""What a simulated node has: cores, GiB, GPUs."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool with a flavour, a ClusterQueue, a LocalQueue and a runtime of its name."""

    name: str
    """Name of the pool, of its queue and of its flavour."""
    nodes: int
    """Simulated nodes; 0 for pods on the real worker."""
    code: str = ""
    """On the real worker: Python that its pods run, in the launcher's image."""

    @property
    def gpus(self) -> int:
        """GPUs that exist."""
        return self.nodes * GPUS_PER_NODE


class Pools:
    """A namespace with pools, for the length of a `with`."""

    def __init__(self, cluster: Cluster, namespace: str, pools: Sequence[Pool]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.pools = tuple(pools)

    def __enter__(self) -> Self:
        rendered = _rendered()
        objects = [_namespace(self.namespace), _account(self.namespace)]
        for pool in self.pools:
            objects += _pool_objects(pool, self.namespace, rendered)
        self.cluster.apply(*objects)
        self._wait_for_queues()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove everything, in an order in which nothing waits for what is removed later."""
        names = [pool.name for pool in self.pools]
        self._delete("--namespace", self.namespace, "trainjobs", "--all")
        self._delete("namespace", self.namespace)
        self._delete("clusterqueues", *names)
        self._delete("resourceflavors", *names)
        self._delete("clustertrainingruntimes", *(f"vl3-torch-{name}" for name in names))
        self._delete("nodes", "--selector", f"vl3.dev/benchmark={self.namespace}")

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Objects of the namespace."""
        text = self.cluster.kubectl("--namespace", self.namespace, "get", *arguments, "--output", "json")
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def leftovers(self) -> list[str]:
        """What launches have left in the namespace, except complete TrainJobs and their objects."""
        found = self.get("trainjobs,jobsets,jobs,pods,workloads,secrets")
        return [f"{item['kind']} {item['metadata']['name']}" for item in found]

    def _delete(self, *arguments: str) -> None:
        command = [
            str(KUBECTL),
            "--kubeconfig",
            str(KUBECONFIG),
            "delete",
            "--ignore-not-found",
            "--timeout=300s",
            *arguments,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _wait_for_queues(self) -> None:
        deadline = time.monotonic() + 120
        names = {pool.name for pool in self.pools}
        while True:
            text = self.cluster.kubectl("get", "clusterqueues", *sorted(names), "--output", "json")
            found = json.loads(text)
            queues = found.get("items", [found])
            if all(_is_active(queue) for queue in queues):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster queues of {sorted(names)} did not become active")
            time.sleep(1)


def _rendered() -> dict[tuple[str, str], dict[str, Any]]:
    """The kind overlay's objects of the whole cluster by kind and name."""
    command = [str(KUBECTL), "kustomize", str(REPOSITORY / "manifests" / "overlays" / "kind" / "cluster")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text)}


def _pool_objects(pool: Pool, namespace: str, rendered: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """The project's pool h200 (or cpu, for the real worker) under another name and with this pool's quota."""
    like = "h200" if pool.nodes else "cpu"
    place = pool.name if pool.nodes else like
    flavour, queue, runtime = (
        copy.deepcopy(rendered[kind, name])
        for kind, name in (
            ("ResourceFlavor", like),
            ("ClusterQueue", f"vl3-{like}"),
            ("ClusterTrainingRuntime", f"vl3-torch-{like}"),
        )
    )
    for item, name in ((flavour, pool.name), (queue, pool.name), (runtime, f"vl3-torch-{pool.name}")):
        item["metadata"]["name"] = name
    flavour["spec"]["nodeLabels"]["vl3.dev/pool"] = place
    queue["spec"]["cohortName"] = namespace
    quota = queue["spec"]["resourceGroups"][0]["flavors"][0]
    quota["name"] = pool.name
    if pool.nodes:
        units = {"memory": "Gi"}
        for resource in quota["resources"]:
            name = resource["name"]
            resource["nominalQuota"] = f"{_ROOM[name] * pool.nodes}{units.get(name, '')}"
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["nodeSelector"]["vl3.dev/pool"] = place
    if pool.code:
        container = pod["containers"][0]
        container["image"] = container["image"].replace("/trainer:", "/launcher:")
        container["command"] = ["python", "-u", "-c", pool.code]
        del container["envFrom"]  # the namespace has no settings, and this code needs none
    local = {
        "apiVersion": queue["apiVersion"],
        "kind": "LocalQueue",
        "metadata": {"name": pool.name, "namespace": namespace},
        "spec": {"clusterQueue": pool.name},
    }
    return [flavour, queue, runtime, local, *(_node(pool, namespace, number) for number in range(pool.nodes))]


def _node(pool: Pool, namespace: str, number: int) -> dict[str, Any]:
    """A simulated node that the clean-up of the tests leaves alone."""
    node = gpu_node(f"{pool.name}-{number:03d}", pool.name, gpus=GPUS_PER_NODE)
    labels = node["metadata"]["labels"]
    del labels["vl3.dev/simulated"]
    labels["vl3.dev/benchmark"] = namespace
    return node


def _namespace(name: str) -> dict[str, Any]:
    labels = {"vl3.dev/queues": "true", "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _account(namespace: str) -> dict[str, Any]:
    metadata = {"name": "vl3-trainer", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False}


def _is_active(queue: dict[str, Any]) -> bool:
    conditions = queue.get("status", {}).get("conditions", [])
    return any(one["type"] == "Active" and one["status"] == "True" for one in conditions)
