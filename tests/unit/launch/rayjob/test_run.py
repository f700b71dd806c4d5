"""RayJobs created, followed, adopted, retried and deleted on an API server."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.api_server import ApiServer
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.launch.collect import cancel_run, collect
from vl3.launch.job import LaunchJob
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.listing import list_jobs
from vl3.launch.rayjob.run import launch_rayjob
from vl3.launch.rayjob.spec import build_rayjob

MakeJob = Callable[..., LaunchJob]
Play = Callable[[Callable[[str], None]], None]
NOW = "2026-11-29T08:00:00Z"
TEMPLATE = {"metadata": {"name": "vl3-ray-h200"}, "template": {"spec": {"containers": [{"name": "node"}]}}}


class Operators:
    """The parts of Kueue and KubeRay."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def runs(self, name: str) -> None:
        """Admit it, and start its pods."""
        self.becomes(name, "Running", startTime=NOW)
        for role in ("head", "worker", "worker-2", "submitter"):
            labels = {"vl3.dev/job": name, "vl3.dev/role": role, "vl3.dev/run": "r", "vl3.dev/stage": "build"}
            status = {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "node", "state": {"running": {"startedAt": NOW}}}],
            }
            metadata = {"name": f"{name}-{role}", "uid": f"{name}-{role}", "labels": labels}
            self._server.put("pods", {"metadata": metadata, "spec": {"nodeName": "n"}, "status": status})

    def becomes(self, name: str, state: str, **status: Any) -> None:
        """Set how far it is."""
        job = self._server.objects["rayjobs"][name]
        job["spec"]["suspend"] = False
        job["status"] = {**(job.get("status") or {}), "jobDeploymentStatus": state, **status}
        self._server.put("rayjobs", job)

    def ends(self, name: str, state: str, **status: Any) -> None:
        """End it; KubeRay deletes the cluster's pods at once."""
        for role in ("head", "worker", "worker-2", "submitter"):
            self._server.remove("pods", f"{name}-{role}")
        self.becomes(name, state, endTime=NOW, **status)


@pytest.fixture
def operators(server: ApiServer) -> Operators:
    server.put("podtemplates", TEMPLATE)
    return Operators(server)


@pytest.fixture
def play(server: ApiServer) -> Iterator[Play]:
    threads: list[threading.Thread] = []

    def act(part: Callable[[str], None]) -> None:
        def begin(job: dict[str, Any]) -> None:
            threads.append(threading.Thread(target=part, args=(job["metadata"]["name"],)))
            threads[-1].start()

        server.on_create = begin

    yield act
    for thread in threads:
        thread.join(5)


@pytest.fixture
def job(make_job: MakeJob) -> LaunchJob:
    return make_job(name="build-data", backend="rayjob", stage="build", module="vl3.pod.build")


def test_a_build_is_followed_by_the_log_of_the_pod_that_hands_it_in(
    job: LaunchJob, server: ApiServer, operators: Operators, play: Play, client: Client, limits: LaunchLimits
) -> None:
    def part(name: str) -> None:
        event = '{"type": "progress", "done": 3, "total": 9, "text": "samples"}'
        server.logs[f"{name}-submitter"] = [[f"{NOW[:-1]}.1Z vl3-event {event}"]]
        operators.runs(name)
        seen.wait(10)
        operators.ends(name, "Complete", jobStatus="SUCCEEDED")

    seen, events = threading.Event(), []

    def tell(event: dict[str, Any]) -> None:
        events.append(event)
        if {"progress", "running"} <= {one.get("state", one["type"]) for one in events}:
            seen.set()

    play(part)
    result = launch_rayjob(job, tell, limits=limits, client=client)
    assert result.attempts == 1
    assert [event["done"] for event in events if event["type"] == "progress"] == [3]
    states = [event["state"] for event in events if event["type"] == "state"]
    assert "running" in states
    assert states[-1] == "complete", "whether its pods are seen to go before its end is a matter of timing"
    assert "4 of 4 pods run" in [change.text for change in result.states]
    assert server.names("rayjobs") == ["vl3-4e65d3fbe8-build-1"], "kept until the run ends"


def test_a_build_that_fails_is_deleted_and_its_error_is_the_driver_s(
    job: LaunchJob, server: ApiServer, operators: Operators, play: Play, client: Client, limits: LaunchLimits
) -> None:
    message = 'exit code 3, logs:\nvl3-failure {"family": "DataError", "message": "a.jsonl:7: no conversations"}'

    def part(name: str) -> None:
        operators.runs(name)
        operators.ends(name, "Failed", jobStatus="FAILED", reason="AppFailed", message=message)

    play(part)
    with pytest.raises(DataError, match=r"build-data: RayJob vl3-4e65d3fbe8-build-1: a\.jsonl:7: no conversations"):
        launch_rayjob(job, lambda event: None, limits=limits, client=client)
    assert server.names("rayjobs") == []


def test_a_lost_head_is_another_attempt(
    job: LaunchJob, server: ApiServer, operators: Operators, play: Play, client: Client, limits: LaunchLimits
) -> None:
    def part(name: str) -> None:
        operators.runs(name)
        if name.endswith("-1"):
            operators.ends(name, "Failed", reason="SubmissionFailed", message="Job submission has failed.")
        else:
            operators.ends(name, "Complete", jobStatus="SUCCEEDED")

    play(part)
    assert launch_rayjob(job, lambda event: None, limits=limits, client=client).attempts == 2
    assert server.names("rayjobs") == ["vl3-4e65d3fbe8-build-2"]


def test_a_lost_worker_is_none(
    job: LaunchJob, server: ApiServer, operators: Operators, play: Play, client: Client, limits: LaunchLimits
) -> None:
    def part(name: str) -> None:
        operators.runs(name)
        server.remove("pods", f"{name}-worker-2")
        threading.Event().wait(2 * limits.replaced_pod_seconds)
        operators.runs(name)
        operators.ends(name, "Complete", jobStatus="SUCCEEDED")

    play(part)
    assert launch_rayjob(job, lambda event: None, limits=limits, client=client).attempts == 1


def test_a_running_build_is_adopted(
    job: LaunchJob, server: ApiServer, operators: Operators, client: Client, limits: LaunchLimits
) -> None:
    server.put("rayjobs", build_rayjob(job, template=TEMPLATE, attempt=1))
    operators.ends("vl3-4e65d3fbe8-build-1", "Complete", jobStatus="SUCCEEDED")
    assert launch_rayjob(job, lambda event: None, limits=limits, client=client).attempts == 1
    assert "POST rayjobs" not in server.requests


def test_a_pool_without_a_template_is_named(job: LaunchJob, client: Client, limits: LaunchLimits) -> None:
    with pytest.raises(ConfigError, match=r"has no PodTemplate vl3-ray-h200 .* Set placements\.build\.pool"):
        launch_rayjob(job, lambda event: None, limits=limits, client=client)


def test_both_kinds_are_listed_cancelled_and_collected(
    job: LaunchJob, server: ApiServer, operators: Operators, client: Client
) -> None:
    name = "vl3-4e65d3fbe8-build-1"
    for _ in range(2):
        server.put("rayjobs", build_rayjob(job, template=TEMPLATE, attempt=1))
        operators.ends(name, "Complete", jobStatus="SUCCEEDED")
        assert [(one.name, one.state) for one in list_jobs(client)] == [(name, "complete")]
        assert collect(3600, client=client, is_rehearsal=True) == [name]
        assert cancel_run("run-1", client=client) == [name]
        assert server.names("rayjobs") == []


def test_a_cluster_without_kuberay_says_so(
    job: LaunchJob, server: ApiServer, operators: Operators, client: Client, limits: LaunchLimits
) -> None:
    from tests.support.api_server import Fault

    server.faults.append(Fault("GET rayjobs", 404, "404 page not found", body=b"404 page not found"))
    assert cancel_run("run-1", client=client) == []
    server.faults.append(Fault("GET rayjobs", 404, "404 page not found", body=b"404 page not found"))
    with pytest.raises(ClusterError, match=r"has no API to list rayjobs\.ray\.io"):
        launch_rayjob(job, lambda event: None, limits=limits, client=client)
