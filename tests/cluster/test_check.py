"""`vl3 cluster check` on the real cluster: what it lets pass, each message, and Kueue's own arithmetic."""

import copy
import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.reach import KUBECONFIG, NAMESPACE, Cluster
from tests.support.cluster.simulated import gpu_node
from vl3.launch.check.quota import QuotaTree

GPU = "nvidia.com/gpu"
KUEUE = "kueue.x-k8s.io/v1beta2"


@dataclass(frozen=True)
class Answer:
    """How the command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The message: the last line on stderr."""
        return self.err.splitlines()[-1]


@dataclass(frozen=True)
class Team:
    """A namespace, a pool of two simulated nodes, and queues in their own cohort.

    All of it bears the team's name, so that nothing else on the cluster sees what is wrong with it.
    """

    cluster: Cluster
    name: str

    def check(self, *arguments: str, kubeconfig: Path = KUBECONFIG, namespace: str | None = None) -> Answer:
        """Run `vl3 cluster check`."""
        program = "import sys; from vl3.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", program, "cluster", "check", "--namespace", namespace or self.name, *arguments],
            env={**self.cluster.environment, "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def queue(self, name: str, *, gpus: str = "16", flavor: str | None = None, **spec: Any) -> str:
        """Make a cluster queue and a local queue that leads to it; returns its name once Kueue has judged it."""
        limits = {key: spec.pop(key) for key in ("borrowingLimit", "lendingLimit") if key in spec}
        amounts = [("cpu", "1k", {}), ("memory", "64Ti", {}), (GPU, gpus, limits)]
        resources = [{"name": key, "nominalQuota": value, **more} for key, value, more in amounts]
        self.apply(
            {
                "apiVersion": KUEUE,
                "kind": "ClusterQueue",
                "metadata": {"name": f"{self.name}-{name}"},
                "spec": {
                    "cohortName": self.name,
                    "namespaceSelector": {},
                    "resourceGroups": [
                        {
                            "coveredResources": ["cpu", "memory", GPU],
                            "flavors": [{"name": flavor or self.name, "resources": resources}],
                        }
                    ],
                    **spec,
                },
            },
            {
                "apiVersion": KUEUE,
                "kind": "LocalQueue",
                "metadata": {"name": name, "namespace": self.name},
                "spec": {"clusterQueue": f"{self.name}-{name}"},
            },
        )
        _until(lambda: self.read("clusterqueue", f"{self.name}-{name}").get("status", {}).get("conditions"))
        return name

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects with a label by which they are removed."""
        for item in objects:
            item["metadata"].setdefault("labels", {})["vl3.dev/check-team"] = self.name
        self.cluster.apply(*objects)

    def read(self, kind: str, name: str) -> dict[str, Any]:
        """One object."""
        return json.loads(self.cluster.kubectl("-n", self.name, "get", kind, name, "-o", "json"))

    def identity(self, token: str, folder: Path) -> Path:
        """A kubeconfig of the same cluster for another token."""
        view = json.loads(self.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        config = copy.deepcopy(view)
        config["users"][0]["user"] = {"token": token}
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        return path


def _until(call: Any, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := call()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return found


def flavor(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """A flavour of nodes with these labels."""
    spec = {"nodeLabels": labels, "nodeTaints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]}
    return {"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """The check makes no TrainJob; those that are there belong to others."""


@pytest.fixture(scope="module")
def team(cluster: Cluster) -> Iterator[Team]:
    """The namespace, with what our runtimes' pods name."""
    name = f"check-{uuid.uuid4().hex[:6]}"
    team = Team(cluster, name)
    labels = {"vl3.dev/queues": "true", "pod-security.kubernetes.io/enforce": "restricted"}
    team.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    team.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vl3-trainer", "namespace": name}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "vl3-settings", "namespace": name}},
        {
            "apiVersion": KUEUE,
            "kind": "LocalQueue",
            "metadata": {"name": "cpu", "namespace": name},
            "spec": {"clusterQueue": "vl3-cpu"},
        },
    )
    runtime = team.read("clustertrainingruntime", "vl3-torch-h200")
    runtime["metadata"] = {"name": f"vl3-torch-{name}"}
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"vl3.dev/pool": name}
    team.apply(runtime, flavor(name, {"vl3.dev/pool": name}))
    for number in range(2):
        node = gpu_node(f"{name}-{number}", name)
        del node["metadata"]["labels"]["vl3.dev/simulated"]
        team.apply(node)
    yield team
    selector = f"vl3.dev/check-team={name}"
    for kind in ("workloads.kueue.x-k8s.io", "localqueues"):
        cluster.kubectl("-n", name, "delete", kind, "--all", "--wait=true", check=False)
    kinds = "clusterqueues,cohorts,resourceflavors,clustertrainingruntimes,nodes"
    cluster.kubectl("delete", kinds, "-l", selector, "--wait=false", check=False)
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


def placed(team: Team, queue: str, *more: str) -> list[str]:
    """Arguments for a stage 4 of two pods with eight GPUs each."""
    values = {
        "pool": team.name,
        "queue": queue,
        "nodes": 2,
        "processes_per_node": 8,
        "gpus_per_node": 8,
        "gpu": "h200",
        "cpus_per_node": 16,
        "memory_gib": 128,
    }
    overrides = [f"placements.video.{name}={value}" for name, value in values.items()]
    return [part for override in (*overrides, "stages.video.packs_per_step=16", *more) for part in ("--set", override)]


@pytest.fixture(scope="module")
def launchers_kubeconfig(team: Team, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The identity with which the steps run."""
    token = team.cluster.kubectl("-n", NAMESPACE, "create", "token", "vl3-launcher").strip()
    return team.identity(token, tmp_path_factory.mktemp("launcher"))


def test_the_kind_overlay_has_all_that_tiny_needs_and_the_launcher_may_see_it(
    team: Team, launchers_kubeconfig: Path
) -> None:
    answer = team.check(namespace=NAMESPACE, kubeconfig=launchers_kubeconfig)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+ \(Kubernetes v1\.\d+\.\d+\), namespace vl3", lines[0])
    assert lines[1].split() == ["stage", "pool", "pods", "queue", "quota", "nodes"]
    assert lines[2].split()[:6] == ["vision_adaptation", "cpu", "2", "x", "0.6", "cores"]
    assert lines[-1] == "ok"
    (note,) = [line for line in lines if line.startswith("note")]
    assert note.startswith("note: not checked: which failed steps Kubeflow Pipelines retries"), "it is not on kind"


def test_a_simulated_pool_fits_exactly(team: Team) -> None:
    answer = team.check(*placed(team, team.queue("exact")))
    assert (answer.code, answer.err) == (0, "")
    row = next(line for line in answer.out.splitlines() if line.startswith("video"))
    assert row.split() == ["video", team.name, "2", "x", "8", "GPUs", "exact", "16", "of", "16", "GPUs", "2"]


def test_names_that_do_not_exist_are_one_report(team: Team) -> None:
    overrides = ["queue=gpu", "pool=h300", "priority=urgent"]
    answer = team.check(*[part for item in overrides for part in ("--set", f"placements.video.{item}")])
    assert answer.code == 2
    first, second, third = answer.err.splitlines()[:-1]
    assert (
        "placements.video.pool='h300': the cluster has no ClusterTrainingRuntime vl3-torch-h300. Set one of the pools"
        in first
    )
    assert f"placements.video.queue='gpu': namespace {team.name} has no LocalQueue gpu" in second
    assert "placements.video.priority='urgent': the cluster has no WorkloadPriorityClass urgent" in third
    assert answer.last.startswith("ConfigError: 3 problems of the cluster, listed above")


def test_more_gpus_than_the_quota_can_ever_give(team: Team) -> None:
    answer = team.check(*placed(team, team.queue("small", gpus="8", borrowingLimit="0")))
    assert answer.code == 2
    assert (
        f"placements.video requests more from ClusterQueue {team.name}-small than it can ever give: 16 nvidia.com/gpu "
        "(2 pods of 8 nvidia.com/gpu, can have 8 nvidia.com/gpu at most)."
    ) in answer.last


def test_quota_that_fits_only_by_borrowing(team: Team) -> None:
    team.queue("lender", gpus="64")
    answer = team.check(*placed(team, team.queue("borrower", gpus="4")))
    assert answer.code == 0
    assert f"note: placements.video fits only by borrowing 12 nvidia.com/gpu of 16 in cohort {team.name}" in answer.out


def test_no_node_that_big(team: Team) -> None:
    queue = team.queue("big", gpus="64")
    answer = team.check(*placed(team, queue, "placements.video.memory_gib=5000", "placements.video.nodes=1"))
    assert answer.code == 2
    assert (
        f"placements.video: no node of flavour {team.name} holds even one of its pods. A pod requests 5000 GiB of "
        "memory, the largest has 1024 GiB of memory allocatable"
    ) in answer.last


def test_more_pods_than_nodes(team: Team) -> None:
    answer = team.check(*placed(team, team.queue("wide", gpus="64"), "placements.video.nodes=4"))
    assert answer.code == 2
    assert (
        f"its 4 pods need more nodes than flavour {team.name} has: its 2 nodes hold 2 such pods when empty"
        in answer.last
    )


def test_a_pool_whose_nodes_are_not_there(team: Team) -> None:
    team.apply(flavor(f"{team.name}-none", {"vl3.dev/check": "none", "vl3.dev/pool": team.name}))
    answer = team.check(*placed(team, team.queue("empty", flavor=f"{team.name}-none")))
    assert answer.code == 4
    assert f"flavour {team.name}-none has no nodes (with the labels vl3.dev/check=none, vl3.dev/pool=" in answer.last


def test_a_stopped_queue(team: Team) -> None:
    answer = team.check(*placed(team, team.queue("stopped", stopPolicy="HoldAndDrain")))
    assert answer.code == 4
    assert answer.last == (
        f"ClusterError: ClusterQueue {team.name}-stopped is stopped (stopPolicy HoldAndDrain) and admits no job. Have "
        "its owner set spec.stopPolicy to None, or set another queue."
    )


def test_a_queue_that_kueue_has_put_out_of_action(team: Team) -> None:
    checks = {"admissionChecks": [{"name": "none-such"}]}
    answer = team.check(*placed(team, team.queue("inactive", admissionChecksStrategy=checks)))
    assert answer.code == 4
    assert f"ClusterQueue {team.name}-inactive is not active (AdmissionCheckNotFound: " in answer.last


def test_a_queue_whose_flavour_does_not_exist(team: Team) -> None:
    answer = team.check(*placed(team, team.queue("bare", flavor=f"{team.name}-gone")))
    assert answer.code == 4
    assert f"ResourceFlavor {team.name}-gone of ClusterQueue {team.name}-bare does not exist" in answer.err


def test_a_namespace_that_does_not_exist(team: Team) -> None:
    answer = team.check(namespace="nowhere")
    assert answer.code == 2
    assert answer.last.startswith("ConfigError: namespace 'nowhere' does not exist at https://127.0.0.1:")


def test_a_namespace_that_takes_no_more_jobs(team: Team) -> None:
    quota = {"hard": {"count/trainjobs.trainer.kubeflow.org": "0"}}
    full = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full", "namespace": team.name}}
    team.apply({**full, "spec": quota})
    _until(lambda: team.read("resourcequota", "full").get("status", {}).get("hard"))
    answer = team.check()
    team.cluster.kubectl("-n", team.name, "delete", "resourcequota", "full")
    assert answer.code == 4
    assert f"would refuse a TrainJob in namespace {team.name}: trainjobs.trainer.kubeflow.org " in answer.last
    assert "exceeded quota: full" in answer.last
    assert "Delete finished jobs (`vl3 cluster gc --older-than 1d`)" in answer.last
    assert team.check().code == 0


def test_an_identity_without_rights(team: Team, tmp_path: Path) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger", "namespace": team.name}}
    team.apply(account)
    token = team.cluster.kubectl("-n", team.name, "create", "token", "stranger").strip()
    answer = team.check(kubeconfig=team.identity(token, tmp_path))
    assert answer.code == 2
    assert answer.last.startswith(
        "ConfigError: forbidden by RBAC: this identity may not create/get/list/watch/patch/delete "
        "trainjobs.trainer.kubeflow.org, list/watch pods, get pods/log, list events and list workloads.kueue.x-k8s.io "
        f"in namespace {team.name} of https://127.0.0.1:"
    )
    assert "note: not checked: namespaces, clustertrainingruntimes, clusterqueues" in answer.out


def test_a_token_that_the_server_does_not_know(team: Team, tmp_path: Path) -> None:
    answer = team.check(kubeconfig=team.identity("expired", tmp_path))
    assert answer.code == 2
    assert "rejects our credentials" in answer.last
    assert "Log in again" in answer.last


def test_a_server_that_is_not_there(team: Team, tmp_path: Path) -> None:
    config = json.loads(team.identity("any", tmp_path).read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "kubeconfig").write_text(json.dumps(config), encoding="utf-8")
    started = time.monotonic()
    answer = team.check(kubeconfig=tmp_path / "kubeconfig")
    assert time.monotonic() - started < 30  # with the start of Python
    assert answer.code == 4
    assert "the API server https://127.0.0.1:1 cannot be reached (Connection refused)" in answer.last


def test_our_arithmetic_is_kueues(team: Team) -> None:
    """Each queue of a tree of cohorts with limits is asked for too much; Kueue then says its maximum."""
    cohort = {"apiVersion": KUEUE, "kind": "Cohort", "metadata": {"name": f"{team.name}-sub"}}
    flavors = [{"name": team.name, "resources": [{"name": GPU, "nominalQuota": "5", "borrowingLimit": "7"}]}]
    groups = [{"coveredResources": [GPU], "flavors": flavors}]
    team.apply({**cohort, "spec": {"parentName": f"{team.name}-top", "resourceGroups": groups}})
    sub, top = {"cohortName": f"{team.name}-sub"}, {"cohortName": f"{team.name}-top"}
    names = [
        team.queue("one", gpus="8", **sub),
        team.queue("two", gpus="20", lendingLimit="3", **sub),
        team.queue("three", gpus="6", borrowingLimit="2", **sub),
        team.queue("four", gpus="40", lendingLimit="30", **top),
    ]
    for name in names:
        container = {"name": "c", "image": "none", "resources": {"requests": {GPU: "1"}}}
        pod = {
            "containers": [container],
            "restartPolicy": "Never",
            "tolerations": [{"key": GPU, "operator": "Exists"}],
        }
        team.apply(
            {
                "apiVersion": KUEUE,
                "kind": "Workload",
                "metadata": {"name": name, "namespace": team.name},
                "spec": {
                    "queueName": name,
                    "podSets": [{"name": "main", "count": 1000, "template": {"spec": pod}}],
                },
            }
        )

    def said(name: str) -> str:
        conditions = team.read("workloads.kueue.x-k8s.io", name).get("status", {}).get("conditions", ())
        texts = [item["message"] for item in conditions if item["type"] == "QuotaReserved"]
        found = re.search(r"maximum capacity \((\w+)\)", " ".join(texts))
        return found[1] if found else ""

    kueues = {name: int(_until(lambda name=name: said(name))) for name in names}
    queues, cohorts = (
        {
            item["metadata"]["name"]: item
            for item in json.loads(team.cluster.kubectl("get", kind, "-o", "json"))["items"]
        }
        for kind in ("clusterqueues", "cohorts")
    )
    tree = QuotaTree(queues, cohorts)
    ours = {name: int(tree.maximum(f"{team.name}-{name}", team.name, GPU)) for name in names}
    assert ours == kueues
    assert len(set(ours.values())) > 2
