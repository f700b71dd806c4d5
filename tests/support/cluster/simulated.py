"""Simulated pools next to the real worker, and launches whose pods do what their annotations say.

A launch runs in its own process, like a step, so that it can be killed and stopped.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.reach import NAMESPACE, REPOSITORY, Cluster
from vl3.launch.jobs.names import run_hash

_READY = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


def gpu_node(name: str, pool: str, *, gpus: int = 8) -> dict[str, Any]:
    """A node that kwok keeps alive: 128 cores, 1 TiB, some GPUs, and the taint that keeps others away."""
    room = {"cpu": "128", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(gpus)}
    conditions = [{"type": kind, "status": "True" if kind == "Ready" else "False", "reason": "kwok"} for kind in _READY]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"type": "kwok", "vl3.dev/pool": pool, "vl3.dev/simulated": "true"},
        },
        "spec": {"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room, "conditions": conditions},
    }


@dataclass
class Launch:
    """One launcher process."""

    process: "subprocess.Popen[str]"
    folder: Path
    run_id: str

    def events(self) -> list[dict[str, Any]]:
        """The events of the launcher so far."""
        path = self.folder / "events_seen.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def states(self) -> list[str]:
        """The states in order."""
        return [event["state"] for event in self.events() if event["type"] == "state"]

    def texts(self, state: str) -> list[str]:
        """What was said of a state."""
        return [event["text"] for event in self.events() if event["type"] == "state" and event["state"] == state]

    def result(self) -> dict[str, Any]:
        """How it ended: `{"result": ...}` or `{"family", "message"}`, with `requests` to the API server."""
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    def said(self) -> str:
        """The end of its log, for the message of a test that fails."""
        return (self.folder / "launcher.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def wait(self, seconds: float = 120) -> int:
        """Exit code."""
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """End it as a lost node would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cancel(self) -> None:
        """Ask it to stop, as KFP does."""
        self.process.send_signal(signal.SIGTERM)


@dataclass
class Launcher:
    """Starts launches in the cluster's namespace."""

    cluster: Cluster
    folder: Path
    started: list[Launch] = field(default_factory=list)

    def start(self, run_id: str, **settings: Any) -> Launch:
        """Start a launch; settings are those of `launch_process.py`."""
        folder = self.folder / f"{run_id}-{len(self.started)}"
        folder.mkdir()
        (folder / "launch.json").write_text(json.dumps({"run_id": run_id, **settings}), encoding="utf-8")
        with (folder / "launcher.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.cluster.launch_process", str(folder)],
                cwd=REPOSITORY,
                env=self.cluster.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        launch = Launch(process, folder, run_id)
        self.started.append(launch)
        return launch

    def run(self, run_id: str, *, seconds: float = 120, **settings: Any) -> Launch:
        """Start a launch and wait for its end."""
        launch = self.start(run_id, **settings)
        launch.wait(seconds)
        return launch

    def clear(self) -> None:
        """End what still runs and collect the complete jobs, as a workflow's exit handler does."""
        for launch in self.started:
            if launch.process.poll() is None:
                launch.cancel()
        for launch in self.started:
            try:
                launch.wait(90)
            except subprocess.TimeoutExpired:
                launch.kill()
        runs = {launch.run_id for launch in self.started}
        complete = [job["metadata"]["name"] for run in runs for job in jobs_of(self.cluster, run)]
        if complete:
            self.cluster.kubectl("--namespace", NAMESPACE, "delete", "trainjobs", *complete)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true value of a condition."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s"
        time.sleep(0.2)
    return value


def jobs_of(cluster: Cluster, run_id: str) -> list[dict[str, Any]]:
    """The TrainJobs of a run."""
    found = cluster.get("trainjobs")
    return [job for job in found if job["metadata"]["annotations"].get("vl3.dev/run-id") == run_id]


def left_of(cluster: Cluster, run_ids: Sequence[str]) -> list[str]:
    """Every object of these runs that is in the cluster, as `kind/name`."""
    hashes = [run_hash(run_id) for run_id in run_ids]
    return [
        f"{kind}/{name}"
        for kind in ("trainjobs", "jobsets", "jobs", "workloads", "pods", "secrets", "services")
        for name in (item["metadata"]["name"] for item in cluster.get(kind))
        if any(part in name for part in hashes)
    ]


def gpus_in_use(pods: Sequence[dict[str, Any]]) -> int:
    """GPUs of pods that hold a node and have not ended."""
    return sum(
        int(container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))
        for pod in pods
        if pod["spec"].get("nodeName") and pod["status"].get("phase") not in ("Succeeded", "Failed")
        for container in pod["spec"]["containers"]
    )


def seed_of(name: str) -> int:
    """Seed of a random test: given by VL3_TEST_SEED, or new; printed, so that a failure can be repeated."""
    seed = int(os.environ.get("VL3_TEST_SEED") or int.from_bytes(os.urandom(4)))
    print(f"{name}: VL3_TEST_SEED={seed}")
    return seed
