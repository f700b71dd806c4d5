"""Trouble of the cluster itself under a running launch: nothing is lost, nothing is done twice."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.cluster.reach import Cluster
from tests.support.cluster.simulated import Launcher, jobs_of, wait_until

NewRun = Callable[[str], str]

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
_CONTROL_PLANE = "vl3-control-plane"
_MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"


def _on_control_plane(script: str) -> str:
    done = subprocess.run(["docker", "exec", _CONTROL_PLANE, "sh", "-ec", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _api_server_down(cluster: Cluster, seconds: float) -> Iterator[None]:
    _on_control_plane(f"mv {_MANIFEST} /root/")
    try:
        wait_until(lambda: not _is_ready(cluster), "the API server is down", 60)
        time.sleep(seconds)
        yield
    finally:
        _on_control_plane(f"mv /root/kube-apiserver.yaml {_MANIFEST}")
        wait_until(lambda: _is_ready(cluster), "the API server is back", 120)


def _is_ready(cluster: Cluster) -> bool:
    return cluster.kubectl("get", "--raw", "/readyz", "--request-timeout=2s", check=False).strip() == "ok"


def _compact_etcd() -> None:
    """Forget every revision but the present one, so that an old resource version gets 410 Gone."""
    certificates = "--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt"
    ask = f"curl -sS {certificates} --key /etc/kubernetes/pki/etcd/server.key https://127.0.0.1:2379/v3/kv"
    revision = json.loads(_on_control_plane(f"""{ask}/range -d '{{"key": "AA=="}}'"""))["header"]["revision"]
    body = json.dumps({"revision": revision, "physical": True})
    answer = json.loads(_on_control_plane(f"{ask}/compaction -d '{body}'"))
    assert "header" in answer, answer


def test_api_server_down_for_a_minute(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    launch = launcher.start(new_run("outage"), annotations={"run-seconds": 100})
    wait_until(lambda: "running" in launch.states(), "the job runs")
    with _api_server_down(cluster, 60):
        assert launch.process.poll() is None
    assert launch.wait(240) == 0, launch.result()
    assert launch.result()["result"]["attempts"] == 1


def test_etcd_compacted_and_api_server_restarted(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    launch = launcher.start(new_run("compacted"), annotations={"run-seconds": 60})
    wait_until(lambda: "running" in launch.states(), "the job runs")
    for number in range(20):  # revisions that the launcher's watch has not seen
        cluster.kubectl("annotate", "--overwrite", "namespace", "vl3", f"vl3.dev/noise={number}")
    _compact_etcd()
    with _api_server_down(cluster, 1):
        pass
    assert launch.wait(240) == 0, launch.result()
    assert len(jobs_of(cluster, launch.run_id)) == 1


def test_webhook_down_while_the_job_is_created(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    scale = ("--namespace", "kubeflow-system", "scale", "deployment", "kubeflow-trainer-controller-manager")
    cluster.kubectl(*scale, "--replicas=0")
    try:
        wait_until(lambda: not _trainer_pods(cluster), "the controller is gone")
        launch = launcher.start(new_run("webhook"), annotations={"run-seconds": 2})
        time.sleep(10)
        assert launch.process.poll() is None
        assert jobs_of(cluster, launch.run_id) == []
    finally:
        cluster.kubectl(*scale, "--replicas=1")
    assert launch.wait(240) == 0, launch.result()
    assert len(jobs_of(cluster, launch.run_id)) == 1


def _trainer_pods(cluster: Cluster) -> list[str]:
    found = json.loads(cluster.kubectl("--namespace", "kubeflow-system", "get", "pods", "--output", "json"))["items"]
    return [pod["metadata"]["name"] for pod in found if "trainer" in pod["metadata"]["name"]]


def test_quota_shrunk_under_a_waiting_job(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    holder = launcher.start(new_run("holder"), placement={"nodes": 2})
    wait_until(lambda: "running" in holder.states(), "the holder runs")
    waiting = launcher.start(new_run("shrunk"), placement={"nodes": 2})
    wait_until(lambda: "queued" in waiting.states(), "the other one waits")
    former = json.loads(cluster.kubectl("get", "clusterqueue", "vl3-h200", "--output", "json"))["spec"]
    shrunk = json.loads(json.dumps(former).replace('"nominalQuota": "16"', '"nominalQuota": "8"'))
    try:
        cluster.kubectl("patch", "clusterqueue", "vl3-h200", "--type=merge", "--patch", json.dumps({"spec": shrunk}))
        assert waiting.wait() == 2
    finally:
        cluster.kubectl("patch", "clusterqueue", "vl3-h200", "--type=merge", "--patch", json.dumps({"spec": former}))
    assert "than its quota can ever give" in waiting.result()["message"]
    assert jobs_of(cluster, waiting.run_id) == []
    holder.cancel()
    assert holder.wait() == 143
