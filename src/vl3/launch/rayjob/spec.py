"""A launch as a RayJob of ray.io/v1: a pure function of the job and the pool's pod template.

One head, which has the driver and no actor, `placement.nodes` workers, and the pod that hands the driver in and passes
its log on. KubeRay starts Ray in the containers; the template says all else: image, identity, limits of what they may.
"""

import copy
import hashlib
import json
import math
from typing import Any

from vl3.config.fabric import GPU_RESOURCE
from vl3.config.placement import BUILD, CURATE, PlacementConfig
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.document import JOB_VARIABLE, document_of, escaped
from vl3.launch.jobs.names import (
    DEADLINE_MARGIN_SECONDS,
    DIGEST_ANNOTATION,
    HISTORY_ANNOTATION,
    LAUNCHER_ANNOTATION,
    RUN_ID_ANNOTATION,
    job_labels,
    job_name,
    pod_labels,
)
from vl3.launch.jobs.shared_memory import SHM_MOUNT, shm_volume
from vl3.launch.kube.objects import CONTAINER, Object

API_VERSION = "ray.io/v1"
JOB_LABEL = "vl3.dev/job"
"""Label of the pods with the RayJob's name: KubeRay names the cluster at random."""
ROLE_LABEL = "vl3.dev/role"
HEAD, WORKER, SUBMITTER = "head", "worker", "submitter"
TEMPLATE_PREFIXES = {BUILD: "vl3-ray-", CURATE: "vl3-ray-curate-"}
"""By placement: the PodTemplate of a pool is this and the name of the pool. Each has the image of its work."""
HEAD_RESOURCES = {"cpu": "250m", "memory": "2Gi"}
SUBMITTER_RESOURCES = {"cpu": "100m", "memory": "512Mi"}
_LEAST_STORE_BYTES = 75 * 1024**2
"""Ray starts with no smaller object store."""
DASHBOARD_PORT, AGENT_PORT = 8265, 52365
"""Ports at which a head and a worker say that they work."""


def build_rayjob(
    job: LaunchJob,
    *,
    template: Object,
    attempt: int,
    history: str = "",
    owner: Object | None = None,
    launcher_pod: str = "",
) -> Object:
    """The RayJob of one attempt.

    Args:
        job: what to run.
        template: the PodTemplate of its pool.
        attempt: number of the attempt, from 1.
        history: how the earlier attempts ended.
        owner: owner reference, so that the job is deleted with its workflow run.
        launcher_pod: the pod that follows the job; empty outside a cluster.

    Raises:
        ConfigError: a name is not valid, or the document is too large.
    """
    placement = job.placement
    assert placement is not None
    name, document = job_name(job.run_id, job.stage, attempt), document_of(job)
    metadata: Object = {
        "name": name,
        "labels": job_labels(job.run_id, job.stage, attempt, queue=placement.queue, priority=placement.priority),
        "annotations": {
            RUN_ID_ANNOTATION: job.run_id,
            DIGEST_ANNOTATION: _digest(job, placement, document),
            **({HISTORY_ANNOTATION: history} if history else {}),
            **({LAUNCHER_ANNOTATION: launcher_pod} if launcher_pod else {}),
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    pods = _Pods(job, name, template, document)
    return {"apiVersion": API_VERSION, "kind": "RayJob", "metadata": metadata, "spec": _spec(job, placement, pods)}


class _Pods:
    """Makes the pod templates of one job."""

    def __init__(self, job: LaunchJob, name: str, template: Object, document: str) -> None:
        self._template = template["template"]
        self._labels = {**pod_labels(job.run_id, job.stage), JOB_LABEL: name}
        self._document = document

    def of(self, role: str, requests: dict[str, str], limits: dict[str, str], port: int | None = None) -> Object:
        """The template of a role's pods.

        Args:
            role: its part in the job.
            requests: what it asks for.
            limits: what it may use.
            port: where it says that it works.
        """
        pod: Object = copy.deepcopy(self._template)
        metadata = pod.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **self._labels, ROLE_LABEL: role}
        container = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
        container["resources"] = {"requests": dict(requests), "limits": dict(limits)}
        container["env"] = [*(container.get("env") or ()), {"name": JOB_VARIABLE, "value": escaped(self._document)}]
        if port is not None:
            path = "/api/gcs_healthz" if role == HEAD else "/api/local_raylet_healthz"
            probe = {"httpGet": {"port": port, "path": path}, "periodSeconds": 5, "timeoutSeconds": 5}
            container["readinessProbe"] = {**probe, "failureThreshold": 10}
            container["livenessProbe"] = {**probe, "failureThreshold": 24, "initialDelaySeconds": 30}
        return pod


def _spec(job: LaunchJob, placement: PlacementConfig, pods: _Pods) -> Object:
    workers = {
        "cpu": f"{round(placement.cpus_per_node * 1000)}m",
        "memory": f"{round(placement.memory_gib * 1024)}Mi",
        **({GPU_RESOURCE: str(placement.gpus_per_node)} if placement.gpus_per_node else {}),
    }
    bursts = {"cpu": "1"}  # starting Ray costs more than the rest of what these pods do
    return {
        "suspend": True,  # until Kueue admits it
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,  # the launcher decides about another attempt: it knows the cause
        "submissionMode": "K8sJobMode",
        "entrypoint": f"python -m {job.module}",
        "submitterConfig": {"backoffLimit": 0},
        "submitterPodTemplate": pods.of(SUBMITTER, SUBMITTER_RESOURCES, SUBMITTER_RESOURCES | bursts),
        "rayClusterSpec": {
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},
                "template": pods.of(HEAD, HEAD_RESOURCES, HEAD_RESOURCES | bursts, DASHBOARD_PORT),
            },
            "workerGroupSpecs": [
                {
                    "groupName": WORKER,
                    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), placement.nodes),
                    "rayStartParams": {
                        "num-cpus": str(_ray_cores(job, placement)),
                        "object-store-memory": str(_store_bytes(placement)),
                    },
                    "template": _with_shm(pods.of(WORKER, workers, workers, AGENT_PORT), placement),
                }
            ],
        },
        **_deadline(job),
    }


def _ray_cores(job: LaunchJob, placement: PlacementConfig) -> int:
    """Tasks and actors that a worker runs at the same time: of a build as placed, of a curation one for each core.

    8 GPUs with 96 cores have 8 processes per node, and some 64 actors on parts of a GPU beside tasks that decode.
    """
    if job.stage != CURATE:
        return placement.processes_per_node
    return max(placement.processes_per_node, int(placement.cpus_per_node))


def _store_bytes(placement: PlacementConfig) -> int:
    """Size of a worker's object store, with some room beside it: Ray leaves a /dev/shm that is smaller for /tmp."""
    return max(_LEAST_STORE_BYTES, int(0.9 * placement.shm_gib * 1024**3))


def _with_shm(pod: Object, placement: PlacementConfig) -> Object:
    """The pod with a /dev/shm of the placement's size, in place of the template's if it has one."""
    container = next(one for one in pod["spec"]["containers"] if one["name"] == CONTAINER)
    path, name = SHM_MOUNT["mountPath"], SHM_MOUNT["name"]
    mounts = [one for one in container.get("volumeMounts") or () if one["mountPath"] != path]
    container["volumeMounts"] = [*mounts, dict(SHM_MOUNT)]
    volumes = [one for one in pod["spec"].get("volumes") or () if one["name"] != name]
    pod["spec"]["volumes"] = [*volumes, shm_volume(placement)]
    return pod


def _deadline(job: LaunchJob) -> dict[str, int]:
    if job.timeout_seconds is None:
        return {}
    return {"activeDeadlineSeconds": math.ceil(job.timeout_seconds) + DEADLINE_MARGIN_SECONDS}


def _digest(job: LaunchJob, placement: PlacementConfig, document: str) -> str:
    """Digest of what the launcher asks for; the pool's template is the administrator's."""
    asked: dict[str, Any] = {
        "module": job.module,
        "document": document,
        "timeout": job.timeout_seconds,
        "pool": placement.pool,
        "nodes": placement.nodes,
        "processes": placement.processes_per_node,
        "cpus": placement.cpus_per_node,
        "memory": placement.memory_gib,
        **({"gpus": placement.gpus_per_node} if placement.gpus_per_node else {}),
        "shm": placement.shm_gib,
        "queue": placement.queue,
        "priority": placement.priority,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
