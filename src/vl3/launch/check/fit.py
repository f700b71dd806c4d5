"""Whether a placement can ever run: within the most that Kueue can give it, and on the existing nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product

from vl3.config.placement import PlacementConfig
from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, Object, ObjectKind
from vl3.launch.check.findings import Findings, PlacementRow, amount, joined, listed, placement_field
from vl3.launch.check.needs import GPU, JobNeeds, Placements, all_needs
from vl3.launch.check.nodes import PodShape, is_ready, nodes_of, pods_on, shortages, why_not_flavor
from vl3.launch.check.quota import Amounts, QuotaTree, cohort_of
from vl3.launch.trainjob.spec import tolerations_of

_UNKNOWN = "?"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementFit:
    """One placement against one cluster queue."""

    where: str
    """Field of the recipe, `placements.video`."""
    placement: PlacementConfig
    """With its fewest nodes, if their number may change: with those it can run."""
    needs: JobNeeds
    pod: PodShape
    """One of the pods that the placement counts."""
    queue: str
    """Name of the cluster queue."""
    spec: Object
    """The cluster queue itself."""
    quotas: QuotaTree

    @property
    def total(self) -> Amounts:
        """Requests of all pods together; a resource that is not requested needs no quota.

        Two pods of 8 GPUs, 96 cores and 900 GiB: 16 GPUs, 192 cores and 1800 GiB.
        """
        others = self.needs.others
        return {
            name: each * self.placement.nodes + others.get(name, 0) for name, each in self.pod.requests.items() if each
        }

    @property
    def template(self) -> str:
        """Name of the object after which the pods are made."""
        return self.needs.object_name(self.placement.pool)


def pod_requests(placement: PlacementConfig) -> Amounts:
    """Resources of one pod of a placement."""
    fabric = placement.fabric
    return {
        "cpu": Decimal(str(placement.cpus_per_node)),
        "memory": Decimal(str(placement.memory_gib)) * 1024**3,
        GPU: Decimal(placement.gpus_per_node),
        **{name: Decimal(count) for name, count in fabric.devices.items()},
        **{f"hugepages-{size}": Decimal(str(gib)) * 1024**3 for size, gib in fabric.hugepages_gib.items()},
    }


def judge_fit(placements: Placements, facts: ClusterFacts, findings: Findings) -> list[PlacementRow]:
    """Judge each distinct placement once; returns a row for every stage."""
    quotas = QuotaTree(facts.known(ObjectKind.CLUSTER_QUEUE), facts.known(ObjectKind.COHORT))
    rows = {}
    for needs in all_needs(placements):
        placed = needs.placed(placements)
        for placement in dict.fromkeys(placed.values()):
            stages = [stage for stage, other in placed.items() if other == placement]
            fit = _fit(placement, needs, stages, facts, quotas)
            flavors = None if fit is None else _judge_quota(fit, facts, findings)
            nodes = _judge_nodes(fit, flavors, facts, findings) if fit is not None and flavors else None
            for stage in stages:
                rows[stage] = _row(stage, placement, fit, flavors, nodes)
    return [rows[stage] for stage in placements]


def _fit(
    placement: PlacementConfig, needs: JobNeeds, stages: Sequence[str], facts: ClusterFacts, quotas: QuotaTree
) -> PlacementFit | None:
    """A placement with its queue and pod; None if one of them is missing, which judge_names reports."""
    found = facts.known(needs.kind).get(needs.object_name(placement.pool))
    template = None if found is None else needs.pod_spec(found)
    local = facts.known(ObjectKind.LOCAL_QUEUE).get(placement.queue)
    queue = "" if local is None else local["spec"].get("clusterQueue", "")
    if template is None or queue not in facts.known(ObjectKind.CLUSTER_QUEUE):
        return None
    return PlacementFit(
        where=placement_field(stages),
        placement=replace(placement, nodes=placement.min_nodes or placement.nodes, min_nodes=None),
        needs=needs,
        pod=PodShape(
            requests=pod_requests(placement),
            node_selector={**(template.get("nodeSelector") or {}), **placement.scheduling.node_labels},
            tolerations=tolerations_of(placement.scheduling) or template.get("tolerations") or (),
        ),
        queue=queue,
        spec=facts.known(ObjectKind.CLUSTER_QUEUE)[queue],
        quotas=quotas,
    )


def _judge_quota(fit: PlacementFit, facts: ClusterFacts, findings: Findings) -> list[dict[str, str]] | None:
    """The choices of flavours that fit the placement, each as resource -> flavour; None if there is none.

    Kueue assigns one flavour to all resources of a group, and every group must have one that suits the pods. A group
    of cpu and memory with the flavour cpu, and a group of GPUs with the flavours a100 and h200, both large enough:

        [{"cpu": "cpu", "memory": "cpu", "nvidia.com/gpu": "a100"},
         {"cpu": "cpu", "memory": "cpu", "nvidia.com/gpu": "h200"}]
    """
    if not facts.is_known(ObjectKind.FLAVOR):
        return None
    groups = fit.spec["spec"].get("resourceGroups") or ()
    covered = {resource for group in groups for resource in group["coveredResources"]}
    fabric = {*fit.placement.fabric.devices, *(f"hugepages-{size}" for size in fit.placement.fabric.hugepages_gib)}
    bare = [name for name in fit.total if name not in covered]
    if bare and fabric.issuperset(bare):
        findings.note(
            f"{fit.where}: ClusterQueue {fit.queue} has no quota for {joined(sorted(bare))}. Kueue admits the job only "
            "if its configuration leaves such resources out (resources.excludeResourcePrefixes); otherwise add them to "
            "the queue's coveredResources"
        )
    elif bare:
        findings.add(
            ConfigError(
                f"{fit.where}: ClusterQueue {fit.queue} has no quota at all for "
                f"{joined([amount(name, fit.total[name]) for name in bare])}, so the job would wait forever. Set a "
                "queue and pool that have such quota, or request none of it."
            )
        )
        return None
    choices = []
    for group in groups:
        names = [name for name in group["coveredResources"] if name in fit.total]
        if not names:
            continue
        suiting = _suiting(fit, [flavor["name"] for flavor in group["flavors"]], facts, findings)
        if not suiting:
            return None
        roomy = [flavor for flavor in suiting if not _exceeded(fit, flavor, names)]
        if not roomy:
            findings.add(_quota_error(fit, suiting, names))
            return None
        _note_borrowing(fit, roomy, names, findings)
        choices.append([dict.fromkeys(names, flavor) for flavor in roomy])
    return [{name: flavor for part in parts for name, flavor in part.items()} for parts in product(*choices)]


def _suiting(fit: PlacementFit, names: Sequence[str], facts: ClusterFacts, findings: Findings) -> list[str]:
    """Flavours of a group that suit the pods; a missing one, or none that suits, is a problem."""
    flavors = facts.known(ObjectKind.FLAVOR)
    missing = [name for name in names if name not in flavors]
    if missing:
        findings.add(
            ClusterError(
                f"ResourceFlavor {listed(missing)} of ClusterQueue {fit.queue} does not exist, so Kueue stops the "
                "queue. Apply it (manifests/cluster/resource-flavors)."
            )
        )
    reasons = {name: why_not_flavor(flavors[name], fit.pod) for name in names if name in flavors}
    if reasons and all(reasons.values()):
        findings.add(
            ConfigError(
                f"{fit.where}: queue={fit.placement.queue!r} and pool={fit.placement.pool!r} do not match: "
                f"no flavour of ClusterQueue {fit.queue} suits the pods of {fit.template}. "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
                + ". Set the queue of that pool."
            )
        )
    return [name for name, reason in reasons.items() if reason is None]


def _exceeded(fit: PlacementFit, flavor: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if fit.total[name] > fit.quotas.maximum(fit.queue, flavor, name)]


def _quota_error(fit: PlacementFit, flavors: Sequence[str], names: Sequence[str]) -> ConfigError:
    flavor = min(flavors, key=lambda name: len(_exceeded(fit, name, names)))
    lacking = [
        f"{amount(name, fit.total[name])} ({fit.placement.nodes} pods of {amount(name, fit.pod.requests[name])}"
        f"{_others(fit, name)}, can have {_share(fit, flavor, name)})"
        for name in _exceeded(fit, flavor, names)
    ]
    return ConfigError(
        f"{fit.where} requests more from ClusterQueue {fit.queue} than it can ever give: {joined(lacking)}. The job "
        f"would wait forever. Lower {fit.where}.nodes or the requests per node, set a larger queue, or have the quota "
        f"of flavour {flavor} raised."
    )


def _others(fit: PlacementFit, name: str) -> str:
    """` and 0.35 cores of head and submitter`; empty if the job has no other pods."""
    others = fit.needs.others.get(name)
    return f" and {amount(name, others)} of {fit.needs.others_name}" if others else ""


def _share(fit: PlacementFit, flavor: str, name: str) -> str:
    """`16 nvidia.com/gpu at most`, with how much of it is borrowed."""
    maximum = fit.quotas.maximum(fit.queue, flavor, name)
    borrowed = maximum - min(maximum, fit.quotas.nominal(fit.queue, flavor, name))
    cohort = cohort_of(fit.spec)
    lent = f", {amount(name, borrowed)} of it borrowed in cohort {cohort}" if borrowed and cohort else ""
    return f"{amount(name, maximum)} at most{lent}"


def _note_borrowing(fit: PlacementFit, flavors: Sequence[str], names: Sequence[str], findings: Findings) -> None:
    """Note if the placement fits only by borrowing: the owner may reclaim what it lends.

    16 GPUs where the queue has a nominal quota of 12 and can borrow 8: the note says `4 nvidia.com/gpu of 16`.
    """
    lacks = [
        [name for name in names if fit.total[name] > fit.quotas.nominal(fit.queue, flavor, name)] for flavor in flavors
    ]
    if all(lacks):
        loans = [
            amount(name, fit.total[name] - fit.quotas.nominal(fit.queue, flavors[0], name))
            + f" of {fit.total[name].normalize():f}"
            for name in lacks[0]
        ]
        findings.note(
            f"{fit.where} fits only by borrowing {joined(loans)} in cohort {cohort_of(fit.spec)}: the owner may "
            f"reclaim it, and the {fit.needs.words.name} then {fit.needs.words.resumes}"
        )


def _judge_nodes(
    fit: PlacementFit, choices: Sequence[Mapping[str, str]], facts: ClusterFacts, findings: Findings
) -> Sequence[Object] | None:
    """The nodes of the choice of flavours that hold the most pods; None if they cannot be judged."""
    if not facts.is_known(ObjectKind.NODE):
        return None
    if checks := _admission_checks(fit.spec["spec"]):
        findings.note(
            f"not checked: the nodes of {fit.where}, because ClusterQueue {fit.queue} has admission checks "
            f"({listed(checks)}), which may add nodes or move the job to another cluster"
        )
        return None
    offers = [(flavors, _nodes(fit, flavors, facts)) for flavors in choices]
    flavors, nodes = max(offers, key=lambda offer: _capacity(offer[1], fit.pod))
    name = listed(set(flavors.values()))
    # The first of these that is true explains the others: no node, none large enough, too few, not ready now.
    if not nodes:
        findings.add(_no_node(fit, name, facts))
    elif not _capacity(nodes, fit.pod):
        findings.add(_no_node_that_big(fit, name, nodes))
    elif (capacity := _capacity(nodes, fit.pod)) < fit.placement.nodes:
        findings.add(
            ConfigError(
                f"{fit.where}: its {fit.placement.nodes} pods need more nodes than flavour {name} has: its "
                f"{len(nodes)} nodes hold {capacity} such pods when empty. Once Kueue admits the job, the other pods "
                f"would stay Pending and hold the quota. Lower {fit.where}.nodes, or have nodes added."
            )
        )
    elif (ready := _capacity([node for node in nodes if is_ready(node)], fit.pod)) < fit.placement.nodes:
        findings.note(
            f"{fit.where}: those of the {len(nodes)} nodes of flavour {name} that are ready hold {ready} of its "
            f"{fit.placement.nodes} pods; the other nodes are cordoned or not ready"
        )
    return nodes


def _nodes(fit: PlacementFit, flavors: Mapping[str, str], facts: ClusterFacts) -> list[Object]:
    """Nodes that belong to all flavours of a choice."""
    nodes = list(facts.known(ObjectKind.NODE).values())
    for name in dict.fromkeys(flavors.values()):
        nodes = nodes_of(nodes, facts.known(ObjectKind.FLAVOR)[name], fit.pod)
    return nodes


def _capacity(nodes: Sequence[Object], pod: PodShape) -> int:
    return sum(pods_on(node, pod) for node in nodes)


def _admission_checks(spec: Object) -> list[str]:
    strategy = (spec.get("admissionChecksStrategy") or {}).get("admissionChecks") or ()
    return [*(spec.get("admissionChecks") or ()), *(check["name"] for check in strategy)]


def _no_node(fit: PlacementFit, flavor: str, facts: ClusterFacts) -> ClusterError:
    labels = facts.known(ObjectKind.FLAVOR).get(flavor, {}).get("spec", {}).get("nodeLabels") or {}
    wanted = listed(f"{key}={value}" for key, value in {**labels, **fit.pod.node_selector}.items())
    return ClusterError(
        f"flavour {flavor} has no nodes (with the labels {wanted}, and only taints that "
        f"{fit.template} tolerates). Once Kueue admits the job, the pods of "
        f"pool={fit.placement.pool!r} would stay Pending and hold the quota. Have nodes of the pool added or labelled."
    )


def _no_node_that_big(fit: PlacementFit, flavor: str, nodes: Sequence[Object]) -> ConfigError:
    small = [
        f"{amount(name, each)}, the largest has {amount(name, largest)}"
        for name, each, largest in shortages(fit.pod, nodes)
    ] or ["a combination that none of them has"]
    return ConfigError(
        f"{fit.where}: no node of flavour {flavor} holds even one of its pods. A pod requests {'; '.join(small)} "
        f"allocatable ({len(nodes)} nodes checked). Lower the requests per node and raise {fit.where}.nodes, or set a "
        "pool of larger nodes."
    )


def _row(
    stage: str,
    placement: PlacementConfig,
    fit: PlacementFit | None,
    choices: Sequence[Mapping[str, str]] | None,
    nodes: Sequence[Object] | None,
) -> PlacementRow:
    leading, unit = (GPU, "GPUs") if placement.gpus_per_node else ("cpu", "cores")
    each = pod_requests(placement)[leading]
    return PlacementRow(
        stage=stage,
        pool=placement.pool,
        pods=f"{_nodes_cell(placement)} x {each.normalize():f} {unit}",
        queue=placement.queue,
        quota=_quota_cell(fit, leading, unit, choices),
        nodes=_UNKNOWN if nodes is None else str(len(nodes)),
    )


def _nodes_cell(placement: PlacementConfig) -> str:
    return f"{placement.nodes}" if placement.min_nodes is None else f"{placement.min_nodes} to {placement.nodes}"


def _quota_cell(fit: PlacementFit | None, leading: str, unit: str, choices: Sequence[Mapping[str, str]] | None) -> str:
    if fit is None:
        return _UNKNOWN
    groups = fit.spec["spec"].get("resourceGroups") or ()
    names = {choice[leading] for choice in choices or ()} or {
        flavor["name"] for group in groups if leading in group["coveredResources"] for flavor in group["flavors"]
    }
    maximum = max((fit.quotas.maximum(fit.queue, name, leading) for name in names), default=Decimal(0))
    return f"{fit.total[leading].normalize():f} of {maximum.normalize():f} {unit}"
