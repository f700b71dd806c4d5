"""The workflow run that this process is a step of, as the owner of the jobs that it creates."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.connection import NAMESPACE_FILE
from vl3.launch.kube.resources import PODS

POD_NAME_VARIABLE = "KFP_POD_NAME"
"""Name of a step's pod, set by Kubeflow Pipelines."""


@dataclass(frozen=True, slots=True)
class LauncherPod:
    """The pod that a launcher runs in."""

    name: str
    """Its name."""
    owner: dict[str, Any] | None
    """Owner reference to the Workflow of Argo that created it."""


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
