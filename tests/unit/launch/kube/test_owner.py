"""The workflow run of a launcher's pod, and the images of the pods beside it."""

from typing import Any

from tests.support.api_server import ApiServer
from vl3.launch.kube.client import Client
from vl3.launch.kube.owner import LauncherPod, images_of_run


def step_pod(name: str, task: str, image: str, workflow: str = "vl3-train-x7") -> dict[str, Any]:
    labels = {"workflows.argoproj.io/workflow": workflow, "vl3.dev/task": task}
    statuses = [{"name": "wait", "imageID": "argoexec@sha256:ee"}, {"name": "main", "imageID": image}]
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"containerStatuses": statuses}}


def test_the_images_are_those_of_this_runs_steps(server: ApiServer, client: Client) -> None:
    server.put("pods", step_pod("a", "validate-data", "ghcr.io/vl3/data@sha256:ab"))
    server.put("pods", step_pod("b", "evaluate", "docker-pullable://ghcr.io/vl3/evaluator@sha256:cd"))
    server.put("pods", step_pod("c", "report", ""))  # it starts
    server.put("pods", step_pod("d", "report", "ghcr.io/vl3/launcher@sha256:ef", workflow="vl3-train-other"))
    pod = LauncherPod("launcher", {"name": "vl3-train-x7"})
    assert images_of_run(client, pod) == {
        "validate-data": "ghcr.io/vl3/data@sha256:ab",
        "evaluate": "ghcr.io/vl3/evaluator@sha256:cd",
    }


def test_a_pod_of_no_workflow_has_no_run(client: Client) -> None:
    assert images_of_run(client, LauncherPod("launcher", None)) == {}
