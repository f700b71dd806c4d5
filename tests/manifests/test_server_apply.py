"""The real API server, with the real definitions and webhooks, takes what the overlays hold (dry run)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.manifests import ROOT, load, overlay_text

KUBECONFIG = ROOT / "build" / "kind" / "kubeconfig"
KUBECTL = Path(sys.executable).with_name("kubectl")
# Their operators do not run on the kind cluster.
LEFT_OUT = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ExternalSecret")

pytestmark = pytest.mark.cluster


def _kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [KUBECTL, "--kubeconfig", KUBECONFIG, "--namespace", "vl3", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def _apply(objects: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    command = [KUBECTL, "--kubeconfig", KUBECONFIG, "apply", "--server-side", "--dry-run=server", "--force-conflicts"]
    text = yaml.safe_dump_all(objects)
    return subprocess.run(
        [*command, "--field-manager=vl3-kind", "--filename=-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> None:
    if not KUBECONFIG.is_file():
        pytest.skip("there is no kind cluster: make one with `make kind-up`")
    probe = _kubectl("get", "namespace", "vl3")
    if probe.returncode:
        pytest.skip(f"the kind cluster is not ready ({probe.stderr.strip()}): create it again with `make kind-up`")


@pytest.fixture(scope="module")
def _namespace_of_pipelines() -> Iterator[None]:
    is_new = _kubectl("create", "namespace", "kubeflow").returncode == 0
    yield
    if is_new:
        _kubectl("delete", "namespace", "kubeflow")


@pytest.mark.usefixtures("_namespace_of_pipelines")
def test_overlay_is_accepted(overlay: tuple[str, list[dict[str, Any]]]) -> None:
    _, objects = overlay
    known = [obj for obj in objects if obj["kind"] not in LEFT_OUT]
    done = _apply(known)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("serverside-applied") == len(known)
    assert "would violate PodSecurity" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "message"),
    [
        (
            "ClusterTrainingRuntime",
            "vl3-torch-cpu",
            ("spec", "mlPolicy", "torch", "numProcPerNode"),
            2,
            "numProcPerNode",
        ),
        (
            "ClusterTrainingRuntime",
            "vl3-torch-cpu",
            ("spec", "template", "spec", "replicatedJobs", 0, "replicas"),
            2,
            "always must be 1",
        ),
        ("ClusterQueue", "vl3-cpu", ("spec", "queueingStrategy"), "Lottery", "Unsupported value"),
        ("ResourceFlavor", "h200", ("spec", "nodeTaints", 0, "effect"), "Never", "effect"),
    ],
)
def test_webhooks_refuse_what_is_wrong(
    kind: str, name: str, path: tuple[str | int, ...], value: Any, message: str, manifest_copies: Path
) -> None:
    objects = load(overlay_text("kind", manifest_copies))
    broken = next(obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] == name)
    holder: Any = broken
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    done = _apply([broken])
    assert done.returncode != 0
    assert message in done.stderr


def test_pod_security_refuses_a_root_pod(manifest_copies: Path) -> None:
    objects = load(overlay_text("kind", manifest_copies))
    mlflow = next(obj for obj in objects if obj["kind"] == "Deployment" and obj["metadata"]["name"] == "mlflow")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": "vl3"},
        "spec": {**mlflow["spec"]["template"]["spec"], "securityContext": {"runAsUser": 0}},
    }
    done = _apply([pod])
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted:latest": runAsNonRoot != true' in done.stderr


@pytest.mark.parametrize(
    ("account", "verb", "resource", "expected"),
    [
        ("vl3-launcher", "create", "trainjobs.trainer.kubeflow.org", "yes"),
        ("vl3-launcher", "delete", "trainjobs.trainer.kubeflow.org", "yes"),
        ("vl3-launcher", "watch", "workloads.kueue.x-k8s.io", "yes"),
        ("vl3-launcher", "get", "pods/log", "yes"),
        ("vl3-launcher", "list", "nodes", "yes"),
        ("vl3-launcher", "list", "clusterqueues.kueue.x-k8s.io", "yes"),
        ("vl3-launcher", "get", "secrets", "no"),
        ("vl3-launcher", "create", "pods", "no"),
        ("vl3-launcher", "create", "pods/exec", "no"),
        ("vl3-launcher", "delete", "jobsets.jobset.x-k8s.io", "no"),
        ("vl3-launcher", "update", "clusterqueues.kueue.x-k8s.io", "no"),
        ("vl3-trainer", "get", "pods", "no"),
        ("vl3-trainer", "get", "configmaps", "no"),
        ("mlflow", "get", "secrets", "no"),
    ],
)
def test_accounts_may_do_what_they_need_and_no_more(account: str, verb: str, resource: str, expected: str) -> None:
    identity = f"--as=system:serviceaccount:vl3:{account}"
    done = _kubectl("auth", "can-i", verb, resource, identity)
    assert done.stdout.strip() == expected, done.stderr


def test_servers_of_the_overlay_are_available() -> None:
    for name in ("mlflow", "postgres", "seaweedfs"):
        done = _kubectl("wait", "--for=condition=Available", "--timeout=120s", f"deployment/{name}")
        assert done.returncode == 0, done.stderr


def test_garbage_collector_runs_with_its_rights() -> None:
    _kubectl("delete", "job", "gc-test", "--ignore-not-found")
    assert _kubectl("create", "job", "gc-test", "--from=cronjob/vl3-gc").returncode == 0
    try:
        done = _kubectl("wait", "--for=condition=Complete", "--timeout=120s", "job/gc-test")
        log = _kubectl("logs", "job/gc-test").stdout
        assert done.returncode == 0, log
        assert "TrainJobs deleted in namespace vl3" in log
    finally:
        _kubectl("delete", "job", "gc-test")
