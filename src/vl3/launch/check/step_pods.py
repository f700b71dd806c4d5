"""Whether the pods of the workflow's own steps can ever run: no queue holds them back, so a node must hold each."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from vl3.config.step_pods import PodSize
from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, Object, ObjectKind
from vl3.launch.check.findings import Findings, PlacementRow, amount
from vl3.launch.check.nodes import PodShape, allocatable, is_ready, nodes_of, pods_on, shortages

_SETTINGS = {"cpu": ("cpus", 1), "memory": ("memory_gib", 1024**3)}
"""Field of the configuration that sets a resource, and its unit."""
_MENDED = Decimal("0.75")
"""Part of the largest node that a message proposes: what runs on every node needs some of it, too."""
_NOWHERE = "-"


def judge_step_pods(pods: Mapping[str, PodSize], facts: ClusterFacts, findings: Findings) -> list[PlacementRow]:
    """Judge each kind of step pod; returns a row for each. They have no node selector and tolerate no taint."""
    return [_judge(f"step_pods.{kind}", size, facts, findings) for kind, size in pods.items()]


def _judge(where: str, size: PodSize, facts: ClusterFacts, findings: Findings) -> PlacementRow:
    pod = PodShape(requests=_requests(size), node_selector={}, tolerations=())
    holding = None
    if facts.is_known(ObjectKind.NODE):
        nodes = nodes_of(facts.known(ObjectKind.NODE).values(), {}, pod)
        holding = [node for node in nodes if pods_on(node, pod)]
        if not nodes:
            findings.add(_no_node(len(facts.known(ObjectKind.NODE))))
        elif not holding:
            findings.add(_too_large(where, pod, nodes))
        elif not any(is_ready(node) for node in holding):
            findings.note(f"{where}: no node that holds such a pod accepts one now; they are cordoned or not ready")
    return PlacementRow(
        stage=where,
        pool=_NOWHERE,
        pods=f"1 x {size.cpus:g} cores, {size.memory_gib:g} GiB",
        queue=_NOWHERE,
        quota=_NOWHERE,
        nodes="?" if holding is None else str(len(holding)),
    )


def _requests(size: PodSize) -> dict[str, Decimal]:
    return {"cpu": Decimal(str(size.cpus)), "memory": Decimal(str(size.memory_gib)) * 1024**3}


def _no_node(count: int) -> ClusterError:
    return ClusterError(
        f"the pods of the workflow's steps can run nowhere: each of the {count} nodes has a taint, which they do not "
        "tolerate. Have a node without taints added."
    )


def _too_large(where: str, pod: PodShape, nodes: Sequence[Object]) -> ConfigError:
    lacking = list(shortages(pod, nodes))
    small = [f"{amount(name, each)}, the largest has {amount(name, largest)}" for name, each, largest in lacking]
    remedy = " ".join(f"--set {where}.{_mended(name, largest)}" for name, _, largest in lacking)
    if not lacking:
        biggest = max(nodes, key=lambda node: allocatable(node, "memory"))
        remedy = " ".join(f"--set {where}.{_mended(name, allocatable(biggest, name))}" for name in pod.requests)
    return ConfigError(
        f"{where}: no node holds such a pod, which would stay Pending. It requests "
        f"{'; '.join(small) or 'a combination that none of them has'} allocatable ({len(nodes)} nodes without taints "
        f"checked). Lower it ({remedy}), or have a larger node added."
    )


def _mended(resource: str, largest: Decimal) -> str:
    """A setting that the largest node has room for: 2 cores give `cpus=1.5`."""
    field, unit = _SETTINGS[resource]
    return f"{field}={(largest / unit * _MENDED).quantize(Decimal('0.1')).normalize():f}"
