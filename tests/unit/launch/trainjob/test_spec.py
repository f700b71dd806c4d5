"""The TrainJob that a launch becomes, field by field."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vl3.config.fabric import FabricConfig, SchedulingConfig, Toleration
from vl3.errors import ConfigError
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.names import job_name, run_hash, selector, stage_selector
from vl3.launch.trainjob.spec import build_trainjob

MakeJob = Callable[..., LaunchJob]
OWNER = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "name": "vl3-train-x7k2p",
    "uid": "6f1b",
    "controller": False,
    "blockOwnerDeletion": False,
}


def digest_of(job: LaunchJob, **keywords: Any) -> str:
    return build_trainjob(job, **{"attempt": 1, **keywords})["metadata"]["annotations"]["vl3.dev/spec-sha256"]


def test_trainjob_of_a_gpu_stage(make_job: MakeJob, golden: Callable[[str, Any], None]) -> None:
    golden("launch/trainjob_gpu.json", build_trainjob(make_job(), attempt=2, history="node_lost@40", owner=OWNER))


def test_trainjob_of_a_cpu_stage(make_job: MakeJob, golden: Callable[[str, Any], None]) -> None:
    job = make_job(pool="cpu", queue="cpu", gpus_per_node=0, processes_per_node=2, nodes=1, stage="vision_adaptation")
    golden("launch/trainjob_cpu.json", build_trainjob(job, attempt=1))


def test_digest_is_of_what_the_launcher_asks_for(make_job: MakeJob) -> None:
    digest = digest_of(make_job())
    assert len(digest) == 64
    assert digest_of(make_job()) == digest
    assert digest_of(make_job(), attempt=2, history="crash@1", owner=OWNER) == digest
    assert digest_of(make_job(run_id="run-1", events_path=make_job().events_path.with_name("other"))) == digest
    for change in (
        {"nodes": 4},
        {"queue": "other"},
        {"priority": "vl3-high"},
        {"document": {"stage": "video", "config": {"seed": 2}}},
        {"timeout_seconds": 60},
        {"shm_gib": 1},
    ):
        assert digest_of(make_job(**change)) != digest, change


def test_a_grace_period_is_told_to_the_pod_and_does_not_make_another_job(make_job: MakeJob) -> None:
    job = build_trainjob(make_job(grace_seconds=300), attempt=1)
    assert "terminationGracePeriodSeconds" not in str(job["spec"]["runtimePatches"])
    assert {"name": "VL3_GRACE_SECONDS", "value": "300"} in job["spec"]["trainer"]["env"]
    assert digest_of(make_job(grace_seconds=300)) == digest_of(make_job())


def test_only_benchmarks_get_the_key_of_a_judge(make_job: MakeJob) -> None:
    reference = {"name": "vl3-endpoints", "key": "VL3_ENDPOINT_KEY", "optional": True}
    key = {"name": "VL3_ENDPOINT_KEY", "valueFrom": {"secretKeyRef": reference}}
    assert key in build_trainjob(make_job(stage="benchmarks"), attempt=1)["spec"]["trainer"]["env"]
    for stage in ("video", "evaluation"):
        assert key not in build_trainjob(make_job(stage=stage), attempt=1)["spec"]["trainer"]["env"]


def test_the_document_keeps_its_order(make_job: MakeJob) -> None:
    """The order of a recipe's stages is the order of this object: sorted, a pod would draw another stage's samples."""
    stages = {"vision_adaptation": 1, "alignment": 2}
    env = build_trainjob(make_job(document={"stages": stages}), attempt=1)["spec"]["trainer"]["env"]
    (document,) = (json.loads(item["value"]) for item in env if item["name"] == "VL3_JOB")
    assert list(document["stages"]) == list(stages)


def test_a_dollar_in_the_document_is_not_expanded(make_job: MakeJob) -> None:
    env = build_trainjob(make_job(document={"note": "$(HOME)"}), attempt=1)["spec"]["trainer"]["env"]
    assert {"name": "VL3_JOB", "value": '{"note":"$$(HOME)"}'} in env


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"document": {"long": "x" * 100_001}}, r"train-video is 100\d+ bytes of JSON, more than the 100000"),
        ({"run_id": ""}, r"run_id='' is not valid on the cluster"),
        ({"run_id": "a\nb"}, r"run_id='a\\nb' is not valid on the cluster. Use 1 to 253 printable"),
        ({"stage": "../video"}, r"stage='\.\./video' is not a valid stage name"),
    ],
    ids=["document", "no run id", "run id", "stage"],
)
def test_what_comes_from_users_is_checked(make_job: MakeJob, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_trainjob(make_job(**change), attempt=1)


def test_names_are_the_same_for_everyone() -> None:
    assert run_hash("run-1") == "4e65d3fbe8"
    assert job_name("run-1", "vision_adaptation", 3) == "vl3-4e65d3fbe8-vision-adaptation-3"
    assert len(job_name("x" * 253, "vision_adaptation", 100)) + len("-node-0-0") <= 63
    assert selector() == "app.kubernetes.io/managed-by=vl3-launcher"
    assert selector("run-1", "video").endswith(",vl3.dev/run=4e65d3fbe8,vl3.dev/stage=video")
    assert stage_selector("run-1", "video") == "vl3.dev/run=4e65d3fbe8,vl3.dev/stage=video"


def test_the_cluster_has_a_deadline_only_where_the_stage_has_a_limit(make_job: MakeJob) -> None:
    assert "activeDeadlineSeconds" not in build_trainjob(make_job(), attempt=1)["spec"]
    assert build_trainjob(make_job(timeout_seconds=7200.5), attempt=1)["spec"]["activeDeadlineSeconds"] == 7501


def test_a_stage_that_the_configuration_takes_has_a_job_name() -> None:
    assert job_name("run-1", "stage_2", 1).endswith("-stage-2-1")


def test_a_pool_with_rdma_gets_what_it_says(make_job: MakeJob) -> None:
    fabric = FabricConfig(
        devices={"rdma/hca": 8},
        hugepages_gib={"2Mi": 2.5},
        capabilities=["IPC_LOCK"],
        environment={"NCCL_IB_HCA": "mlx5", "NCCL_SOCKET_IFNAME": "eth0"},
    )
    scheduling = SchedulingConfig(
        tolerations=[Toleration(key="vl3.dev/pool", operator="Equal", value="h200", effect="NoSchedule")],
        node_labels={"network": "fast"},
        required_topology="cloud.provider.com/topology-rack",
    )
    job = make_job()
    assert job.placement is not None
    job = replace(job, placement=replace(job.placement, fabric=fabric, scheduling=scheduling), grace_seconds=300)
    spec = build_trainjob(job, attempt=1)["spec"]
    amounts = {"cpu": "96500m", "memory": "921600Mi", "nvidia.com/gpu": "8", "rdma/hca": "8", "hugepages-2Mi": "2560Mi"}
    assert spec["trainer"]["resourcesPerNode"] == {"requests": amounts, "limits": amounts}
    environment = {item["name"]: item["value"] for item in spec["trainer"]["env"]}
    assert (environment["NCCL_IB_HCA"], environment["NCCL_SOCKET_IFNAME"]) == ("mlx5", "eth0")
    assert environment["OMP_NUM_THREADS"] == "12"
    (replicated,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = replicated["template"]["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "kueue.x-k8s.io/podset-required-topology": "cloud.provider.com/topology-rack"
    }
    pod = template["spec"]
    # Kueue 0.18 knows the patches of Trainer 2.2. It would drop other fields, and JobSet refuse to resume the job.
    assert pod.keys() <= {"volumes", "containers", "securityContext", "nodeSelector", "affinity", "tolerations"}
    assert pod["nodeSelector"] == {"network": "fast"}
    silent = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    assert pod["tolerations"] == [
        {"key": "vl3.dev/pool", "operator": "Equal", "value": "h200", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", **silent},
        {"key": "node.kubernetes.io/unreachable", **silent},
    ]
    assert pod["volumes"][1] == {"name": "hugepages-2mi", "emptyDir": {"medium": "HugePages-2Mi"}}
    (container,) = pod["containers"]
    assert container["volumeMounts"][1] == {"name": "hugepages-2mi", "mountPath": "/hugepages-2mi"}
    assert container["securityContext"] == {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    assert digest_of(job) != digest_of(make_job())


def test_a_placement_may_name_an_image_of_its_own(make_job: MakeJob) -> None:
    job = make_job()
    assert job.placement is not None
    assert "image" not in build_trainjob(job, attempt=1)["spec"]["trainer"]
    own = replace(job, placement=replace(job.placement, image="registry/vl3-harness:1"))
    assert build_trainjob(own, attempt=1)["spec"]["trainer"]["image"] == "registry/vl3-harness:1"
    assert digest_of(own) != digest_of(job)
