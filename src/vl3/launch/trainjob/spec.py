"""A launch as a TrainJob of trainer.kubeflow.org/v1alpha1: a pure function, tested against golden files."""

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

from vl3.config.fabric import GPU_RESOURCE, FabricConfig, SchedulingConfig, Toleration
from vl3.config.placement import BENCHMARKS, PlacementConfig
from vl3.conventions import ENDPOINT_KEY, ENDPOINT_SECRET
from vl3.launch.grace import GRACE_VARIABLE
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.document import JOB_VARIABLE, document_of, escaped
from vl3.launch.jobs.names import (
    DEADLINE_MARGIN_SECONDS,
    DIGEST_ANNOTATION,
    HISTORY_ANNOTATION,
    LAUNCHER_ANNOTATION,
    MANAGER,
    RUN_ID_ANNOTATION,
    RUNTIME_PREFIX,
    job_labels,
    job_name,
    pod_labels,
)
from vl3.launch.jobs.shared_memory import SHM_MOUNT, shm_volume

REQUIRED_TOPOLOGY_ANNOTATION = "kueue.x-k8s.io/podset-required-topology"
PREFERRED_TOPOLOGY_ANNOTATION = "kueue.x-k8s.io/podset-preferred-topology"
_SILENT_NODE = tuple(
    Toleration(key=f"node.kubernetes.io/{condition}", effect="NoExecute", seconds=60)
    for condition in ("not-ready", "unreachable")
)
"""As the runtimes have them: Kubernetes would wait five minutes for a node that is silent."""
_ENDPOINT_KEY: dict[str, Any] = {
    "name": ENDPOINT_KEY,
    "valueFrom": {"secretKeyRef": {"name": ENDPOINT_SECRET, "key": ENDPOINT_KEY, "optional": True}},
}
"""For the judge that benchmarks ask."""
API_VERSION = "trainer.kubeflow.org/v1alpha1"


def build_trainjob(
    job: LaunchJob, *, attempt: int, history: str = "", owner: dict[str, Any] | None = None, launcher_pod: str = ""
) -> dict[str, Any]:
    """The TrainJob of one attempt.

    Args:
        job: what to run.
        attempt: number of the attempt, from 1.
        history: how the earlier attempts ended.
        owner: owner reference, so that the job is deleted with its workflow run.
        launcher_pod: the pod that follows the job; empty outside a cluster.

    Raises:
        ConfigError: a name is not valid, or the document is too large.
    """
    placement = job.placement
    assert placement is not None
    spec = _spec(job, placement)
    labels = job_labels(job.run_id, job.stage, attempt, queue=placement.queue, priority=placement.priority)
    metadata: dict[str, Any] = {
        "name": job_name(job.run_id, job.stage, attempt),
        "labels": labels,
        "annotations": {
            RUN_ID_ANNOTATION: job.run_id,
            # The grace period is estimated, and a launcher that comes later may know better: the job is still its own.
            DIGEST_ANNOTATION: _digest(_spec(replace(job, grace_seconds=None), placement), placement),
            **({HISTORY_ANNOTATION: history} if history else {}),
            **({LAUNCHER_ANNOTATION: launcher_pod} if launcher_pod else {}),
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": API_VERSION, "kind": "TrainJob", "metadata": metadata, "spec": spec}


def _spec(job: LaunchJob, placement: PlacementConfig) -> dict[str, Any]:
    return {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "ClusterTrainingRuntime",
            "name": RUNTIME_PREFIX + placement.pool,
        },
        "trainer": {
            "numNodes": placement.nodes,
            "numProcPerNode": placement.processes_per_node,
            "resourcesPerNode": _resources(placement),
            "env": _environment(job, placement.fabric),
            **({"image": placement.image} if placement.image else {}),
        },
        "runtimePatches": [{"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": _patch(job, placement)}}}],
        **_deadline(job),
    }


def _deadline(job: LaunchJob) -> dict[str, int]:
    """The cluster's own limit, only where the stage has one: the launcher sees progress, and Kubernetes does not.

    A job whose launcher does not come back is deleted by the collector (manifests/base/gc).
    """
    if job.timeout_seconds is None:
        return {}
    return {"activeDeadlineSeconds": math.ceil(job.timeout_seconds) + DEADLINE_MARGIN_SECONDS}


def _resources(placement: PlacementConfig) -> dict[str, dict[str, str]]:
    """Requests equal to limits: a pod gets what counts against its quota, and no other pod can use it."""
    amounts = pod_resources(placement)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def pod_resources(placement: PlacementConfig) -> dict[str, str]:
    """What one pod requests.

    1.4 cores, 4 GiB and 2 GPUs give {"cpu": "1400m", "memory": "4096Mi", "nvidia.com/gpu": "2"}.
    """
    amounts = {
        "cpu": f"{round(placement.cpus_per_node * 1000)}m",
        "memory": f"{round(placement.memory_gib * 1024)}Mi",
    }
    if placement.gpus_per_node:
        amounts[GPU_RESOURCE] = str(placement.gpus_per_node)
    amounts |= {name: str(count) for name, count in sorted(placement.fabric.devices.items())}
    for size, gib in sorted(placement.fabric.hugepages_gib.items()):
        amounts[f"hugepages-{size}"] = f"{round(gib * 1024)}Mi"
    return amounts


def _patch(job: LaunchJob, placement: PlacementConfig) -> dict[str, Any]:
    """What differs from job to job in the pods of the runtime's replicated job `node`."""
    template: dict[str, Any] = {
        "metadata": {"labels": pod_labels(job.run_id, job.stage)} | _annotations(placement.scheduling),
        "spec": {
            "volumes": [shm_volume(placement), *(_hugepages(size) for size in sorted(placement.fabric.hugepages_gib))],
            "containers": [_container(placement.fabric)],
            **_nodes(placement.scheduling),
        },
    }
    return {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": template}}}]}


def _container(fabric: FabricConfig) -> dict[str, Any]:
    """The training container: its mounts, and capabilities beside the runtime's, which drops all."""
    mounts = [dict(SHM_MOUNT), *({"name": _volume(size), "mountPath": f"/{_volume(size)}"}
                                 for size in sorted(fabric.hugepages_gib))]  # fmt: skip
    container: dict[str, Any] = {"name": "node", "volumeMounts": mounts}
    if fabric.capabilities:
        container["securityContext"] = {"capabilities": {"drop": ["ALL"], "add": list(fabric.capabilities)}}
    return container


def _hugepages(size: str) -> dict[str, Any]:
    """Huge pages of a size; the pod's request says how many."""
    return {"name": _volume(size), "emptyDir": {"medium": f"HugePages-{size}"}}


def _volume(size: str) -> str:
    """`hugepages-2mi`: names of volumes have no capitals."""
    return f"hugepages-{size.lower()}"


def _annotations(scheduling: SchedulingConfig) -> dict[str, dict[str, str]]:
    """What Kueue reads of the pods to place them near each other."""
    wanted = {
        REQUIRED_TOPOLOGY_ANNOTATION: scheduling.required_topology,
        PREFERRED_TOPOLOGY_ANNOTATION: scheduling.preferred_topology,
    }
    found = {name: level for name, level in wanted.items() if level}
    return {"annotations": found} if found else {}


def _nodes(scheduling: SchedulingConfig) -> dict[str, Any]:
    """Tolerations and node selector, where the placement has any.

    A list of tolerations replaces the runtime's, so those for a node that is silent are in it again.
    """
    spec: dict[str, Any] = {}
    if scheduling.tolerations:
        spec["tolerations"] = tolerations_of(scheduling)
    if scheduling.node_labels:
        spec["nodeSelector"] = dict(sorted(scheduling.node_labels.items()))
    return spec


def tolerations_of(scheduling: SchedulingConfig) -> list[dict[str, Any]]:
    """All tolerations of the pods; empty if the runtime's hold."""
    return [_toleration(one) for one in (*scheduling.tolerations, *_SILENT_NODE)] if scheduling.tolerations else []


def _toleration(toleration: Toleration) -> dict[str, Any]:
    """A toleration as Kubernetes writes it."""
    fields = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
    }
    written: dict[str, Any] = {name: value for name, value in fields.items() if value}
    return written if toleration.seconds is None else written | {"tolerationSeconds": toleration.seconds}


def _environment(job: LaunchJob, fabric: FabricConfig) -> list[dict[str, Any]]:
    variables = fabric.environment | {
        "OMP_NUM_THREADS": str(job.threads_per_process),
        "TOKENIZERS_PARALLELISM": "false",
        JOB_VARIABLE: document_of(job),
        **({} if job.grace_seconds is None else {GRACE_VARIABLE: str(job.grace_seconds)}),
    }
    given: list[dict[str, Any]] = [{"name": name, "value": escaped(one)} for name, one in sorted(variables.items())]
    return [*given, _ENDPOINT_KEY] if job.stage == BENCHMARKS else given


def _digest(spec: dict[str, Any], placement: PlacementConfig) -> str:
    """Digest of everything that the launcher sets; what webhooks add later is not part of it."""
    asked = {"spec": spec, "queue": placement.queue, "priority": placement.priority}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
