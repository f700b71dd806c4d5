"""The workflow run that this process is a step of, as the owner of the jobs that it makes."""

import os
import socket
from typing import Any

from vl3.launch.trainjob.client import ApiError, ApiUnreachableError, Client
from vl3.launch.trainjob.connection import NAMESPACE_FILE
from vl3.launch.trainjob.resources import PODS

POD_NAME_VARIABLE = "KFP_POD_NAME"
"""Name of a step's pod, set by Kubeflow Pipelines."""


def find_owner(client: Client) -> dict[str, Any] | None:
    """Owner reference to what controls this process's own pod (Argo's Workflow), or None outside a cluster.

    Not to the pod itself: that is replaced when a step is retried, and its jobs must outlive it. A pod that cannot be
    read only costs the owner reference; the run's exit handler and the collector remain.
    """
    if not NAMESPACE_FILE.is_file() or NAMESPACE_FILE.read_text(encoding="utf-8").strip() != client.namespace:
        return None
    try:
        pod = client.get(PODS, os.environ.get(POD_NAME_VARIABLE) or socket.gethostname())
    except (ApiError, ApiUnreachableError):
        return None
    owners = pod["metadata"].get("ownerReferences") or ()
    controller = next((one for one in owners if one.get("controller")), None)
    if controller is None or controller["kind"] != "Workflow":
        return None
    reference = {key: controller[key] for key in ("apiVersion", "kind", "name", "uid")}
    return {**reference, "controller": False, "blockOwnerDeletion": False}
