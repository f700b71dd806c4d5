"""Why an attempt failed, read from objects that a real cluster wrote and from changes to them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from vl3.errors import ClusterError, ConfigError, DataError, StorageError
from vl3.launch.diagnosis.failure import classify, find_trouble

Recorded = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(
    ("end", "cause", "family", "text"),
    [
        ("end_crash", "crash", ClusterError, "(node rank 0, on vl3-worker) ended with exit code 7"),
        ("end_data", "data", DataError, "ended with exit code 3: shard 3 is truncated. Build it again."),
        ("end_out_of_memory", "out_of_memory", ConfigError, "was killed because it ran out of memory (OOMKilled)"),
        ("end_node_lost", "node_lost", ClusterError, "on node d-node-2 was ended by the platform (DeletionByPodGC:"),
        ("end_cluster", "cluster", ClusterError, "ended with exit code 4: rendezvous timed out"),
    ],
)
def test_cause_of_a_recorded_end(recorded: Recorded, end: str, cause: str, family: type[Exception], text: str) -> None:
    scene = recorded(end)
    failure = classify(scene["trainjob"], scene["pods"])
    assert failure.cause.name == cause
    assert failure.cause.family is family
    assert text in failure.text
    assert scene["trainjob"]["metadata"]["name"] in failure.text


def ended(recorded: Recorded, *pods: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A failed job whose pods ended so; each pod is a change to the status of a recorded one."""
    scene, made = recorded("end_crash"), []
    for rank, change in enumerate(pods):
        pod = json.loads(json.dumps(scene["pods"][0]))
        pod["metadata"]["name"] = f"pod-{rank}"
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = str(rank)
        end = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        end.update(
            {key: value for key, value in change.items() if key in ("exitCode", "reason", "message", "finishedAt")}
        )
        pod["status"].update(change.get("status", {}))
        made.append(pod)
    return scene["trainjob"], made


def message(family: str, text: str = "said so") -> str:
    return json.dumps({"family": family, "message": text})


@pytest.mark.parametrize(
    ("change", "cause", "text"),
    [
        ({"exitCode": 2, "message": message("ConfigError")}, "config", "ended with exit code 2: said so"),
        ({"exitCode": 6, "message": message("StorageError")}, "storage", "ended with exit code 6: said so"),
        ({"exitCode": 6}, "storage", "ended with exit code 6"),
        ({"exitCode": 4, "message": "{broken"}, "cluster", "ended with exit code 4"),
        ({"exitCode": 137, "message": message("ClusterError", "rank 3 was killed")}, "crash", "rank 3 was killed"),
        ({"exitCode": 1, "message": message("ClusterError", "ImportError: x")}, "crash", "code 1: ImportError: x"),
        (
            {"exitCode": 137},
            "crash",
            "ended with exit code 137 (signal 9; who sent it is not known: the kubelet reports no OOMKilled)",
        ),
        ({"exitCode": 143}, "stopped", "ended with exit code 143"),
        ({"exitCode": 1, "message": message("OddError")}, "crash", "ended with exit code 1"),
        ({"exitCode": 137, "reason": "OOMKilled"}, "out_of_memory", "it ran out of memory"),
        ({"exitCode": 128, "reason": "StartError", "message": "no python"}, "cannot_start", "(StartError: no python)"),
        (
            {"status": {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}},
            "evicted",
            "was evicted by its node (The node was low on resource: ephemeral-storage.)",
        ),
        (
            {"status": {"reason": "Evicted", "message": 'Usage of EmptyDir volume "shm" exceeds the limit "1Gi".'}},
            "volume_full",
            'volume "shm" exceeds',
        ),
        (
            {
                "status": {
                    "reason": "Terminated",
                    "message": "Pod was terminated in response to a shutdown.",
                }
            },
            "node_lost",
            "ended with its node (Terminated: Pod was terminated",
        ),
        (
            {
                "status": {
                    "conditions": [
                        {
                            "type": "DisruptionTarget",
                            "status": "True",
                            "reason": "EvictionByEvictionAPI",
                            "message": "Eviction API: evicting",
                        }
                    ]
                }
            },
            "evicted",
            "was ended by the platform (EvictionByEvictionAPI: Eviction API: evicting)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_cause_of_one_pods_end(recorded: Recorded, change: dict[str, Any], cause: str, text: str) -> None:
    failure = classify(*ended(recorded, change))
    assert failure.cause.name == cause
    assert text in failure.text


@pytest.mark.parametrize(
    ("changes", "pod"),
    [
        ([{"exitCode": 1}, {"exitCode": 3}], "pod-1"),
        ([{"exitCode": 143}, {"exitCode": 1}], "pod-1"),
        ([{"exitCode": 3}, {"exitCode": 137, "reason": "OOMKilled"}], "pod-1"),
        ([{"exitCode": 1, "finishedAt": "2026-11-23T14:00:09Z"}, {"exitCode": 1, "finishedAt": "2026-11-23T14:00:07Z"}],
         "pod-1"),
        ([{"exitCode": 1, "finishedAt": "2026-11-23T14:00:07Z"}, {"exitCode": 1, "finishedAt": "2026-11-23T14:00:07Z"}],
         "pod-0"),
    ],
    ids=["named error before crash", "crash before stop", "kill before error", "the first", "the lower rank"],
)  # fmt: skip
def test_the_pod_that_brought_the_others_down_is_named(
    recorded: Recorded, changes: list[dict[str, Any]], pod: str
) -> None:
    assert classify(*ended(recorded, *changes)).pod == pod


def test_a_job_whose_pods_are_gone_may_be_tried_again(recorded: Recorded) -> None:
    failure = classify(recorded("end_crash")["trainjob"], [])
    assert (failure.cause.name, failure.cause.retry) == ("vanished", "count")
    assert "its pods were deleted before their status was read" in failure.text


def test_the_clusters_own_deadline_is_reported(recorded: Recorded) -> None:
    trainjob, pods = ended(recorded, {"exitCode": 143})
    trainjob["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]
    assert classify(trainjob, pods).cause.name == "deadline"


def trouble(scene: dict[str, Any], **keywords: Any) -> Any:
    return find_trouble(scene["trainjob"], scene["workload"], scene["pods"], **keywords)


def test_no_trouble_where_things_go_on(recorded: Recorded) -> None:
    for moment in ("queued", "queued_behind_preemption", "running", "preempted", "resumed", "complete"):
        assert trouble(recorded(moment)) is None, moment


def test_a_quota_that_can_never_give_is_found(recorded: Recorded) -> None:
    found = trouble(recorded("quota_never"))
    assert (found.cause.name, found.cause.family) == ("quota_never", ConfigError)
    assert "requests more from queue d than its quota can ever give" in found.text
    assert "current podset request (32) > maximum capacity (16)" in found.text
    assert "Lower placements.video.nodes or gpus_per_node" in str(found.error("train-video", "video", attempts=1))


def test_a_queue_that_went_is_found(recorded: Recorded) -> None:
    scene = recorded("queued")
    gone = {
        "type": "QuotaReserved",
        "status": "False",
        "reason": "Inadmissible",
        "message": "LocalQueue d-real doesn't exist",
    }
    scene["workload"].setdefault("status", {})["conditions"] = [gone]
    assert trouble(scene).cause.name == "queue_missing"


@pytest.mark.parametrize(
    ("reason", "words", "cause"),
    [
        (
            "ImagePullBackOff",
            'Back-off pulling image "x": ErrImagePull: x: not found',
            "image_missing",
        ),
        ("ErrImagePull", "pull access denied, repository does not exist or may require authorization", "image_missing"),
        ("ErrImagePull", "failed to authorize: unexpected status: 403 Forbidden", "image_missing"),
        ("ErrImageNeverPull", 'Container image "x" is not present with pull policy of Never', "image_missing"),
        ("InvalidImageName", "couldn't parse image name", "image_missing"),
        ("ErrImagePull", "dial tcp: lookup ghcr.io on 10.96.0.10:53: no such host", "image_unreachable"),
        ("ErrImagePull", 'Head "https://ghcr.io/v2": dial tcp 1.2.3.4:443: i/o timeout', "image_unreachable"),
        ("ErrImagePull", "unexpected status: 503 Service Unavailable: token not found", "image_unreachable"),
        ("ContainerCreating", "", "image_slow"),
        ("CreateContainerConfigError", 'secret "vl3-s3" not found', "bad_container"),
    ],
)
def test_what_keeps_a_container_from_starting(recorded: Recorded, reason: str, words: str, cause: str) -> None:
    scene = recorded("image_back_off")
    for pod in scene["pods"]:
        waiting = {"waiting": {"reason": reason, "message": words}}
        pod["status"]["containerStatuses"] = [{"name": "node", "state": waiting}]
    found = trouble(scene)
    assert found.cause.name == cause
    assert scene["pods"][0]["metadata"]["name"] in found.text
    assert words in found.text


def test_a_node_that_never_answers_is_trouble(recorded: Recorded) -> None:
    scene = recorded("image_back_off")
    for pod in scene["pods"]:
        pod["status"] = {"phase": "Pending"}
    found = trouble(scene)
    assert (found.cause.name, found.cause.patience) == ("image_slow", "image_pull_seconds")
    assert "got no status from that node's kubelet" in found.text


def test_pods_that_find_no_node_or_are_not_made_are_trouble(recorded: Recorded) -> None:
    found = trouble(recorded("unschedulable"))
    assert (found.cause.name, found.cause.patience) == ("unschedulable", "unschedulable_seconds")
    assert "2 Insufficient memory" in found.text
    scene = recorded("running")
    assert find_trouble(scene["trainjob"], scene["workload"], []).cause.name == "no_pods"


def test_a_pod_lost_under_a_job_of_several_is_trouble(recorded: Recorded) -> None:
    scene = recorded("running")
    lost = scene["pods"].pop()
    assert trouble(scene, lost=[lost]).cause.name == "pod_replaced"
    scene["trainjob"]["spec"]["trainer"]["numNodes"] = 1
    assert trouble(scene, lost=[lost]) is None


def test_a_pod_that_does_not_end_on_a_dead_node_is_trouble(recorded: Recorded) -> None:
    scene = recorded("running")
    pod = scene["pods"][1]
    pod["metadata"]["deletionTimestamp"] = "2026-11-23T14:00:00Z"
    pod["status"]["conditions"].append(
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
    )
    found = trouble(scene)
    assert (found.cause.name, found.cause.patience) == ("node_lost", "lost_node_seconds")


def test_the_error_of_a_launch_has_attempt_remedy_and_last_lines(recorded: Recorded) -> None:
    failure = classify(*ended(recorded, {"exitCode": 137, "reason": "OOMKilled"}))
    error = failure.error("train-video", "video", attempts=3, last_lines="  allocating")
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "train-video (attempt 3): pod pod-0 (node rank 0, on vl3-worker) was killed because it ran out of memory "
        "(OOMKilled). Raise placements.video.memory_gib, or lower stages.video.packs_per_step (of an evaluation "
        "evaluation.batch_size) or data.max_length_tokens. Last lines of pod-0:\n  allocating"
    )
    assert isinstance(classify(*ended(recorded, {"exitCode": 6})).error("t", "video", attempts=1), StorageError)
