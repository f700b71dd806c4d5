"""Our TrainJobs as a list: states from Workload and pods, the oldest first."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from vl3.errors import ClusterError
from vl3.launch import listing
from vl3.launch.jobs.names import job_labels, job_name
from vl3.launch.kube.client import ApiUnreachableError
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.resources import Resource
from vl3.launch.listing import list_jobs


def trainjob(stage: str, *, age_seconds: float, suspend: bool) -> dict[str, Any]:
    created = datetime.fromtimestamp(time.time() - age_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {
            "name": job_name("nightly", stage, 2),
            "uid": f"uid-{stage}",
            "labels": job_labels("nightly", stage, 2, queue="h200", priority="vl3-normal"),
            "annotations": {"vl3.dev/run-id": "nightly"},
            "creationTimestamp": created,
        },
        "spec": {"suspend": suspend, "trainer": {"numNodes": 1}},
        "status": {},
    }


class OneCluster:
    """A stage that runs and a younger one that waits."""

    namespace, server, source = "vl3", "https://10.0.0.1:6443", "a kubeconfig"

    def __init__(self) -> None:
        running, waiting = (
            trainjob("alignment", age_seconds=7200, suspend=False),
            trainjob("video", age_seconds=60, suspend=True),
        )
        why = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota"}
        self.items = {
            "trainjobs": [waiting, running],
            "workloads": [
                {
                    "metadata": {"name": "w", "ownerReferences": [{"uid": "uid-video"}]},
                    "spec": {"queueName": "h200"},
                    "status": {"conditions": [why]},
                }
            ],
            "pods": [
                {
                    "metadata": {
                        "name": "p",
                        "labels": {"jobset.sigs.k8s.io/jobset-name": running["metadata"]["name"]},
                    },
                    "spec": {"nodeName": "h200-0"},
                    "status": {
                        "phase": "Running",
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "containerStatuses": [{"name": "node", "ready": True, "state": {"running": {}}}],
                    },
                }
            ],
        }
        self.asked: list[tuple[str, str]] = []

    def list(self, resource: Resource, **query: str) -> dict[str, Any]:
        self.asked.append((resource.plural, query.get("labelSelector", "")))
        return {"items": self.items.get(resource.plural, [])}


def test_jobs_have_their_states_and_the_oldest_is_first() -> None:
    cluster = OneCluster()
    first, second = list_jobs(cluster, "nightly")  # type: ignore[arg-type]
    assert (first.stage, first.state, first.attempt, first.run_id) == ("alignment", "running", "2", "nightly")
    assert 7190 < first.age_seconds < 7300
    assert (second.stage, second.state) == ("video", "queued")
    assert second.text == "in queue h200: Pending: insufficient unused quota"
    assert "vl3.dev/run=" in cluster.asked[0][1]
    assert [plural for plural, _ in cluster.asked] == ["trainjobs", "rayjobs", "workloads", "pods"]


def test_without_jobs_nothing_more_is_asked() -> None:
    cluster = OneCluster()
    cluster.items["trainjobs"] = []
    assert list_jobs(cluster) == []  # type: ignore[arg-type]
    assert [kind for kind, _ in cluster.asked] == ["trainjobs", "rayjobs"]


def test_a_server_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = OneCluster()

    def away(*_: Any, **__: Any) -> Any:
        raise ApiUnreachableError("https://10.0.0.1:6443 does not answer (reset)")

    monkeypatch.setattr(cluster, "list", away)
    monkeypatch.setattr(listing, "_LIMITS", LaunchLimits(api_outage_seconds=0.0))
    with pytest.raises(ClusterError, match=r"has given no valid answer .*does not answer \(reset\)"):
        list_jobs(cluster)  # type: ignore[arg-type]
