"""One job for each failure family on simulated nodes: diagnosed, retried by cause, nothing left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.reach import Cluster
from tests.support.cluster.simulated import Launcher, jobs_of, wait_until

NewRun = Callable[[str], str]


@pytest.mark.parametrize(
    ("settings", "exit_code", "attempts", "said"),
    [
        pytest.param(
            {"annotations": {"waiting-reason": "InvalidImageName"}},
            2,
            1,
            ["cannot get image", "InvalidImageName", "Set `images:` in the overlay"],
            id="image-missing",
        ),
        pytest.param(
            {"annotations": {"waiting-reason": "ImagePullBackOff"}, "limits": {"image_pull_seconds": 5.0}},
            4,
            1,
            ["cannot get image", "ImagePullBackOff", "Check that the nodes can reach the registry"],
            id="image-unreachable",
        ),
        pytest.param(
            {"annotations": {"waiting-reason": "CreateContainerConfigError"}},
            2,
            1,
            ["its container cannot be created", "Secret vl3-s3"],
            id="bad-container",
        ),
        pytest.param(
            {"annotations": {"start-seconds": 600}, "limits": {"image_pull_seconds": 5.0}},
            4,
            1,
            ["got no status from that node's kubelet", "and the node's disk"],
            id="image-slow",
        ),
        pytest.param(
            {"annotations": {"run-seconds": 1, "exit-code": 137, "exit-reason": "OOMKilled"}},
            2,
            1,
            ["OOMKilled", "Raise placements.video.memory_gib"],
            id="out-of-memory",
        ),
        pytest.param(
            {"annotations": {"run-seconds": 1, "exit-code": 2}}, 2, 1, ["ended with exit code 2"], id="configuration"
        ),
        pytest.param({"annotations": {"run-seconds": 1, "exit-code": 3}}, 3, 1, ["exit code 3"], id="data"),
        pytest.param({"annotations": {"run-seconds": 1, "exit-code": 6}}, 6, 1, ["exit code 6"], id="storage"),
        pytest.param({"annotations": {"run-seconds": 1, "exit-code": 4}}, 4, 3, ["(attempt 3)"], id="platform"),
        pytest.param({"annotations": {"run-seconds": 1, "exit-code": 139}}, 4, 2, ["signal 11"], id="crash"),
        pytest.param(
            {"placement": {"cpus_per_node": 200.0}},
            4,
            1,
            ["was admitted and finds no node", "free GPUs, taints"],
            id="unschedulable",
        ),
        pytest.param({"placement": {"nodes": 3}}, 2, 1, ["than its quota can ever give"], id="quota-never"),
        pytest.param(
            {"placement": {"queue": "nowhere"}},
            2,
            1,
            ["has no LocalQueue 'nowhere'", "a100, cpu, h200"],
            id="queue-missing",
        ),
        pytest.param({"placement": {"pool": "moon"}}, 2, 1, ["vl3-torch-moon"], id="pool-missing"),
        pytest.param({"timeout_seconds": 5.0}, 2, 1, ["was still running after 5 s", "timeout_seconds"], id="deadline"),
        pytest.param({"startup_seconds": 5.0}, 4, 2, ["no step was finished", "startup_seconds=10"], id="stall"),
    ],
)
def test_failure_is_reported_with_its_cause(
    settings: dict[str, Any],
    exit_code: int,
    attempts: int,
    said: list[str],
    launcher: Launcher,
    cluster: Cluster,
    new_run: NewRun,
) -> None:
    launch = launcher.run(new_run("fails"), **settings)
    message = launch.result()["message"]
    assert launch.process.returncode == exit_code, message
    assert [part for part in said if part not in message] == []
    assert launch.states().count("retrying") == attempts - 1
    assert jobs_of(cluster, launch.run_id) == []


def test_the_training_s_own_words_are_the_message(launcher: Launcher, new_run: NewRun) -> None:
    words = json.dumps({"family": "DataError", "message": "shard 3 is damaged. Build the dataset again."})
    annotations = {"run-seconds": 1, "exit-code": 3, "termination-message": words}
    launch = launcher.run(new_run("words"), annotations=annotations)
    assert launch.process.returncode == 3
    assert "shard 3 is damaged. Build the dataset again." in launch.result()["message"]


def test_waiting_for_quota_has_a_limit_of_its_own(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    holder = launcher.start(new_run("holder"), placement={"nodes": 2})
    wait_until(lambda: "running" in holder.states(), "the holder runs")
    waiting = launcher.run(new_run("waits"), placement={"queue_timeout_seconds": 5.0})
    assert waiting.process.returncode == 4
    assert "raise placements.video.queue_timeout_seconds" in waiting.result()["message"]
    assert "insufficient" in waiting.texts("queued")[-1]
    assert jobs_of(cluster, waiting.run_id) == []
    holder.cancel()
    assert holder.wait() == 143


def test_lost_node_is_retried_and_goes_on(launcher: Launcher, cluster: Cluster, new_run: NewRun) -> None:
    launch = launcher.start(new_run("lost"), placement={"nodes": 1}, annotations={"run-seconds": 25})
    wait_until(lambda: "running" in launch.states(), "the job runs")
    (job,) = jobs_of(cluster, launch.run_id)
    (pod,) = cluster.get("pods", "--selector", f"jobset.sigs.k8s.io/jobset-name={job['metadata']['name']}")
    node = pod["spec"]["nodeName"]
    cluster.kubectl("taint", "node", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
    wait_until(lambda: "retrying" in launch.states(), "the loss is noticed")
    cluster.kubectl("delete", "node", node)
    assert launch.wait(180) == 0, launch.result()
    assert launch.result()["result"]["attempts"] == 2
    assert any(pod["metadata"]["name"] in text for text in launch.texts("retrying"))


def test_higher_priority_preempts_and_the_lower_resumes(launcher: Launcher, new_run: NewRun) -> None:
    low = launcher.start(new_run("low"), placement={"nodes": 2, "priority": "vl3-low"}, annotations={"run-seconds": 15})
    wait_until(lambda: "running" in low.states(), "the lower one runs")
    high = launcher.start(
        new_run("high"), placement={"nodes": 2, "priority": "vl3-high"}, annotations={"run-seconds": 4}
    )
    assert high.wait() == 0
    assert low.wait() == 0
    states = low.states()
    assert states.index("running") < states.index("preempted") < states.index("resumed")
    assert low.result()["result"]["attempts"] == 1
    assert low.texts("preempted")[0].startswith("Preempted: Preempted to accommodate a workload")


def test_state_of_the_queue_names_kueue_s_reason(launcher: Launcher, new_run: NewRun, tmp_path: Path) -> None:
    launch = launcher.run(new_run("states"), annotations={"run-seconds": 2})
    assert launch.process.returncode == 0
    states = launch.states()
    assert states[0] == "queued"
    assert states[-1] == "complete"
    assert "running" in states
