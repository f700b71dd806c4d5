"""Which flavours and nodes suit a pod, and how many pods a node holds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from vl3.launch.check.facts import Object
from vl3.launch.check.quota import Amounts
from vl3.launch.kube.objects import parse_quantity

_REPELLING = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodShape:
    """What decides where a pod may run. Our runtimes use a node selector; affinity is not checked."""

    requests: Amounts
    """Resources of one pod."""
    node_selector: Mapping[str, str]
    """Labels that its node must have."""
    tolerations: Sequence[Object]
    """Taints that it tolerates."""


def why_not_flavor(flavor: Object, pod: PodShape) -> str | None:
    """Why Kueue would not assign this flavour to a pod; None if it may.

    Like Kueue, it compares only labels that the flavour has: the selector {"pool": "h200", "zone": "b"} does not fit a
    flavour with the label pool=a100, and fits one with only pool=h200, whatever zone its nodes are in.
    """
    spec = flavor.get("spec") or {}
    labels = spec.get("nodeLabels") or {}
    for key, value in pod.node_selector.items():
        if labels.get(key, value) != value:
            return f"its label {key}={labels[key]} is not the pods' {key}={value}"
    taint = untolerated(spec.get("nodeTaints") or (), [*pod.tolerations, *(spec.get("tolerations") or ())])
    return None if taint is None else f"the pods do not tolerate its taint {taint}"


def untolerated(taints: Iterable[Object], tolerations: Sequence[Object]) -> str | None:
    """The first taint that repels a pod, as `key=value:effect`; None if it tolerates all."""
    for taint in taints:
        if taint["effect"] in _REPELLING and not any(_tolerates(item, taint) for item in tolerations):
            return f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    """Whether a toleration covers a taint; a missing effect covers all effects.

    The taint gpu=yes:NoSchedule is tolerated by {key: gpu, value: yes}, by {key: gpu, operator: Exists} and by
    {operator: Exists}, and not by {key: gpu}, whose value is empty.
    """
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def nodes_of(nodes: Iterable[Object], flavor: Object, pod: PodShape) -> list[Object]:
    """The nodes of a flavour that a pod may be scheduled to, ready or not."""
    spec = flavor.get("spec") or {}
    wanted = {**(spec.get("nodeLabels") or {}), **pod.node_selector}
    tolerations = [*pod.tolerations, *(spec.get("tolerations") or ())]
    return [
        node
        for node in nodes
        if wanted.items() <= node["metadata"].get("labels", {}).items()
        and untolerated(_lasting_taints(node), tolerations) is None
    ]


def _lasting_taints(node: Object) -> list[Object]:
    """Taints that an administrator set, without those that Kubernetes sets while a node is not ready or cordoned."""
    taints = node["spec"].get("taints") or ()
    return [taint for taint in taints if not taint["key"].startswith("node.kubernetes.io/")]


def is_ready(node: Object) -> bool:
    """Whether a node accepts pods now."""
    conditions = node["status"].get("conditions") or ()
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not node["spec"].get("unschedulable", False)


def pods_on(node: Object, pod: PodShape) -> int:
    """How many such pods an empty node holds: the resource that runs out first decides.

    A node of 8 GPUs, 64 cores and 500 GiB holds min(8 // 2, 64 // 20, 500 // 200) = 2 pods of 2 GPUs, 20 cores and
    200 GiB.
    """
    return min((int(allocatable(node, name) // each) for name, each in pod.requests.items() if each), default=0)


def shortages(pod: PodShape, nodes: Sequence[Object]) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Each resource of which no node has as much as the pod requests: its name, the request, the most that one has."""
    for name, each in pod.requests.items():
        largest = max(allocatable(node, name) for node in nodes)
        if each > largest:
            yield name, each, largest


def allocatable(node: Object, resource: str) -> Decimal:
    """How much of a node's resource pods may use."""
    return parse_quantity(node["status"].get("allocatable", {}).get(resource, 0))


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches these labels; no selector matches nothing, an empty one everything.

    {"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}
    matches {"team": "a"} and {"team": "a", "env": "dev"}, and not {"team": "a", "env": "prod"}.
    """
    if selector is None:
        return False
    exact: Mapping[str, str] = selector.get("matchLabels") or {}
    return exact.items() <= labels.items() and all(
        _matches(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]
