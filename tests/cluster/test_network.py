"""Traffic under the network policies, which Calico enforces on the kind cluster: what is needed flows, nothing else."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster.reach import NAMESPACE, Cluster

pytestmark = pytest.mark.timeout(300)
_ELSEWHERE = "vl3-elsewhere"
_PORT = 9999
_LISTEN = f"import socket, time\nserver = socket.create_server(('', {_PORT}))\nwhile True: server.accept()"
_TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
except TimeoutError:
    print("blocked")
else:
    print("open")
"""
_OPEN_SECONDS = 30
"""A policy reaches a new pod a moment after its start."""


class Talkers:
    """Pods that listen on one port and from which others can be tried."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        ours = {"app.kubernetes.io/part-of": "vl3"}
        trainer = {**ours, "app.kubernetes.io/component": "trainer", "jobset.sigs.k8s.io/jobset-name": "talkers"}
        self._pods = {
            "trainer": (NAMESPACE, trainer),
            "other trainer": (NAMESPACE, trainer),
            "launcher": (NAMESPACE, {**ours, "app.kubernetes.io/component": "launcher"}),
            "elsewhere": (_ELSEWHERE, {}),
        }

    def start(self) -> None:
        """Make the pods and wait until they listen."""
        self._cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _ELSEWHERE}})
        self._cluster.apply(*(_pod(self._name(who), *where) for who, where in self._pods.items()))
        for who, (namespace, _) in self._pods.items():
            name = f"pod/{self._name(who)}"
            self._cluster.kubectl("--namespace", namespace, "wait", name, "--for=condition=Ready", "--timeout=60s")

    def remove(self) -> None:
        """Remove the pods."""
        for who, (namespace, _) in self._pods.items():
            self._cluster.kubectl("--namespace", namespace, "delete", "pod", self._name(who), "--now", check=False)
        self._cluster.kubectl("delete", "namespace", _ELSEWHERE, "--wait=false", check=False)

    def address(self, target: str) -> tuple[str, int]:
        """Host and port of a talker, or of a service given as `host:port`."""
        if target in self._pods:
            return str(self._status(target)["podIP"]), _PORT
        if target == "kubelet":
            return str(self._status("trainer")["hostIP"]), 10250
        host, _, port = target.partition(":")
        return host, int(port)

    def tried(self, who: str, target: str) -> str:
        """`open` or `blocked`."""
        host, port = self.address(target)
        command = ("exec", self._name(who), "--", "python3", "-c", _TRY, host, str(port))
        return self._cluster.kubectl("--namespace", self._pods[who][0], *command).strip()

    def _status(self, who: str) -> dict[str, Any]:
        pod = self._cluster.kubectl("--namespace", self._pods[who][0], "get", "pod", self._name(who), "--output=json")
        return dict(json.loads(pod)["status"])

    @staticmethod
    def _name(who: str) -> str:
        return f"talker-{who.replace(' ', '-')}"


def _pod(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "ghcr.io/vl3/launcher:0.1.0",
        "command": ["python3", "-c", _LISTEN],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    identity = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeSelector": {"vl3.dev/pool": "cpu"},
            "securityContext": identity,
            "containers": [container],
        },
    }


@pytest.fixture(scope="module")
def talkers(cluster: Cluster) -> Iterator[Talkers]:
    made = Talkers(cluster)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize(
    ("who", "target"),
    [
        ("trainer", "seaweedfs:8333"),
        ("trainer", "mlflow:5000"),
        ("trainer", "other trainer"),
        ("launcher", "seaweedfs:8333"),
        ("launcher", "mlflow:5000"),
        ("launcher", "kubernetes.default.svc:443"),
        # No policy holds a pod of another namespace back; so what it does not reach below is closed to it by ours.
        ("elsewhere", "kubernetes.default.svc:443"),
        ("elsewhere", "kubelet"),
    ],
)
def test_what_is_needed_flows(talkers: Talkers, who: str, target: str) -> None:
    deadline = time.monotonic() + _OPEN_SECONDS
    while (found := talkers.tried(who, target)) != "open":
        assert time.monotonic() < deadline, f"{who} to {target}: {found}"


@pytest.mark.parametrize(
    ("who", "target"),
    [
        ("trainer", "kubernetes.default.svc:443"),
        ("trainer", "kubelet"),
        ("trainer", "postgres:5432"),
        ("trainer", "launcher"),
        ("trainer", "elsewhere"),
        ("launcher", "postgres:5432"),
        ("launcher", "trainer"),
        ("launcher", "kubelet"),
        ("elsewhere", "trainer"),
        ("elsewhere", "launcher"),
        ("elsewhere", "postgres.vl3.svc:5432"),
    ],
)
def test_everything_else_is_closed(talkers: Talkers, who: str, target: str) -> None:
    assert talkers.tried(who, target) == "blocked"
