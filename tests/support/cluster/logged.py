"""Pods on the cluster that write like a step's, and the command that prints their logs."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.cluster.reach import NAMESPACE, Cluster
from tests.support.pipelines_server import PipelinesServer

TASK = "validate-data"
IMAGE = "ghcr.io/vl3/launcher:0.1.0"
GRAPH = {
    "root": {"dag": {"tasks": {TASK: {"componentRef": {"name": "comp"}}}}},
    "components": {"comp": {"executorLabel": "exec"}},
}
"""A workflow of this task alone."""


def writes(lines: int, *, pause_seconds: float = 0.0, first_after_seconds: float = 0.0, exit_code: int = 0) -> str:
    """A program that writes `<unix time> <number>` line by line."""
    return (
        f"import sys, time; time.sleep({first_after_seconds})\n"
        f"for number in range({lines}):\n"
        "    print(f'{time.time():.6f} {number}', flush=True)\n"
        f"    time.sleep({pause_seconds})\n"
        f"sys.exit({exit_code})"
    )


def step_pod(name: str, kfp_run_id: str, program: str, *, image: str = IMAGE) -> dict[str, Any]:
    """A pod as Argo makes it of a step: the labels, `main`, and a helper that writes too."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"pipeline/runid": kfp_run_id, "vl3.dev/task": TASK},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                _container("wait", IMAGE, "print('the helper')"),
                _container("main", image, program),
            ],
        },
    }


def _container(name: str, image: str, program: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/opt/vl3/bin/python", "-c", program],
        "resources": {
            "requests": {"cpu": "20m", "memory": "32Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def add_run(known: PipelinesServer, name: str) -> str:
    """A run of the graph on the double of Kubeflow Pipelines; returns the server's id, which no other run has."""
    details = {"task_details": [{"display_name": TASK, "state": "RUNNING"}]}
    return str(known.add_run(name, run_id=str(uuid4()), pipeline_spec=GRAPH, run_details=details)["run_id"])


class LogsCommand:
    """`vl3 run logs` in a process of its own: its lines with the Unix time at which each came."""

    def __init__(
        self, cluster: Cluster, endpoint: str, run: str, *options: str, kubeconfig: Path | None = None
    ) -> None:
        environment = {**cluster.environment, "VL3_KFP_ENDPOINT": endpoint, "PYTHONPATH": ":".join(sys.path)}
        if kubeconfig is not None:
            environment["KUBECONFIG"] = str(kubeconfig)
        command = [sys.executable, "-m", "vl3.cli.main", "run", "logs", run, TASK, "--namespace", NAMESPACE, *options]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._news = threading.Condition()
        self.lines: list[tuple[float, str]] = []
        self.notes: list[tuple[float, str]] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self.notes), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, kept: list[tuple[float, str]]) -> None:
        for line in stream:
            with self._news:
                kept.append((time.time(), line.rstrip("\n")))
                self._news.notify_all()
        self._process.wait()
        with self._news:
            self._news.notify_all()

    def wait_for(self, count: int = 0, *, note: str = "", seconds: float = 120) -> None:
        """Wait until it has printed this many lines, and a note that has this text."""
        with self._news:
            self._news.wait_for(lambda: self._has(count, note) or self._process.poll() is not None, seconds)
            assert self._has(count, note), (self.lines[-5:], self.notes)

    def _has(self, count: int, note: str) -> bool:
        return len(self.lines) >= count and (not note or any(note in text for _, text in self.notes))

    def ended(self, seconds: float = 120) -> int:
        """Its exit status."""
        code = self._process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return code

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def numbers(self) -> list[int]:
        """The numbers of the lines that it printed."""
        return [int(text.split()[1]) for _, text in self.lines]
