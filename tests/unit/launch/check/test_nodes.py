"""Taints, labels and sizes, as the scheduler takes them."""

from decimal import Decimal
from typing import Any

import pytest

from vl3.launch.check.nodes import PodShape, is_ready, nodes_of, pods_on, selects, untolerated

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def node(labels: dict[str, str] | None = None, taints: tuple[Any, ...] = (), **allocatable: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": labels or {}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(**requests: int) -> PodShape:
    return PodShape(
        requests={name: Decimal(value) for name, value in requests.items()}, node_selector={}, tolerations=()
    )


@pytest.mark.parametrize(
    ("toleration", "bears"),
    [
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Equal", "value": "other"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "spot", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], bears: bool) -> None:
    expected = None if bears else "nvidia.com/gpu=present:NoSchedule"
    assert untolerated([TAINT], [toleration]) == expected


def test_a_preference_taint_repels_no_pod() -> None:
    assert untolerated([{**TAINT, "effect": "PreferNoSchedule"}], []) is None


def test_a_node_holds_what_its_scarcest_resource_allows() -> None:
    assert pods_on(node(cpu="10", memory="8Gi"), pod(cpu=2, memory=3 * 2**30)) == 2
    assert pods_on(node(cpu="10"), pod(cpu=2, memory=1)) == 0
    assert pods_on({**node(), "status": {}}, pod(cpu=1)) == 0


def test_nodes_of_a_flavour_have_its_labels_and_tolerable_taints() -> None:
    ill = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    nodes = [
        node({"pool": "h200"}),
        node({"pool": "a100"}),
        node({"pool": "h200"}, (TAINT,)),
        node({"pool": "h200"}, (ill,)),
    ]
    flavor = {"spec": {"nodeLabels": {"pool": "h200"}}}
    assert nodes_of(nodes, flavor, pod(cpu=1)) == [nodes[0], nodes[3]]
    tolerant = {"spec": {"nodeLabels": {"pool": "h200"}, "tolerations": [{"operator": "Exists"}]}}
    assert nodes_of(nodes, tolerant, pod(cpu=1)) == [nodes[0], nodes[2], nodes[3]]


def test_ready_means_ready_and_not_cordoned() -> None:
    cordoned = node()
    cordoned["spec"]["unschedulable"] = True
    lost = node()
    lost["status"]["conditions"][0]["status"] = "Unknown"
    assert [is_ready(node()), is_ready(cordoned), is_ready(lost)] == [True, False, False]


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"team": "video"}}, True),
        ({"matchLabels": {"team": "audio"}}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["audio", "video"]}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["video"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_label_selectors(selector: dict[str, Any] | None, taken: bool) -> None:
    assert selects(selector, {"team": "video"}) is taken
