"""Clearing away, and who owns what is made."""

# ruff: noqa: F811 - fixtures that this file takes over

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.api_server import ApiServer
from tests.support.launches import client, make_job, server  # noqa: F401  # fixtures
from vl3.errors import ClusterError, ConfigError
from vl3.launch.collect import cancel_run, collect
from vl3.launch.job import LaunchJob
from vl3.launch.kube import owner
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect
from vl3.launch.trainjob.spec import build_trainjob
from vl3.system.retry import Pauses

MakeJob = Callable[..., LaunchJob]


def stamp(seconds_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds_ago))


def put_job(server: ApiServer, job: LaunchJob, *, ended_seconds_ago: float | None = None) -> str:
    item = build_trainjob(job, attempt=1)
    if ended_seconds_ago is not None:
        end = {"type": "Complete", "status": "True", "lastTransitionTime": stamp(ended_seconds_ago)}
        item["status"] = {"conditions": [end]}
    server.put("trainjobs", item)
    return item["metadata"]["name"]


def test_cancel_run_removes_the_jobs_of_one_run(make_job: MakeJob, server: ApiServer, client: Client) -> None:
    ours = [put_job(server, make_job(stage=stage)) for stage in ("alignment", "video")]
    other = put_job(server, make_job(run_id="run-2"))
    assert cancel_run("run-1", client=client) == ours
    assert cancel_run("run-1", client=client) == []
    assert server.names("trainjobs") == [other]


def test_collect_removes_what_ended_long_ago(make_job: MakeJob, server: ApiServer, client: Client) -> None:
    old = put_job(server, make_job(run_id="old"), ended_seconds_ago=7200)
    kept = [put_job(server, make_job(run_id="new"), ended_seconds_ago=60), put_job(server, make_job(run_id="going"))]
    server.put("trainjobs", {"metadata": {"name": "foreign", "labels": {}}, "spec": {}})
    assert collect(3600, client=client) == [old]
    assert server.names("trainjobs") == sorted([*kept, "foreign"])


def test_collect_says_when_the_cluster_does_not_answer(
    server: ApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vl3.launch import collect as module
    from vl3.launch.kube.limits import LaunchLimits

    limits = LaunchLimits(api_outage_seconds=0.2, pauses=Pauses(first_seconds=0.05, longest_seconds=0.1))
    monkeypatch.setattr(module, "LaunchLimits", lambda: limits)
    server.stop()
    try:
        with pytest.raises(ClusterError, match="has given no valid answer for"):
            cancel_run("run-1", client=client)
    finally:
        server.start()


def test_jobs_belong_to_the_workflow_not_to_the_pod(
    server: ApiServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = tmp_path / "namespace"
    namespace.write_text("team\n")
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "u", "controller": True}
    server.put("pods", {"metadata": {"name": "step-pod", "ownerReferences": [workflow]}})
    assert owner.find_launcher_pod(client) is None  # outside a cluster
    monkeypatch.setattr(owner, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("KFP_POD_NAME", "step-pod")
    reference = workflow | {"controller": False, "blockOwnerDeletion": False}
    assert owner.find_launcher_pod(client) == owner.LauncherPod("step-pod", reference)
    server.put("pods", {"metadata": {"name": "bare-pod"}})
    monkeypatch.setenv("KFP_POD_NAME", "bare-pod")
    assert owner.find_launcher_pod(client) == owner.LauncherPod("bare-pod", None)
    monkeypatch.setenv("KFP_POD_NAME", "unknown")
    assert owner.find_launcher_pod(client) is None


def test_collect_removes_orphans(make_job: MakeJob, server: ApiServer, client: Client) -> None:
    def launcher(name: str, phase: str, seconds_ago: float) -> str:
        end = {"terminated": {"exitCode": 143, "finishedAt": stamp(seconds_ago)}} if phase == "Failed" else {}
        status = {"phase": phase, "containerStatuses": [{"name": "main", "state": end}]}
        server.put("pods", {"metadata": {"name": name, "labels": {}}, "spec": {}, "status": status})
        return name

    def job(run_id: str, pod: str, age_seconds: float = 7200) -> str:
        item = build_trainjob(make_job(run_id=run_id), attempt=1, launcher_pod=pod)
        item["metadata"]["creationTimestamp"] = stamp(age_seconds)
        return server.put("trainjobs", item)["metadata"]["name"]

    orphans = [job("ended", launcher("a", "Failed", 1000)), job("gone", "nowhere")]
    kept = [
        job("just ended", launcher("b", "Failed", 60)),
        job("looked after", launcher("c", "Running", 0)),
        job("just made", "nowhere", age_seconds=60),
        job("no pod", ""),
    ]
    assert collect(3600, is_rehearsal=True, client=client) == sorted(orphans)
    assert collect(3600, client=client) == sorted(orphans)
    assert server.names("trainjobs") == sorted(kept)


def test_a_missing_kubeconfig_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no cluster is configured: .*nothing-here cannot be used.*Set KUBECONFIG"):
        connect(kubeconfig=tmp_path / "nothing-here")


def test_the_namespace_is_the_contexts(server: ApiServer) -> None:
    assert connect(kubeconfig=server.kubeconfig).namespace == "team"
    assert connect(namespace="other", kubeconfig=server.kubeconfig).namespace == "other"
