"""The workflow run that this process is a step of, as the owner of the jobs that it creates."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.connection import NAMESPACE_FILE
from vl3.launch.kube.objects import TASK_LABEL, labels_of, running_image
from vl3.launch.kube.resources import PODS

POD_NAME_VARIABLE = "KFP_POD_NAME"
"""Name of a step's pod, set by Kubeflow Pipelines."""
_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"


@dataclass(frozen=True, slots=True)
class LauncherPod:
    """The pod that a launcher runs in."""

    name: str
    """Its name."""
    owner: dict[str, Any] | None
    """Owner reference to the Workflow of Argo that created it."""


def images_of_run(client: Client, pod: LauncherPod) -> dict[str, str]:
    """The image of each task of the run that this pod belongs to, by digest as the nodes say; pods may be gone already.

    Raises:
        ApiError: the API server refuses the list.
        ApiUnreachableError: it does not answer.
    """
    if pod.owner is None:
        return {}
    answer = client.list(PODS, labelSelector=f"{_WORKFLOW_LABEL}={pod.owner['name']}")
    found = {labels_of(item).get(TASK_LABEL, ""): running_image(item) for item in answer.get("items") or ()}
    return {task: image for task, image in found.items() if task and image}


def find_launcher_pod(client: Client) -> LauncherPod | None:
    """This process's own pod and what controls it; None outside a cluster.

    The workflow owns the jobs, not the pod: a retry of the step replaces the pod, and its jobs must outlive it. If the
    pod cannot be read, only the owner reference is missing; the run's exit handler and the collector still delete jobs.
    """
    if not NAMESPACE_FILE.is_file() or NAMESPACE_FILE.read_text(encoding="utf-8").strip() != client.namespace:
        return None
    name = os.environ.get(POD_NAME_VARIABLE) or socket.gethostname()
    try:
        pod = client.get(PODS, name)
    except (ApiError, ApiUnreachableError):
        return None
    owners = pod["metadata"].get("ownerReferences") or ()
    controller = next((one for one in owners if one.get("controller")), None)
    if controller is None or controller["kind"] != "Workflow":
        return LauncherPod(name, None)
    reference = {key: controller[key] for key in ("apiVersion", "kind", "name", "uid")}
    return LauncherPod(name, {**reference, "controller": False, "blockOwnerDeletion": False})
