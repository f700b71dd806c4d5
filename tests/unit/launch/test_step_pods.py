"""The pods of a run's steps: those of a real server, and what a cluster says of pods that do not run."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import ApiServer, Fault
from tests.support.launches import client, server  # noqa: F401  # fixtures
from vl3.errors import ClusterError, ConfigError
from vl3.launch import step_pods
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.step_pods import find_step_pods

RECORDED = Path(__file__).parents[2] / "kfp" / "recorded" / "pods-of-both-runs.json"
FAILING, CANCELLED = "cd4ff03a-b97b-48ee-be71-a5a6f537fd22", "bcfe7b26-4f2c-4664-ac4e-ad731d30e77d"


def step_pod(name: str, *, created: str = "2026-11-28T19:00:00Z", **status: Any) -> dict[str, Any]:
    """A pod of the task train-stage of the run `r`."""
    labels = {"pipeline/runid": "r", "vl3.dev/task": "train-stage"}
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": created}, "spec": {}, "status": status}


@pytest.fixture
def recorded(server: ApiServer) -> None:  # noqa: F811
    for pod in json.loads(RECORDED.read_text())["items"]:
        server.put("pods", pod)


@pytest.mark.usefixtures("recorded")
def test_only_the_steps_of_the_run_are_found(server: ApiServer, client: Client) -> None:  # noqa: F811
    found = {pod.task: pod for pod in find_step_pods(client, FAILING)}
    assert sorted(found) == ["check-prerequisites", "finish"]
    assert found["finish"].name == "vl3-train-xkm9j-metadata-1-5-retry-system-container-impl-46086274"
    assert (found["finish"].phase, found["finish"].reason, found["finish"].is_over) == ("Succeeded", "", True)
    failed = found["check-prerequisites"]
    assert (failed.phase, failed.reason) == ("Failed", "its container main ended with exit code 1")
    assert failed.has_log
    assert server.bodies == [("GET pods", {"labelSelector": f"pipeline/runid={FAILING},vl3.dev/task"})]


@pytest.mark.usefixtures("recorded")
def test_an_image_that_cannot_be_pulled_is_the_reason(client: Client) -> None:  # noqa: F811
    found = {pod.task: pod for pod in find_step_pods(client, CANCELLED)}
    stuck = found["validate-data"]
    assert (stuck.phase, stuck.is_over, stuck.has_log) == ("Pending", False, False)
    assert stuck.reason.startswith(
        'its container main cannot start: ImagePullBackOff: Back-off pulling image "ghcr.io/vl3/data:0.1.0"'
    )
    assert found["check-prerequisites"].reason == ""


def test_the_newest_attempt_is_last(server: ApiServer, client: Client) -> None:  # noqa: F811
    for name, minute in (("b", 7), ("a", 9), ("c", 8)):
        server.put("pods", step_pod(name, created=f"2026-11-28T19:0{minute}:00Z", phase="Failed"))
    assert [pod.name for pod in find_step_pods(client, "r")] == ["b", "c", "a"]


NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu."}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, ""),
        ({"phase": "Pending", "conditions": [NO_NODE]}, "it finds no node: 0/1 nodes: cpu."),
        (
            {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}]},
            "",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"name": "init", "state": {"waiting": {"reason": "ErrImagePull", "message": "no\nhost"}}}
                ],
                "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}],
            },
            "its container init cannot start: ErrImagePull: no host",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "CreateContainerConfigError"}}}],
            },
            "its container main cannot start: CreateContainerConfigError",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            "its node ended it: Evicted: The node was low on resource: memory.",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
                    {"name": "wait", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}},
                ],
            },
            "its container main ended with exit code 137 (OOMKilled)",
        ),
        ({"phase": "Failed"}, ""),
    ],
)  # fmt: skip
def test_reasons(server: ApiServer, client: Client, status: dict[str, Any], reason: str) -> None:  # noqa: F811
    server.put("pods", step_pod("p", **status))
    assert find_step_pods(client, "r")[0].reason == reason


def test_a_hidden_namespace_and_a_silent_server_are_errors(
    server: ApiServer,  # noqa: F811
    client: Client,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "team"'
    server.faults.append(Fault("GET pods", status=403, message=said))
    with pytest.raises(ConfigError, match=r"not allowed to list pods in namespace team: .*cannot list resource"):
        find_step_pods(client, "r")
    monkeypatch.setattr(step_pods, "_LIMITS", LaunchLimits(api_outage_seconds=0.0))
    server.stop()
    with pytest.raises(ClusterError, match="has given no valid answer"):
        find_step_pods(client, "r")
