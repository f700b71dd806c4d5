"""Placements judged by a snapshot of a real cluster, with one thing wrong at a time; each message in full."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kind.settings import ROOT
from tests.support.manifests import load
from vl3.config.overrides import apply_overrides
from vl3.config.placement import BUILD, CURATE
from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch.check.cluster import CheckReport, judge
from vl3.launch.check.facts import KUEUE, TRAINER, ClusterFacts, ObjectKind
from vl3.launch.check.needs import Placements
from vl3.recipes.catalog import get_recipe

RECORDED = json.loads(Path(__file__).with_name("cluster_facts.json").read_text(encoding="utf-8"))
SERVER = "https://10.0.0.1:6443"


@pytest.fixture
def facts() -> ClusterFacts:
    """Kueue 0.18 and Trainer 2.3 with our manifests; pools cpu (1 node), a100 and h200 (2 nodes of 8 GPUs each)."""
    data = copy.deepcopy(RECORDED)
    return ClusterFacts(
        server=data["server"],
        version=data["version"],
        namespace=data["namespace"],
        apis={version: frozenset(names) for version, names in data["apis"].items()},
        trainjob_fields=frozenset(data["trainjob_fields"]),
        denied=(),
        refusals={},
        objects={kind: data["objects"][kind.label] for kind in ObjectKind if kind.label in data["objects"]},
        unreadable={},
    )


def placed(recipe: str = "tiny", *overrides: str) -> Placements:
    config = apply_overrides(get_recipe(recipe), overrides)
    return dict(config.placements)


def change(facts: ClusterFacts, kind: ObjectKind, name: str, path: str, value: Any) -> None:
    """Set a field of one object; None removes it."""
    *parents, leaf = path.split(".")
    node: Any = facts.objects[kind][name]
    for parent in parents:
        node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
    if value is None:
        node.pop(leaf, None)
    elif isinstance(node, list):
        node[int(leaf)] = value
    else:
        node[leaf] = value


def remove(facts: ClusterFacts, kind: ObjectKind, name: str) -> None:
    del facts.objects[kind][name]  # type: ignore[attr-defined]


def only_problem(report: CheckReport) -> Vl3Error:
    assert len(report.problems) == 1, "\n".join(map(str, report.problems))
    return report.problems[0]


QUOTA = "spec.resourceGroups.0.flavors.0.resources"


def gpus(amount: str, **limits: str) -> list[dict[str, str]]:
    return [
        {"name": "cpu", "nominalQuota": "1k"},
        {"name": "memory", "nominalQuota": "16Ti"},
        {"name": "nvidia.com/gpu", "nominalQuota": amount, **limits},
    ]


def test_a_cluster_with_everything_has_no_problem(facts: ClusterFacts) -> None:
    report = judge(placed("vl3_2b"), facts)
    assert (report.problems, report.notes) == ([], [])
    assert (report.server, report.version, report.namespace) == (SERVER, "v1.36.3", "vl3")
    row = report.rows[-1]
    assert (row.stage, row.pool, row.pods, row.queue, row.quota, row.nodes) == (
        "video",
        "h200",
        "2 x 8 GPUs",
        "h200",
        "16 of 16 GPUs",
        "2",
    )


def test_a_pool_without_gpus_is_counted_in_cores(facts: ClusterFacts) -> None:
    first = judge(placed("tiny"), facts).rows[0]
    assert (first.pods, first.quota, first.nodes) == ("2 x 0.6 cores", "1.2 of 4 cores", "1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(
            ["placements.video.queue=gpu"],
            "placements.video.queue='gpu': namespace vl3 has no LocalQueue gpu, so the job would wait forever. Set "
            "one of: a100, cpu, h200.",
            id="unknown queue",
        ),
        pytest.param(
            ["placements.video.pool=h300"],
            "placements.video.pool='h300': the cluster has no ClusterTrainingRuntime vl3-torch-h300. Set one of the "
            "pools that have one (a100, cpu, h200), or apply a runtime for this pool "
            "(manifests/cluster/training-runtimes).",
            id="unknown pool",
        ),
        pytest.param(
            ["placements.video.priority=urgent", "placements.alignment.priority=urgent"],
            "placements.{alignment,video}.priority='urgent': the cluster has no WorkloadPriorityClass urgent, so Kueue "
            "would refuse the job. Set one of: vl3-high, vl3-low, vl3-normal.",
            id="unknown priority of two stages, listed once",
        ),
        pytest.param(
            ["placements.video.gpus_per_node=2"],
            "placements.video: ClusterQueue vl3-cpu has no quota at all for 2 nvidia.com/gpu, so the job would wait "
            "forever. Set a queue and pool that have such quota, or request none of it.",
            id="resource without quota",
        ),
        pytest.param(
            ["placements.video.nodes=12"],
            "placements.video requests more from ClusterQueue vl3-cpu than it can ever give: 14.4 cores (12 pods of "
            "1.2 cores, can have 4 cores at most) and 48 GiB of memory (12 pods of 4 GiB of memory, can have 16 GiB "
            "of memory at most). The job would wait forever. Lower placements.video.nodes or the requests per node, "
            "set a larger queue, or have the quota of flavour cpu raised.",
            id="more than the quota",
        ),
        pytest.param(
            ["placements.video.queue=h200"],
            "placements.video: queue='h200' and pool='cpu' do not match: no flavour of ClusterQueue vl3-h200 suits "
            "the pods of vl3-torch-cpu. h200: its label vl3.dev/pool=h200 is not the pods' "
            "vl3.dev/pool=cpu. Set the queue of that pool.",
            id="queue of another pool",
        ),
    ],
)
def test_what_the_recipe_names_wrongly(facts: ClusterFacts, overrides: list[str], message: str) -> None:
    problem = only_problem(judge(placed("tiny", *overrides), facts))
    assert str(problem) == message
    assert isinstance(problem, ConfigError)


def test_more_gpus_than_the_quota_can_ever_give(facts: ClusterFacts) -> None:
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-h200", QUOTA, gpus("16"))
    report = judge(placed("vl3_2b", "placements.video.nodes=4"), facts)
    assert str(only_problem(report)) == (
        "placements.video requests more from ClusterQueue vl3-h200 than it can ever give: 32 nvidia.com/gpu (4 pods "
        "of 8 nvidia.com/gpu, can have 16 nvidia.com/gpu at most). The job would wait forever. Lower "
        "placements.video.nodes or the requests per node, set a larger queue, or have the quota of flavour h200 raised."
    )
    assert (report.rows[-1].quota, report.rows[-1].nodes) == ("32 of 16 GPUs", "?")


def lend(facts: ClusterFacts, amount: str) -> None:
    """Another team's queue in our cohort with quota of the same flavour."""
    other = copy.deepcopy(facts.objects[ObjectKind.CLUSTER_QUEUE]["vl3-h200"])
    facts.objects[ObjectKind.CLUSTER_QUEUE]["other"] = other  # type: ignore[index]
    change(facts, ObjectKind.CLUSTER_QUEUE, "other", QUOTA, gpus(amount))


def test_quota_that_fits_only_by_borrowing_is_remarked(facts: ClusterFacts) -> None:
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-h200", QUOTA, gpus("8"))
    lend(facts, "24")
    report = judge(placed("vl3_2b"), facts)
    assert report.problems == []
    assert report.notes == [
        "placements.{multitask,video} fits only by borrowing 8 nvidia.com/gpu of 16 in cohort vl3: the owner may "
        "reclaim it, and the stage then resumes from its last checkpoint"
    ]
    assert report.rows[-1].quota == "16 of 32 GPUs"


def test_a_borrowing_limit_counts(facts: ClusterFacts) -> None:
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-h200", QUOTA, gpus("8", borrowingLimit="4"))
    lend(facts, "24")
    problem = only_problem(judge(placed("vl3_2b"), facts))
    assert "can have 12 nvidia.com/gpu at most, 4 nvidia.com/gpu of it borrowed in cohort vl3" in str(problem)


def test_a_second_flavour_may_have_room(facts: ClusterFacts) -> None:
    flavors = facts.objects[ObjectKind.CLUSTER_QUEUE]["vl3-h200"]["spec"]["resourceGroups"][0]["flavors"]
    flavors[0]["resources"] = gpus("8")
    flavors.append({"name": "h200-spare", "resources": gpus("64")})
    spare = copy.deepcopy(facts.objects[ObjectKind.FLAVOR]["h200"])
    facts.objects[ObjectKind.FLAVOR]["h200-spare"] = spare  # type: ignore[index]
    assert judge(placed("vl3_2b"), facts).problems == []


def test_a_taint_that_the_runtime_does_not_tolerate(facts: ClusterFacts) -> None:
    pod = "spec.template.spec.replicatedJobs.0.template.spec.template.spec"
    change(facts, ObjectKind.RUNTIME, "vl3-torch-h200", f"{pod}.tolerations", None)
    problem = only_problem(judge(placed("vl3_2b"), facts))
    assert "h200: the pods do not tolerate its taint nvidia.com/gpu=present:NoSchedule." in str(problem)


def test_no_node_that_big(facts: ClusterFacts) -> None:
    overrides = ["placements.video.memory_gib=3000", "placements.video.nodes=1"]
    problem = only_problem(judge(placed("vl3_2b", *overrides), facts))
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        "placements.video: no node of flavour h200 holds even one of its pods. A pod requests 3000 GiB of memory, the "
        "largest has 2000 GiB of memory allocatable (2 nodes checked). Lower the requests per node and raise "
        "placements.video.nodes, or set a pool of larger nodes."
    )


def test_no_node_at_all_is_the_platforms_problem(facts: ClusterFacts) -> None:
    remove(facts, ObjectKind.NODE, "worker")
    problem = only_problem(judge(placed(), facts))
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        "flavour cpu has no nodes (with the labels vl3.dev/pool=cpu, and only taints that vl3-torch-cpu tolerates). "
        "Once Kueue admits the job, the pods of pool='cpu' would stay Pending and hold the quota. Have nodes of the "
        "pool added or labelled."
    )


def test_too_few_nodes(facts: ClusterFacts) -> None:
    remove(facts, ObjectKind.NODE, "h200-1")
    problem = only_problem(judge(placed("vl3_2b"), facts))
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        "placements.{multitask,video}: its 2 pods need more nodes than flavour h200 has: its 1 nodes hold 1 such pods "
        "when empty. Once Kueue admits the job, the other pods would stay Pending and hold the quota. Lower "
        "placements.{multitask,video}.nodes, or have nodes added."
    )


def test_a_cordoned_node_is_only_remarked(facts: ClusterFacts) -> None:
    change(facts, ObjectKind.NODE, "h200-1", "spec.unschedulable", True)
    report = judge(placed("vl3_2b"), facts)
    assert report.problems == []
    assert report.notes == [
        "placements.{multitask,video}: those of the 2 nodes of flavour h200 that are ready hold 1 of its 2 pods; the "
        "other nodes are cordoned or not ready"
    ]


def test_nodes_that_are_made_on_demand_are_not_judged(facts: ClusterFacts) -> None:
    checks = {"admissionChecks": [{"name": "provisioning"}]}
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-cpu", "spec.admissionChecksStrategy", checks)
    remove(facts, ObjectKind.NODE, "worker")
    report = judge(placed(), facts)
    assert report.problems == []
    assert "ClusterQueue vl3-cpu has admission checks (provisioning), which may add nodes" in report.notes[0]


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "message"),
    [
        pytest.param(
            ObjectKind.LOCAL_QUEUE,
            "cpu",
            "spec.stopPolicy",
            "Hold",
            "LocalQueue cpu is stopped (stopPolicy Hold) and admits no job. Have its owner set spec.stopPolicy to "
            "None, or set another queue.",
            id="stopped local queue",
        ),
        pytest.param(
            ObjectKind.CLUSTER_QUEUE,
            "vl3-cpu",
            "spec.stopPolicy",
            "HoldAndDrain",
            "ClusterQueue vl3-cpu is stopped (stopPolicy HoldAndDrain) and admits no job. Have its owner set "
            "spec.stopPolicy to None, or set another queue.",
            id="stopped cluster queue",
        ),
        pytest.param(
            ObjectKind.LOCAL_QUEUE,
            "cpu",
            "spec.clusterQueue",
            "gone",
            "LocalQueue cpu in namespace vl3 points to ClusterQueue gone, which does not exist. Have its owner set "
            "one of the cluster's: vl3-a100, vl3-cpu, vl3-h200 (manifests/cluster/cluster-queues).",
            id="queue without cluster queue",
        ),
        pytest.param(
            ObjectKind.CLUSTER_QUEUE,
            "vl3-cpu",
            "status.conditions",
            [{"type": "Active", "status": "False", "reason": "AdmissionCheckInactive", "message": "Can't admit."}],
            "ClusterQueue vl3-cpu is not active (AdmissionCheckInactive: Can't admit.) and admits no job. Have its "
            "owner fix it, or set another queue.",
            id="inactive cluster queue",
        ),
        pytest.param(
            ObjectKind.CLUSTER_QUEUE,
            "vl3-cpu",
            "status",
            {},
            "ClusterQueue vl3-cpu has no condition Active: Kueue has not processed it yet. Check that Kueue's "
            "controller runs (namespace kueue-system).",
            id="queue not processed by Kueue",
        ),
        pytest.param(
            ObjectKind.NAMESPACE,
            "vl3",
            "metadata.labels",
            {},
            "ClusterQueue vl3-cpu accepts no jobs from namespace vl3: its namespaceSelector requires other labels "
            "(vl3.dev/queues=true). Have the namespace labelled so, or set another queue.",
            id="namespace not selected",
        ),
        pytest.param(
            ObjectKind.RUNTIME,
            "vl3-torch-cpu",
            "spec.mlPolicy.torch",
            None,
            "ClusterTrainingRuntime vl3-torch-cpu does not work for vl3: it has no mlPolicy.torch, so the processes "
            "would not find each other. Apply the one from manifests/cluster/training-runtimes again.",
            id="runtime of another framework",
        ),
        pytest.param(
            ObjectKind.RUNTIME,
            "vl3-torch-cpu",
            "spec.template.spec.ttlSecondsAfterFinished",
            60,
            "ClusterTrainingRuntime vl3-torch-cpu does not work for vl3: its JobSet has ttlSecondsAfterFinished=60: "
            "Trainer would recreate it and run a finished job twice. Apply the one from "
            "manifests/cluster/training-runtimes again.",
            id="runtime with a TTL",
        ),
        pytest.param(
            ObjectKind.RUNTIME,
            "vl3-torch-cpu",
            "spec.template.spec.replicatedJobs.0.template.spec.template.spec.containers.0.name",
            "main",
            "ClusterTrainingRuntime vl3-torch-cpu does not work for vl3: it has no replicated job 'node' with a "
            "container "
            "'node', in which the training runs. Apply the one from manifests/cluster/training-runtimes again.",
            id="runtime without the container",
        ),
        pytest.param(
            ObjectKind.RUNTIME,
            "vl3-torch-cpu",
            "spec.template.spec.replicatedJobs.0.template.metadata",
            {},
            "ClusterTrainingRuntime vl3-torch-cpu does not work for vl3: its job 'node' lacks the label "
            "trainer.kubeflow.org/trainjob-ancestor-step=trainer, so a TrainJob's settings would not reach it. Apply "
            "the one from manifests/cluster/training-runtimes again.",
            id="runtime without the label",
        ),
        pytest.param(
            ObjectKind.RUNTIME,
            "vl3-torch-cpu",
            "spec.template.spec.replicatedJobs.0.template.spec.template.spec.terminationGracePeriodSeconds",
            120,
            "ClusterTrainingRuntime vl3-torch-cpu does not work for vl3: its pods are killed 120 s after they are "
            "asked to end (terminationGracePeriodSeconds), so a preempted stage whose checkpoint takes longer would "
            "lose it. It must be 1800: a pod ends by itself as soon as its checkpoint is written. Apply the one from "
            "manifests/cluster/training-runtimes again.",
            id="runtime that ends pods too soon",
        ),
    ],
)
def test_what_is_out_of_order_on_the_platform(
    facts: ClusterFacts, kind: ObjectKind, name: str, path: str, value: Any, message: str
) -> None:
    change(facts, kind, name, path, value)
    problem = only_problem(judge(placed(), facts))
    assert str(problem) == message
    assert isinstance(problem, ClusterError)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            ObjectKind.SERVICE_ACCOUNT,
            "vl3-trainer",
            "ServiceAccount vl3-trainer of ClusterTrainingRuntime vl3-torch-cpu does not exist in namespace vl3, so "
            "its pods could not start. Apply an overlay (it has manifests/base) there.",
        ),
        (
            ObjectKind.CONFIG_MAP,
            "vl3-settings",
            "ConfigMap vl3-settings of ClusterTrainingRuntime vl3-torch-cpu does not exist in namespace vl3, so its "
            "pods could not start. Apply an overlay (it has manifests/base) there.",
        ),
        (
            ObjectKind.FLAVOR,
            "cpu",
            "ResourceFlavor cpu of ClusterQueue vl3-cpu does not exist, so Kueue stops the queue. Apply it "
            "(manifests/cluster/resource-flavors).",
        ),
    ],
)
def test_what_is_missing_on_the_platform(facts: ClusterFacts, kind: ObjectKind, name: str, message: str) -> None:
    remove(facts, kind, name)
    problem = only_problem(judge(placed(), facts))
    assert str(problem) == message
    assert isinstance(problem, ClusterError)


(TEMPLATE,) = load((ROOT / "manifests" / "base" / "ray" / "cpu.yaml").read_text())


def with_build(*overrides: str, **changes: Any) -> Placements:
    """The small recipe with its build on two pods of 0.5 cores and 2.5 GiB."""
    placements = placed("tiny", *overrides)
    size = {"nodes": 2, "processes_per_node": 1, "cpus_per_node": 0.5, "memory_gib": 2.5, "shm_gib": 0.5}
    return {**placements, BUILD: replace(placements["video"], **{**size, **changes})}


def with_ray(facts: ClusterFacts, template: dict[str, Any] | None = TEMPLATE) -> ClusterFacts:
    """The cluster with KubeRay, and the pool's template if one is given."""
    found = {} if template is None else {"vl3-ray-cpu": template}
    apis = {**facts.apis, "ray.io/v1": frozenset({"rayclusters", "rayjobs", "rayservices"})}
    return replace(facts, apis=apis, objects={**facts.objects, ObjectKind.POD_TEMPLATE: found})


def test_a_build_that_fits_has_no_problem(facts: ClusterFacts) -> None:
    report = judge(with_build(), with_ray(facts))
    assert (report.problems, report.notes) == ([], [])
    row = report.rows[-1]
    assert (row.stage, row.pool, row.pods, row.quota, row.nodes) == (
        "build",
        "cpu",
        "2 x 0.5 cores",
        "1.35 of 4 cores",
        "1",
    )


def test_a_curation_needs_the_template_with_its_scorers(facts: ClusterFacts) -> None:
    placements = {CURATE: with_build()[BUILD]}
    problem = only_problem(judge(placements, with_ray(facts)))
    assert str(problem).startswith("placements.curate.pool='cpu': namespace vl3 has no PodTemplate vl3-ray-curate-cpu.")
    ready = with_ray(facts)
    found = {"vl3-ray-curate-cpu": {**TEMPLATE, "metadata": {"name": "vl3-ray-curate-cpu"}}}
    assert judge(placements, replace(ready, objects={**ready.objects, ObjectKind.POD_TEMPLATE: found})).problems == []


def test_a_build_needs_no_runtime_and_no_trainer(facts: ClusterFacts) -> None:
    apis = {version: names for version, names in facts.apis.items() if version.startswith("kueue")}
    objects = {kind: found for kind, found in facts.objects.items() if kind is not ObjectKind.RUNTIME}
    bare = with_ray(replace(facts, apis=apis, objects=objects, trainjob_fields=None))
    assert judge({BUILD: with_build()[BUILD]}, bare).problems == []


def test_without_kuberay_the_crd_is_named(facts: ClusterFacts) -> None:
    problem = only_problem(judge(with_build(), facts))
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        f"CRD missing: {SERVER} does not serve RayJob of ray.io/v1, so placements.build, without which a step builds "
        "the dataset itself, cannot be met there. Install KubeRay 1.5 or newer (manifests/third-party/kuberay), or "
        "use another cluster."
    )
    assert judge(placed(), facts).problems == [], "a recipe without a build does not need it"


def test_a_pool_without_a_template_for_the_build(facts: ClusterFacts) -> None:
    problem = only_problem(judge(with_build(), with_ray(facts, None)))
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        "placements.build.pool='cpu': namespace vl3 has no PodTemplate vl3-ray-cpu. Set one of the pools that have one "
        "(`kubectl get podtemplates`), or apply a PodTemplate for this pool (manifests/base/ray)."
    )


@pytest.mark.parametrize("template", [{}, {"template": {"spec": {"containers": [{"name": "main"}]}}}])
def test_a_template_without_the_container(facts: ClusterFacts, template: dict[str, Any]) -> None:
    problem = only_problem(judge(with_build(), with_ray(facts, template)))
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        "PodTemplate vl3-ray-cpu does not work for vl3: it has no container 'node', in which Ray runs. Apply the one "
        "from manifests/base/ray again."
    )


def test_what_the_pods_of_a_template_lack(facts: ClusterFacts) -> None:
    remove(facts, ObjectKind.SERVICE_ACCOUNT, "vl3-trainer")
    problem = only_problem(judge({BUILD: with_build()[BUILD]}, with_ray(facts)))
    assert str(problem).startswith("ServiceAccount vl3-trainer of PodTemplate vl3-ray-cpu does not exist in namespace")


def test_head_and_submitter_count_against_the_quota(facts: ClusterFacts) -> None:
    report = judge(with_build(nodes=3, cpus_per_node=1.25), with_ray(facts))
    assert str(only_problem(report)) == (
        "placements.build requests more from ClusterQueue vl3-cpu than it can ever give: 4.1 cores (3 pods of 1.25 "
        "cores and 0.35 cores of head and submitter, can have 4 cores at most). The job would wait forever. Lower "
        "placements.build.nodes or the requests per node, set a larger queue, or have the quota of flavour cpu raised."
    )
    assert report.rows[-1].quota == "4.1 of 4 cores"


def test_a_build_like_a_stage_is_judged_by_itself(facts: ClusterFacts) -> None:
    """Equal placements become different jobs: what is wrong with one pool's template does not concern the stage."""
    placements = placed()
    report = judge({**placements, BUILD: placements["video"]}, with_ray(facts, None))
    assert str(only_problem(report)).startswith("placements.build.pool='cpu': namespace vl3 has no PodTemplate")
    assert [(row.stage, row.quota) for row in report.rows][-2:] == [("video", "1.2 of 4 cores"), ("build", "?")]


def test_a_build_that_borrows_loses_nothing_that_is_made(facts: ClusterFacts) -> None:
    resources = [{"name": "cpu", "nominalQuota": "1300m"}, {"name": "memory", "nominalQuota": "16Gi"}]
    lent = copy.deepcopy(facts.objects[ObjectKind.CLUSTER_QUEUE]["vl3-cpu"])
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-cpu", QUOTA, resources)
    facts.objects[ObjectKind.CLUSTER_QUEUE]["other"] = lent  # type: ignore[index]
    assert judge(with_build(), with_ray(facts)).notes == [
        "placements.build fits only by borrowing 0.05 cores of 1.35 in cohort vl3: the owner may reclaim it, and the "
        "build then makes the units that are missing"
    ]


def test_a_rayjob_that_would_be_refused_is_named(facts: ClusterFacts) -> None:
    report = judge(with_build(), replace(with_ray(facts), refusals={"RayJob": "spec is wrong"}))
    assert "would refuse a RayJob in namespace vl3: spec is wrong. Check the placement" in str(only_problem(report))


def test_a_missing_namespace_is_the_callers_problem(facts: ClusterFacts) -> None:
    objects = {kind: found for kind, found in facts.objects.items() if not kind.is_namespaced}
    problem = only_problem(judge(placed(), replace(facts, namespace="nowhere", objects=objects)))
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        f"namespace 'nowhere' does not exist at {SERVER}. Set another one with --namespace, or create it: kubectl "
        "apply -k "
        "manifests/overlays/<overlay>."
    )


def test_without_trainer_the_crd_is_named(facts: ClusterFacts) -> None:
    apis = {version: names for version, names in facts.apis.items() if version != TRAINER}
    objects = {kind: found for kind, found in facts.objects.items() if kind is not ObjectKind.RUNTIME}
    problem = only_problem(judge(placed(), replace(facts, apis=apis, objects=objects, trainjob_fields=None)))
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        f"CRD missing: {SERVER} does not serve TrainJob and ClusterTrainingRuntime of trainer.kubeflow.org/v1alpha1, "
        "so no stage can be started there. Install Kubeflow Trainer 2.2 or newer (manifests/third-party/trainer), or "
        "use another cluster."
    )


def test_an_empty_cluster_lacks_all_three(facts: ClusterFacts) -> None:
    report = judge(placed(), replace(facts, apis={}, objects={}, trainjob_fields=None))
    assert [str(problem).partition(" does not serve ")[2].partition(",")[0] for problem in report.problems] == [
        "TrainJob and ClusterTrainingRuntime of trainer.kubeflow.org/v1alpha1",
        "JobSet of jobset.x-k8s.io/v1alpha2",
        "LocalQueue",
    ]
    assert {row.quota for row in report.rows} == {"?"}


def test_a_trainer_that_is_too_old_is_told_by_its_fields(facts: ClusterFacts) -> None:
    assert facts.trainjob_fields is not None
    old = (facts.trainjob_fields - {"runtimePatches"}) | {"podTemplateOverrides"}
    problem = only_problem(judge(placed(), replace(facts, trainjob_fields=old)))
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        f"CRD trainjobs.trainer.kubeflow.org at {SERVER} is too old: TrainJob.spec has no runtimePatches, which every "
        "job of vl3 sets. Update Kubeflow Trainer there to 2.2 or newer, including its CRDs "
        "(manifests/third-party/trainer)."
    )


def test_an_older_kueue_serves_as_well(facts: ClusterFacts) -> None:
    apis = {KUEUE[1] if version == KUEUE[0] else version: names for version, names in facts.apis.items()}
    assert judge(placed(), replace(facts, apis=apis)).problems == []


def test_missing_rights_are_one_message(facts: ClusterFacts) -> None:
    denied = ("create/delete trainjobs.trainer.kubeflow.org", "get pods/log")
    problem = only_problem(judge(placed(), replace(facts, denied=denied)))
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        "forbidden by RBAC: this identity may not create/delete trainjobs.trainer.kubeflow.org and get pods/log in "
        f"namespace vl3 of {SERVER}, so jobs could not be started, followed or deleted. Bind the Role vl3-launcher of "
        "manifests/base/rbac to it, or use another identity."
    )


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (
            'Internal error occurred: failed calling webhook "mtrainjob.kb.io": connection refused',
            "A controller is down or has just started: `kubectl get pods -A` for kueue-system and kubeflow-system.",
        ),
        (
            'trainjobs "vl3-x" is forbidden: exceeded quota: vl3, requested: count/trainjobs=1, used: 500',
            "Delete finished jobs (`vl3 cluster gc --older-than 1d`), or have the ResourceQuota raised.",
        ),
        (
            'admission webhook "vtrainjob.kb.io" denied the request: spec is wrong',
            "Check the placement and the versions of manifests/third-party.",
        ),
    ],
)
def test_a_job_that_would_be_refused(facts: ClusterFacts, refusal: str, remedy: str) -> None:
    problem = only_problem(judge(placed(), replace(facts, refusals={"TrainJob": refusal})))
    assert isinstance(problem, ClusterError)
    assert str(problem) == f"the API server {SERVER} would refuse a TrainJob in namespace vl3: {refusal}. {remedy}"


def test_what_cannot_be_read_is_remarked_and_not_judged(facts: ClusterFacts) -> None:
    objects = {kind: found for kind, found in facts.objects.items() if kind not in (ObjectKind.NODE, ObjectKind.FLAVOR)}
    unreadable = {ObjectKind.FLAVOR: "resourceflavors is forbidden", ObjectKind.NODE: "nodes is forbidden"}
    report = judge(placed(), replace(facts, objects=objects, unreadable=unreadable))
    assert report.problems == []
    assert report.notes == [
        "not checked: resourceflavors and nodes cannot be read (resourceflavors is forbidden). The ClusterRole "
        "vl3-cluster-reader and the Role vl3-launcher of manifests/base/rbac allow it"
    ]
    assert report.rows[0].nodes == "?"


RDMA = 'placements.video.fabric.devices={"rdma/hca": 8}'


def test_a_device_that_no_node_has_is_refused(facts: ClusterFacts) -> None:
    resources = [*gpus("16"), {"name": "rdma/hca", "nominalQuota": "16"}]
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-h200", QUOTA, resources)
    covered = ["cpu", "memory", "nvidia.com/gpu", "rdma/hca"]
    change(facts, ObjectKind.CLUSTER_QUEUE, "vl3-h200", "spec.resourceGroups.0.coveredResources", covered)
    message = str(only_problem(judge(placed("vl3_2b", RDMA), facts)))
    assert message.startswith("placements.video: no node of flavour h200 holds even one of its pods. A pod requests 8 ")
    assert "8 rdma/hca, the largest has 0 rdma/hca allocatable (2 nodes checked)" in message


def test_a_device_without_quota_is_a_note_because_kueue_may_leave_it_out(facts: ClusterFacts) -> None:
    for node in facts.known(ObjectKind.NODE).values():
        node["status"]["allocatable"]["rdma/hca"] = "8"
    report = judge(placed("vl3_2b", RDMA), facts)
    assert report.problems == []
    assert report.notes[0].startswith("placements.video: ClusterQueue vl3-h200 has no quota for rdma/hca. Kueue admits")


def test_labels_that_no_node_has_are_named(facts: ClusterFacts) -> None:
    report = judge(placed("vl3_2b", 'placements.video.scheduling.node_labels={"network": "fast"}'), facts)
    assert "network=fast" in str(only_problem(report))


@pytest.mark.parametrize(("level", "is_refused"), [("privileged", False), ("baseline", True), ("restricted", True)])
def test_a_capability_needs_a_namespace_that_allows_it(facts: ClusterFacts, level: str, is_refused: bool) -> None:
    labels = facts.objects[ObjectKind.NAMESPACE]["vl3"]["metadata"].setdefault("labels", {})
    labels["pod-security.kubernetes.io/enforce"] = level
    report = judge(placed("vl3_2b", 'placements.video.fabric.capabilities=["IPC_LOCK"]'), facts)
    if not is_refused:
        assert report.problems == []
        return
    message = str(only_problem(report))
    assert message.startswith("placements.video.fabric.capabilities asks for IPC_LOCK, and namespace vl3 enforces the ")
    assert f"Pod Security level {level}, which allows no such capability" in message


def test_a_topology_needs_a_flavour_that_has_one(facts: ClusterFacts) -> None:
    wish = "placements.video.scheduling.required_topology=cloud.provider.com/topology-rack"
    message = str(only_problem(judge(placed("vl3_2b", wish), facts)))
    assert "none of the flavours of ClusterQueue vl3-h200 has a topology (spec.topologyName)" in message
    change(facts, ObjectKind.FLAVOR, "h200", "spec.topologyName", "racks")
    assert judge(placed("vl3_2b", wish), facts).problems == []


def test_a_stage_with_a_range_of_nodes_is_judged_by_its_fewest(facts: ClusterFacts) -> None:
    too_many = ("placements.video.nodes=8", "stages.video.packs_divisible_by=64")
    assert "requests more from ClusterQueue vl3-h200 than it can ever give" in str(
        only_problem(judge(placed("vl3_2b", *too_many), facts))
    )
    report = judge(placed("vl3_2b", *too_many, "placements.video.min_nodes=2"), facts)
    assert report.problems == []
    assert report.rows[-1].pods == "2 to 8 x 8 GPUs"
