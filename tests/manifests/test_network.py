"""Every way that the workflow needs is open, and none that it does not."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.network import Address, End, Pod, is_allowed
from tests.manifests.pods import pod_templates
from tests.manifests.policies import of_kind
from tests.support.manifests import load, overlay_text

Objects = list[dict[str, Any]]

PIPELINE_STEP = Pod("vl3", {"workflows.argoproj.io/workflow": "vl3-train-x", "app.kubernetes.io/component": "data"})
ENDS: dict[str, End] = {
    "step": PIPELINE_STEP,
    "dns": Pod("kube-system", {"k8s-app": "kube-dns"}),
    "status server": Pod("kubeflow-system", {"app.kubernetes.io/name": "trainer"}),
    "pipelines": Pod("kubeflow", {"app": "ml-pipeline"}),
    "stranger": Pod("default", {"app.kubernetes.io/name": "mlflow"}),
    "api server": Address("10.96.0.1"),
    "s3": Address("52.95.1.1"),
    "metadata": Address("169.254.169.254"),
    "anywhere": Address("198.51.100.7"),
}


def _labels(objects: Objects, kind: str, name: str) -> dict[str, str]:
    obj = next(obj for obj in of_kind(objects, kind) if obj["metadata"]["name"] == name)
    if kind == "CronJob":
        return obj["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    if kind == "ClusterTrainingRuntime":
        (job,) = obj["spec"]["template"]["spec"]["replicatedJobs"]
        # JobSet adds its own label to every pod.
        return job["template"]["spec"]["template"]["metadata"]["labels"] | {"jobset.sigs.k8s.io/jobset-name": "vl3-x"}
    return obj["spec"]["template"]["metadata"]["labels"]


def _ends(objects: Objects) -> dict[str, End]:
    rendered = {
        "trainer": ("ClusterTrainingRuntime", "vl3-torch-h200"),
        "gc": ("CronJob", "vl3-gc"),
        "mlflow": ("Deployment", "mlflow"),
        "seaweedfs": ("Deployment", "seaweedfs"),
        "postgres": ("Deployment", "postgres"),
        "s3-bucket": ("Job", "s3-bucket"),
    }
    present = {obj["metadata"]["name"] for obj in objects if pod_templates(obj)}
    pods = {end: Pod("vl3", _labels(objects, kind, name)) for end, (kind, name) in rendered.items() if name in present}
    return {**ENDS, **pods}


def _is_open(objects: Objects, source: str, target: str, port: int) -> bool:
    ends = _ends(objects)
    policies: Sequence[dict[str, Any]] = of_kind(objects, "NetworkPolicy")
    return is_allowed(policies, ends[source], ends[target], port, "UDP" if port == 53 else "TCP")


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("trainer", "dns", 53),
        ("trainer", "trainer", 29500),
        ("trainer", "trainer", 40123),
        ("trainer", "mlflow", 5000),
        ("trainer", "s3", 443),
        ("trainer", "status server", 10443),
        ("step", "mlflow", 5000),
        ("step", "s3", 443),
        ("step", "api server", 443),
        ("step", "pipelines", 8080),
        ("gc", "api server", 443),
        ("gc", "api server", 6443),
        ("mlflow", "s3", 443),
        ("mlflow", "dns", 53),
    ],
)
def test_open_in_production(source: str, target: str, port: int, production: Objects) -> None:
    assert _is_open(production, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("trainer", "api server", 6443),
        ("trainer", "metadata", 80),
        ("trainer", "metadata", 443),
        ("trainer", "anywhere", 80),
        ("trainer", "pipelines", 8080),
        ("trainer", "status server", 9443),
        ("step", "status server", 10443),
        ("trainer", "step", 29500),
        ("mlflow", "trainer", 29500),
        ("mlflow", "anywhere", 5432),
        ("gc", "trainer", 22),
        ("stranger", "mlflow", 5000),
        ("stranger", "trainer", 29500),
        ("pipelines", "mlflow", 5000),
        ("anywhere", "mlflow", 5000),
    ],
)
def test_closed_in_production(source: str, target: str, port: int, production: Objects) -> None:
    assert not _is_open(production, source, target, port)


def test_only_mlflow_reaches_the_database(production: Objects) -> None:
    policies = of_kind(production, "NetworkPolicy")
    ends, database = _ends(production), Address("10.20.0.5")
    assert is_allowed(policies, ends["mlflow"], database, 5432)
    assert not is_allowed(policies, ends["trainer"], database, 5432)
    assert not is_allowed(policies, ends["step"], database, 5432)


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        ("trainer", "seaweedfs", 8333, True),
        ("step", "seaweedfs", 8333, True),
        ("mlflow", "seaweedfs", 8333, True),
        ("s3-bucket", "seaweedfs", 8333, True),
        ("mlflow", "postgres", 5432, True),
        ("anywhere", "seaweedfs", 8333, True),
        ("anywhere", "mlflow", 5000, True),
        ("trainer", "seaweedfs", 9333, False),
        ("trainer", "postgres", 5432, False),
        ("anywhere", "postgres", 5432, False),
        ("seaweedfs", "anywhere", 443, False),
        ("trainer", "anywhere", 443, False),
    ],
)
def test_kind_keeps_to_itself(source: str, target: str, port: int, expected: bool, manifest_copies: Path) -> None:
    assert _is_open(load(overlay_text("kind", manifest_copies)), source, target, port) is expected


def test_without_default_deny_all_is_open(production: Objects) -> None:
    objects = [obj for obj in deepcopy(production) if obj["kind"] != "NetworkPolicy"]
    assert _is_open(objects, "stranger", "mlflow", 5000)


SINGLE_USER = {
    "database": Pod("kubeflow", {"app": "mysql"}),
    "pipelines": Pod("kubeflow", {"app": "ml-pipeline"}),
    "other step": Pod("kubeflow", {"workflows.argoproj.io/workflow": "other", "app.kubernetes.io/component": "data"}),
    "step": Pod(
        "kubeflow",
        {
            "workflows.argoproj.io/workflow": "vl3-train-x",
            "app.kubernetes.io/part-of": "vl3",
            "app.kubernetes.io/component": "data",
        },
    ),
    "mlflow": Pod("kubeflow", {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/part-of": "vl3"}),
    "dns": ENDS["dns"],
    "s3": ENDS["s3"],
    "api server": ENDS["api server"],
    "gateway": Pod("istio-system", {"app": "gateway"}),
    "anywhere": ENDS["anywhere"],
}


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        ("pipelines", "database", 3306, True),
        ("gateway", "pipelines", 8888, True),
        ("other step", "anywhere", 80, True),
        ("other step", "pipelines", 8887, True),
        ("step", "pipelines", 8887, True),
        ("step", "dns", 53, True),
        ("step", "s3", 443, True),
        ("step", "api server", 6443, True),
        ("step", "mlflow", 5000, True),
        ("step", "anywhere", 80, False),
        ("other step", "mlflow", 5000, False),
        ("pipelines", "mlflow", 5000, False),
        ("pipelines", "step", 22, False),
    ],
)
def test_single_user_shuts_our_pods_alone(
    source: str, target: str, port: int, expected: bool, single_user: Objects
) -> None:
    policies, protocol = of_kind(single_user, "NetworkPolicy"), "UDP" if port == 53 else "TCP"
    assert is_allowed(policies, SINGLE_USER[source], SINGLE_USER[target], port, protocol) is expected
