"""Step pods judged by the nodes of a cluster: what holds none of them is named, with what mends it."""

from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.config.step_pods import PodSize
from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, ObjectKind
from vl3.launch.check.findings import Findings
from vl3.launch.check.step_pods import judge_step_pods
from vl3.recipes.catalog import get_any_recipe


def sizes(*overrides: str, recipe: str = "tiny") -> dict[str, PodSize]:
    return apply_overrides(get_any_recipe(recipe), overrides).step_sizes


def node(name: str, cpu: str = "2", memory: str = "24Gi", *taints: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {}},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def judged(pods: dict[str, PodSize], *nodes: dict[str, Any]) -> tuple[Findings, list[tuple[str, str, str]]]:
    facts = ClusterFacts(
        server="",
        version="",
        namespace="vl3",
        apis={},
        trainjob_fields=None,
        denied=(),
        refusals={},
        objects={ObjectKind.NODE: {one["metadata"]["name"]: one for one in nodes}} if nodes else {},
        unreadable={},
    )
    findings = Findings()
    rows = judge_step_pods(pods, facts, findings)
    return findings, [(row.stage, row.pods, row.nodes) for row in rows]


def test_tiny_fits_the_node_of_two_cores() -> None:
    findings, rows = judged(
        sizes(), node("worker"), node("control", "8", "64Gi", "node-role.kubernetes.io/control-plane")
    )
    assert (findings.problems, findings.notes) == ([], [])
    assert rows == [
        ("step_pods.launcher", "1 x 0.1 cores, 1 GiB", "1"),
        ("step_pods.data", "1 x 1 cores, 2 GiB", "1"),
        ("step_pods.evaluator", "1 x 1 cores, 4 GiB", "1"),
    ]


def test_a_curation_has_pods_of_its_own() -> None:
    findings, rows = judged(sizes(recipe="curate_tiny"), node("worker"))
    assert findings.problems == []
    assert [row[0] for row in rows] == ["step_pods.launcher", "step_pods.data", "step_pods.curator"]


def test_a_pod_that_no_node_holds_is_named_with_the_override_that_mends_it() -> None:
    pods = sizes("step_pods.evaluator.cpu_limit=16", "step_pods.evaluator.cpus=4", "step_pods.evaluator.memory_gib=64")
    findings, rows = judged(pods, node("small"), node("large", "3500m", "32Gi"))
    (problem,) = findings.problems
    assert isinstance(problem, ConfigError)
    assert str(problem) == (
        "step_pods.evaluator: no node holds such a pod, which would stay Pending. It requests 4 cores, the largest has "
        "3.5 cores; 64 GiB of memory, the largest has 32 GiB of memory allocatable (2 nodes without taints checked). "
        "Lower it (--set step_pods.evaluator.cpus=2.6 --set step_pods.evaluator.memory_gib=24), or have a larger node "
        "added."
    )
    assert rows[-1][-1] == "0"
    mended = sizes(
        "step_pods.evaluator.cpu_limit=16", "step_pods.evaluator.cpus=2.6", "step_pods.evaluator.memory_gib=24"
    )
    assert judged(mended, node("large", "3500m", "32Gi"))[0].problems == []


def test_a_pod_of_which_each_half_fits_another_node() -> None:
    pods = sizes("step_pods.data.cpu_limit=4", "step_pods.data.cpus=4", "step_pods.data.memory_gib=20")
    findings, _ = judged(pods, node("cores", "8", "8Gi"), node("memory", "2", "64Gi"))
    (problem,) = findings.problems
    assert "It requests a combination that none of them has allocatable (2 nodes" in str(problem)
    assert "(--set step_pods.data.cpus=1.5 --set step_pods.data.memory_gib=48)" in str(problem)


def test_nodes_with_taints_only() -> None:
    findings, rows = judged(sizes(), node("gpu", "128", "1Ti", "nvidia.com/gpu"))
    (problem,) = findings.problems
    assert isinstance(problem, ClusterError)
    assert str(problem) == (
        "the pods of the workflow's steps can run nowhere: each of the 1 nodes has a taint, which they do not "
        "tolerate. Have a node without taints added."
    )
    assert [row[-1] for row in rows] == ["0", "0", "0"]


def test_a_node_that_is_not_ready_is_a_note() -> None:
    findings, _ = judged(sizes(), node("worker", ready="False"))
    assert findings.problems == []
    assert findings.notes[-1] == (
        "step_pods.evaluator: no node that holds such a pod accepts one now; they are cordoned or not ready"
    )


def test_unknown_nodes_are_not_judged() -> None:
    findings, rows = judged(sizes(recipe="vl3_7b"))
    assert (findings.problems, findings.notes) == ([], [])
    assert [row[-1] for row in rows] == ["?", "?", "?"]


@pytest.mark.parametrize("recipe", ["vl3_2b", "vl3_7b"])
def test_large_recipes_need_a_large_node(recipe: str) -> None:
    assert judged(sizes(recipe=recipe), node("worker", "32", "256Gi"))[0].problems == []
    findings, _ = judged(sizes(recipe=recipe), node("worker"))
    assert [str(problem).partition(":")[0] for problem in findings.problems] == [
        "step_pods.data",
        "step_pods.evaluator",
    ]
