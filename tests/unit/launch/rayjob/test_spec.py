"""The RayJob that a build becomes."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kind.settings import ROOT
from tests.support.manifests import load
from vl3.errors import ConfigError
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.names import run_hash
from vl3.launch.rayjob.kind import num_pods, rayjob
from vl3.launch.rayjob.spec import TEMPLATE_PREFIXES, build_rayjob

MakeJob = Callable[..., LaunchJob]
(TEMPLATE,) = load((ROOT / "manifests" / "base" / "ray" / "cpu.yaml").read_text())


@pytest.fixture
def job(make_job: MakeJob) -> LaunchJob:
    placed = {"pool": "cpu", "queue": "cpu", "gpus_per_node": 0, "processes_per_node": 2, "nodes": 3}
    return make_job(**placed, cpus_per_node=2.5, memory_gib=4, shm_gib=1, backend="rayjob", stage="build", module="m.n")


def pods_of(manifest: dict[str, Any]) -> dict[str, Any]:
    cluster = manifest["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "head": cluster["headGroupSpec"]["template"],
        "worker": workers["template"],
        "submitter": manifest["spec"]["submitterPodTemplate"],
    }


def digest_of(job: LaunchJob, template: dict[str, Any] = TEMPLATE, **keywords: Any) -> str:
    manifest = build_rayjob(job, template=template, **{"attempt": 1, **keywords})
    return str(manifest["metadata"]["annotations"]["vl3.dev/spec-sha256"])


def test_rayjob(job: LaunchJob, golden: Callable[[str, Any], None]) -> None:
    golden("launch/rayjob.json", build_rayjob(job, template=TEMPLATE, attempt=2, history="node_lost@40"))


def test_kueue_admits_it_and_the_launcher_retries(job: LaunchJob) -> None:
    manifest = build_rayjob(job, template=TEMPLATE, attempt=1)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpu"
    spec = manifest["spec"]
    assert (spec["suspend"], spec["shutdownAfterJobFinishes"], spec["backoffLimit"]) == (True, True, 0)
    assert spec["entrypoint"] == "python -m m.n"
    assert num_pods(manifest) == 5


def test_sizes_and_roles(job: LaunchJob) -> None:
    manifest = build_rayjob(job, template=TEMPLATE, attempt=1)
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert {group[name] for name in ("replicas", "minReplicas", "maxReplicas")} == {3}
    assert group["rayStartParams"] == {"num-cpus": "2", "object-store-memory": str(int(0.9 * 1024**3))}
    assert manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for role, pod in pods_of(manifest).items():
        labels = pod["metadata"]["labels"]
        assert (labels["vl3.dev/role"], labels["vl3.dev/job"]) == (role, manifest["metadata"]["name"])
        assert labels["vl3.dev/run"] == run_hash(job.run_id)
        (container,) = pod["spec"]["containers"]
        assert {"name": "VL3_JOB", "value": json.dumps(job.document, separators=(",", ":"))} in container["env"]
        assert ("readinessProbe" in container) == (role != "submitter")
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["requests"] == worker["resources"]["limits"] == {"cpu": "2500m", "memory": "4096Mi"}


def test_the_nodes_of_a_curation_have_the_pools_gpus(job: LaunchJob) -> None:
    size = {"gpus_per_node": 8, "processes_per_node": 8, "cpus_per_node": 96.0, "gpu": "h200"}
    gpus = replace(job, stage="curate", placement=replace(job.placement, **size))  # type: ignore[type-var]
    found = pods_of(build_rayjob(gpus, template=TEMPLATE, attempt=1))
    (worker,), (head,) = (found[role]["spec"]["containers"] for role in ("worker", "head"))
    (group,) = build_rayjob(gpus, template=TEMPLATE, attempt=1)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["rayStartParams"]["num-cpus"] == "96", "one for each core: most of them decode"
    assert worker["resources"]["requests"]["nvidia.com/gpu"] == worker["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in head["resources"]["requests"]
    assert digest_of(gpus) != digest_of(replace(job, stage="curate"))


@pytest.mark.parametrize("pool", ["cpu", "a100", "h200"])
def test_the_template_of_a_curation_has_the_image_with_its_scorers(pool: str) -> None:
    (template,) = load((ROOT / "manifests" / "base" / "ray" / f"curate-{pool}.yaml").read_text())
    assert template["metadata"]["name"] == TEMPLATE_PREFIXES["curate"] + pool
    spec = template["template"]["spec"]
    assert spec["nodeSelector"] == {"vl3.dev/pool": pool}
    assert [container["image"] for container in spec["containers"]] == ["ghcr.io/vl3/curator"]
    tolerated = {one["key"] for one in spec["tolerations"]}
    assert ("nvidia.com/gpu" in tolerated) == (pool != "cpu")


@pytest.mark.parametrize("template", [TEMPLATE, {"template": {"spec": {"containers": [{"name": "node"}]}}}])
def test_workers_have_shared_memory_of_the_placements_size(job: LaunchJob, template: dict[str, Any]) -> None:
    changed = replace(job, placement=replace(job.placement, shm_gib=1.5))  # type: ignore[type-var]
    worker = pods_of(build_rayjob(changed, template=template, attempt=1))["worker"]["spec"]
    assert [volume["emptyDir"] for volume in worker["volumes"] if volume["name"] == "shm"] == [
        {"medium": "Memory", "sizeLimit": "1536Mi"}
    ]
    mounts = worker["containers"][0]["volumeMounts"]
    assert [mount["name"] for mount in mounts if mount["mountPath"] == "/dev/shm"] == ["shm"]
    assert digest_of(changed) != digest_of(job)


def test_rays_store_is_never_smaller_than_ray_starts_with(job: LaunchJob) -> None:
    tiny = replace(job, placement=replace(job.placement, shm_gib=0.01))  # type: ignore[type-var]
    (group,) = build_rayjob(tiny, template=TEMPLATE, attempt=1)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["rayStartParams"]["object-store-memory"] == "78643200"


def test_every_pod_is_restricted(job: LaunchJob) -> None:
    for pod in pods_of(build_rayjob(job, template=TEMPLATE, attempt=1)).values():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_template_is_left_as_it_is(job: LaunchJob) -> None:
    template = copy.deepcopy(TEMPLATE)
    build_rayjob(job, template=template, attempt=1)
    assert template == TEMPLATE


def test_digest_is_of_what_the_launcher_asks_for(job: LaunchJob, make_job: MakeJob) -> None:
    digest = digest_of(job)
    assert digest_of(job, attempt=2, history="crash@1") == digest
    assert digest_of(job, {"template": {"spec": {"containers": [{"name": "node"}]}}}) == digest
    assert digest_of(make_job(backend="rayjob", stage="build", module="m.n", document={"other": 1})) != digest


def test_a_document_that_no_pod_can_read_is_refused(make_job: MakeJob) -> None:
    with pytest.raises(ConfigError, match="more than the 100000 that fit"):
        build_rayjob(make_job(document={"text": "x" * 100_001}), template=TEMPLATE, attempt=1)


def test_kubernetes_expands_nothing(make_job: MakeJob) -> None:
    manifest = build_rayjob(make_job(document={"note": "$(HOME)"}), template=TEMPLATE, attempt=1)
    (container,) = pods_of(manifest)["head"]["spec"]["containers"]
    assert '{"note":"$$(HOME)"}' in [variable["value"] for variable in container["env"]]


def test_the_kind_builds_after_its_template(job: LaunchJob) -> None:
    assert rayjob(TEMPLATE).build(job, attempt=1) == build_rayjob(job, template=TEMPLATE, attempt=1)
    assert rayjob(TEMPLATE).pods_of("j") == "vl3.dev/job=j"
