"""Whether the cluster lets a placement have its capabilities, and knows the topology that it asks for."""

from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, Object, ObjectKind
from vl3.launch.check.findings import Findings, listed, placement_field
from vl3.launch.check.needs import STAGE, Placements

_LEVEL = "pod-security.kubernetes.io/enforce"
_STRICT = ("baseline", "restricted")
"""Levels of Pod Security, of which neither allows a capability that RDMA needs."""


def judge_fabric(placements: Placements, facts: ClusterFacts, findings: Findings) -> None:
    """Judge what the placements of stages ask of the namespace and of their queue's flavours."""
    for stage, placement in STAGE.placed(placements).items():
        where = placement_field([stage])
        if placement.fabric.capabilities:
            _judge_capabilities(f"{where}.fabric.capabilities", placement.fabric.capabilities, facts, findings)
        level = placement.scheduling.required_topology or placement.scheduling.preferred_topology
        if level:
            _judge_topology(f"{where}.scheduling", level, placement.queue, facts, findings)


def _judge_capabilities(where: str, names: list[str], facts: ClusterFacts, findings: Findings) -> None:
    namespace = facts.known(ObjectKind.NAMESPACE).get(facts.namespace)
    level = ((namespace or {}).get("metadata", {}).get("labels") or {}).get(_LEVEL, "")
    if level in _STRICT:
        findings.add(
            ConfigError(
                f"{where} asks for {listed(names)}, and namespace {facts.namespace} enforces the Pod Security level "
                f"{level}, which allows no such capability: its pods would be refused. Leave it out and raise the "
                "limit of locked memory, which RDMA needs it for, in the container runtime of the nodes "
                f"(LimitMEMLOCK), or have the namespace labelled {_LEVEL}=privileged."
            )
        )


def _judge_topology(where: str, level: str, queue: str, facts: ClusterFacts, findings: Findings) -> None:
    local = facts.known(ObjectKind.LOCAL_QUEUE).get(queue)
    name = "" if local is None else local["spec"].get("clusterQueue", "")
    cluster_queue = facts.known(ObjectKind.CLUSTER_QUEUE).get(name)
    if cluster_queue is None or not facts.is_known(ObjectKind.FLAVOR):
        return
    flavors = [facts.known(ObjectKind.FLAVOR).get(flavor, {}) for flavor in _flavors(cluster_queue)]
    if not any((flavor.get("spec") or {}).get("topologyName") for flavor in flavors):
        findings.add(
            ClusterError(
                f"{where} asks for the topology level {level}, and none of the flavours of ClusterQueue {name} has a "
                "topology (spec.topologyName), so Kueue would never admit the job. Have its owner make a Topology with "
                "this level and name it in the flavour, or leave the topology out."
            )
        )


def _flavors(cluster_queue: Object) -> list[str]:
    groups = cluster_queue["spec"].get("resourceGroups") or ()
    return [flavor["name"] for group in groups for flavor in group["flavors"]]
