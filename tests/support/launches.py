"""An API server to talk to, and a job to launch on it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import ApiServer
from vl3.config.placement import PlacementConfig
from vl3.launch.job import LaunchJob
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect
from vl3.launch.kube.limits import LaunchLimits
from vl3.system.retry import Pauses

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path)
    server.put("localqueues", {"metadata": {"name": "h200"}})
    server.put("workloadpriorityclasses", {"metadata": {"name": "vl3-normal"}})
    yield server
    server.stop()


@pytest.fixture
def client(server: ApiServer) -> Client:
    return Client(connect(kubeconfig=server.kubeconfig))


@pytest.fixture
def limits() -> LaunchLimits:
    return LaunchLimits(
        api_outage_seconds=20,
        image_pull_seconds=0.3,
        image_certain_seconds=0.1,
        container_config_seconds=0.1,
        quota_certain_seconds=0.1,
        unschedulable_seconds=0.2,
        replaced_pod_seconds=0.2,
        cancel_seconds=3,
        replace_seconds=3,
        watch_seconds=5,
        pauses=Pauses(first_seconds=0.05, longest_seconds=0.2),
        log_drain_seconds=1,
    )


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., LaunchJob]:
    placement = {
        "pool": "h200",
        "nodes": 2,
        "min_nodes": None,
        "processes_per_node": 8,
        "gpus_per_node": 8,
        "cpus_per_node": 96.5,
        "memory_gib": 900,
        "shm_gib": 64.25,
        "queue": "h200",
        "priority": "vl3-normal",
        "queue_timeout_seconds": 3600,
        "max_retries": 2,
    }

    def make(**changes: Any) -> LaunchJob:
        placed = PlacementConfig(
            **{**placement, **{key: changes.pop(key) for key in list(changes) if key in placement}}
        )
        values: dict[str, Any] = {
            "name": "train-video",
            "backend": "trainjob",
            "run_id": "run-1",
            "stage": "video",
            "module": "vl3.training.worker",
            "document": {"stage": "video", "config": {"seed": 1}},
            "processes_per_node": 1,
            "threads_per_process": 12,
            "placement": placed,
            "events_path": tmp_path / "work" / "events.jsonl",
            "failure_path": tmp_path / "work" / "failure.json",
            "work_uri": f"file://{tmp_path}/store/work",
        }
        return LaunchJob(**{**values, **changes})

    return make


@pytest.fixture
def recorded() -> Callable[[str], dict[str, Any]]:
    """Objects of a real cluster (Trainer 2.3.0, Kueue 0.18.4, JobSet 0.12.0, Kubernetes 1.36.3) at one moment."""

    def read(name: str) -> dict[str, Any]:
        return json.loads((RECORDED / f"{name}.json").read_text())

    return read
