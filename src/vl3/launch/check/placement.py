"""Whether the pools, queues and priorities that a recipe names exist and work."""

from collections.abc import Iterator, Mapping
from typing import Any

from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, Object, ObjectKind
from vl3.launch.check.findings import Findings, listed, placement_field
from vl3.launch.check.needs import JobNeeds, Placements, all_needs
from vl3.launch.check.nodes import selects


def judge_names(placements: Placements, facts: ClusterFacts, findings: Findings) -> None:
    """Judge each pool, queue and priority once; messages name the fields of the recipe that use it."""
    for needs in all_needs(placements):
        for pool, stages in _by(needs.placed(placements), "pool"):
            _judge_pool(pool, needs, placement_field(stages, "pool"), facts, findings)
    for queue, stages in _by(placements, "queue"):
        _judge_queue(queue, placement_field(stages, "queue"), facts, findings)
    for priority, stages in _by(placements, "priority"):
        known = facts.known(ObjectKind.PRIORITY)
        if facts.is_known(ObjectKind.PRIORITY) and priority not in known:
            findings.add(
                ConfigError(
                    f"{placement_field(stages, 'priority')}={priority!r}: the cluster has no WorkloadPriorityClass "
                    f"{priority}, so Kueue would refuse the job. Set one of: {listed(known)}."
                )
            )


def _by(placements: Placements, name: str) -> Iterator[tuple[str, list[str]]]:
    values = dict.fromkeys(getattr(placement, name) for placement in placements.values())
    for value in values:
        yield value, [stage for stage, placement in placements.items() if getattr(placement, name) == value]


def _judge_pool(pool: str, needs: JobNeeds, where: str, facts: ClusterFacts, findings: Findings) -> None:
    if not facts.is_known(needs.kind):
        return
    name = needs.object_name(pool)
    found = facts.known(needs.kind).get(name)
    if found is None:
        findings.add(_missing_pool(pool, needs, where, facts))
        return
    if defects := list(needs.defects(found)):
        findings.add(
            ClusterError(
                f"{needs.kind.label} {name} does not work for vl3: {'; '.join(defects)}. Apply the one from "
                f"{needs.folder} again."
            )
        )
    _judge_companions(f"{needs.kind.label} {name}", needs.pod_spec(found), facts, findings)


def _missing_pool(pool: str, needs: JobNeeds, where: str, facts: ClusterFacts) -> ConfigError:
    if needs.kind.is_namespaced:  # read by name, so that others are not known
        place, have = f"namespace {facts.namespace}", f"`kubectl get {needs.kind.plural}`"
    else:
        names = [name for name in facts.known(needs.kind) if needs.prefix in name]
        place, have = "the cluster", listed(name.removeprefix(needs.prefix) for name in names)
    what = "runtime" if needs.kind is ObjectKind.RUNTIME else needs.kind.label
    return ConfigError(
        f"{where}={pool!r}: {place} has no {needs.kind.label} {needs.object_name(pool)}. Set one of the pools that "
        f"have one ({have}), or apply a {what} for this pool ({needs.folder})."
    )


def companions(pod: Mapping[str, Any] | None) -> list[tuple[ObjectKind, str]]:
    """Objects that pods need to start. Secrets are left out: reading them should need no right here."""
    if pod is None:
        return []
    sources = [source for container in pod["containers"] for source in container.get("envFrom") or ()]
    maps = [source["configMapRef"] for source in sources if "configMapRef" in source]
    needed = [(ObjectKind.CONFIG_MAP, item["name"]) for item in maps if not item.get("optional")]
    if pod.get("serviceAccountName"):
        needed.append((ObjectKind.SERVICE_ACCOUNT, pod["serviceAccountName"]))
    return needed


def _judge_companions(owner: str, pod: Mapping[str, Any] | None, facts: ClusterFacts, findings: Findings) -> None:
    for kind, wanted in companions(pod):
        if facts.is_known(kind) and wanted not in facts.known(kind):
            findings.add(
                ClusterError(
                    f"{kind.label} {wanted} of {owner} does not exist in namespace "
                    f"{facts.namespace}, so its pods could not start. Apply an overlay (it has manifests/base) there."
                )
            )


def _judge_queue(queue: str, where: str, facts: ClusterFacts, findings: Findings) -> None:
    if not facts.is_known(ObjectKind.LOCAL_QUEUE):
        return
    local = facts.known(ObjectKind.LOCAL_QUEUE).get(queue)
    if local is None:
        findings.add(
            ConfigError(
                f"{where}={queue!r}: namespace {facts.namespace} has no LocalQueue {queue}, so the job would wait "
                f"forever. Set one of: {listed(facts.known(ObjectKind.LOCAL_QUEUE))}."
            )
        )
        return
    _judge_stop("LocalQueue", queue, local, findings)
    if not facts.is_known(ObjectKind.CLUSTER_QUEUE):
        return
    name = local["spec"].get("clusterQueue", "")
    cluster_queue = facts.known(ObjectKind.CLUSTER_QUEUE).get(name)
    if cluster_queue is None:
        findings.add(
            ClusterError(
                f"LocalQueue {queue} in namespace {facts.namespace} points to ClusterQueue {name}, which does not "
                f"exist. Have its owner set one of the cluster's: {listed(facts.known(ObjectKind.CLUSTER_QUEUE))} "
                "(manifests/cluster/cluster-queues)."
            )
        )
        return
    if not _judge_stop("ClusterQueue", name, cluster_queue, findings):
        _judge_active(name, cluster_queue, findings)
    _judge_selector(name, cluster_queue, facts, findings)


def _judge_stop(kind: str, name: str, queue: Object, findings: Findings) -> bool:
    """Report a queue that was stopped; returns whether it was."""
    policy = queue["spec"].get("stopPolicy") or "None"
    if policy == "None":
        return False
    findings.add(
        ClusterError(
            f"{kind} {name} is stopped (stopPolicy {policy}) and admits no job. Have its owner set spec.stopPolicy to "
            "None, or set another queue."
        )
    )
    return True


def _judge_active(name: str, queue: Object, findings: Findings) -> None:
    conditions = (queue.get("status") or {}).get("conditions") or ()
    active = next((condition for condition in conditions if condition["type"] == "Active"), None)
    if active is None:
        findings.add(
            ClusterError(
                f"ClusterQueue {name} has no condition Active: Kueue has not processed it yet. Check that Kueue's "
                "controller runs (namespace kueue-system)."
            )
        )
    elif active["status"] != "True":
        findings.add(
            ClusterError(
                f"ClusterQueue {name} is not active ({active.get('reason')}: {active.get('message')}) and admits no "
                "job. Have its owner fix it, or set another queue."
            )
        )


def _judge_selector(name: str, queue: Object, facts: ClusterFacts, findings: Findings) -> None:
    namespace = facts.known(ObjectKind.NAMESPACE).get(facts.namespace)
    selector = queue["spec"].get("namespaceSelector")
    if namespace is not None and not selects(selector, namespace["metadata"].get("labels", {})):
        wanted = listed(f"{key}={value}" for key, value in ((selector or {}).get("matchLabels") or {}).items())
        findings.add(
            ClusterError(
                f"ClusterQueue {name} accepts no jobs from namespace {facts.namespace}: its namespaceSelector requires "
                f"other labels ({wanted}). Have the namespace labelled so, or set another queue."
            )
        )
