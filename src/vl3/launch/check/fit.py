"""Whether a placement can ever run: within the quota that Kueue can give at most, and on the nodes that are there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

from vl3.config.placement import PlacementConfig
from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import ClusterFacts, Object, ObjectKind
from vl3.launch.check.findings import Findings, PlacementRow, amount, joined, listed, placement_field
from vl3.launch.check.nodes import PodShape, allocatable, is_ready, nodes_of, pods_on, why_not_flavor
from vl3.launch.check.placement import Placements, pod_template
from vl3.launch.check.quota import Amounts, QuotaTree, cohort_of
from vl3.launch.trainjob.names import RUNTIME_PREFIX

GPU = "nvidia.com/gpu"
"""Resource name of a GPU."""
_UNKNOWN = "?"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementFit:
    """One placement against one cluster queue."""

    where: str
    """Field of the recipe, `placements.video`."""
    placement: PlacementConfig
    pod: PodShape
    queue: str
    """Name of the cluster queue."""
    spec: Object
    """The cluster queue itself."""
    quotas: QuotaTree

    @property
    def total(self) -> Amounts:
        """What all pods ask together; a resource that is not asked needs no quota."""
        return {name: each * self.placement.nodes for name, each in self.pod.requests.items() if each}


def pod_requests(placement: PlacementConfig) -> Amounts:
    """Resources of one pod of a placement."""
    return {
        "cpu": Decimal(str(placement.cpus_per_node)),
        "memory": Decimal(str(placement.memory_gib)) * 1024**3,
        GPU: Decimal(placement.gpus_per_node),
    }


def judge_fit(placements: Placements, facts: ClusterFacts, findings: Findings) -> list[PlacementRow]:
    """Judge every different placement once; a row for every stage."""
    quotas = QuotaTree(facts.known(ObjectKind.CLUSTER_QUEUE), facts.known(ObjectKind.COHORT))
    rows = {}
    for placement in dict.fromkeys(placements.values()):
        stages = [stage for stage, other in placements.items() if other == placement]
        fit = _fit(placement, stages, facts, quotas)
        flavors = None if fit is None else _judge_quota(fit, facts, findings)
        nodes = _judge_nodes(fit, flavors, facts, findings) if fit is not None and flavors else None
        for stage in stages:
            rows[stage] = _row(stage, placement, fit, flavors, nodes)
    return [rows[stage] for stage in placements]


def _fit(
    placement: PlacementConfig, stages: Sequence[str], facts: ClusterFacts, quotas: QuotaTree
) -> PlacementFit | None:
    """A placement with its queue and pod; None where one of them is not there, which judge_names says."""
    runtime = facts.known(ObjectKind.RUNTIME).get(RUNTIME_PREFIX + placement.pool)
    template = None if runtime is None else pod_template(runtime)
    local = facts.known(ObjectKind.LOCAL_QUEUE).get(placement.queue)
    queue = "" if local is None else local["spec"].get("clusterQueue", "")
    if template is None or queue not in facts.known(ObjectKind.CLUSTER_QUEUE):
        return None
    return PlacementFit(
        where=placement_field(stages),
        placement=placement,
        pod=PodShape(
            requests=pod_requests(placement),
            node_selector=template.get("nodeSelector") or {},
            tolerations=template.get("tolerations") or (),
        ),
        queue=queue,
        spec=facts.known(ObjectKind.CLUSTER_QUEUE)[queue],
        quotas=quotas,
    )


def _judge_quota(fit: PlacementFit, facts: ClusterFacts, findings: Findings) -> list[dict[str, str]] | None:
    """The flavours that the placement may get, as resource -> flavour; None where it can get none.

    Kueue gives all resources of a group one flavour, and every group must have one that takes the pods.
    """
    if not facts.is_known(ObjectKind.FLAVOR):
        return None
    groups = fit.spec["spec"].get("resourceGroups") or ()
    covered = {resource for group in groups for resource in group["coveredResources"]}
    if bare := [name for name in fit.total if name not in covered]:
        findings.add(
            ConfigError(
                f"{fit.where}: ClusterQueue {fit.queue} has no quota at all for "
                f"{joined([amount(name, fit.total[name]) for name in bare])}, so the job would wait for ever. Name a "
                "queue and pool that have it, or ask for none."
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
    """Flavours of a group that take the runtime's pods."""
    flavors = facts.known(ObjectKind.FLAVOR)
    missing = [name for name in names if name not in flavors]
    if missing:
        findings.add(
            ClusterError(
                f"ResourceFlavor {listed(missing)}, which ClusterQueue {fit.queue} names, does not exist, so Kueue "
                "stops the queue. Apply it (manifests/cluster/resource-flavors)."
            )
        )
    reasons = {name: why_not_flavor(flavors[name], fit.pod) for name in names if name in flavors}
    if reasons and all(reasons.values()):
        findings.add(
            ConfigError(
                f"{fit.where}: queue={fit.placement.queue!r} and pool={fit.placement.pool!r} do not belong together: "
                f"no flavour of ClusterQueue {fit.queue} takes the pods of {RUNTIME_PREFIX}{fit.placement.pool}. "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
                + ". Name the pool's own queue."
            )
        )
    return [name for name, reason in reasons.items() if reason is None]


def _exceeded(fit: PlacementFit, flavor: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if fit.total[name] > fit.quotas.maximum(fit.queue, flavor, name)]


def _quota_error(fit: PlacementFit, flavors: Sequence[str], names: Sequence[str]) -> ConfigError:
    flavor = min(flavors, key=lambda name: len(_exceeded(fit, name, names)))
    lacking = [
        f"{amount(name, fit.total[name])} ({fit.placement.nodes} pods of {amount(name, fit.pod.requests[name])}) of "
        f"which it can have {_share(fit, flavor, name)}"
        for name in _exceeded(fit, flavor, names)
    ]
    return ConfigError(
        f"{fit.where} asks ClusterQueue {fit.queue} for more than it can ever give: {joined(lacking)}. The job would "
        f"wait for ever. Lower {fit.where}.nodes or what a node asks, name a larger queue, or have the quota of "
        f"flavour {flavor} raised."
    )


def _share(fit: PlacementFit, flavor: str, name: str) -> str:
    """`16 nvidia.com/gpu at most`, with how much of it is borrowed."""
    maximum = fit.quotas.maximum(fit.queue, flavor, name)
    borrowed = maximum - min(maximum, fit.quotas.nominal(fit.queue, flavor, name))
    cohort = cohort_of(fit.spec)
    lent = f", {amount(name, borrowed)} of it borrowed in cohort {cohort}" if borrowed and cohort else ""
    return f"{amount(name, maximum)} at most{lent}"


def _note_borrowing(fit: PlacementFit, flavors: Sequence[str], names: Sequence[str], findings: Findings) -> None:
    """Say when no flavour has room without borrowing: what is lent may be taken back."""
    lacks = [
        [name for name in names if fit.total[name] > fit.quotas.nominal(fit.queue, flavor, name)] for flavor in flavors
    ]
    if all(lacks):
        loans = [
            amount(name, fit.total[name] - fit.quotas.nominal(fit.queue, flavors[0], name)) + f" of {fit.total[name]:f}"
            for name in lacks[0]
        ]
        findings.note(
            f"{fit.where} fits only by borrowing {joined(loans)} in cohort {cohort_of(fit.spec)}: its owner may take "
            "that back, and the stage then resumes from its last checkpoint"
        )


def _judge_nodes(
    fit: PlacementFit, choices: Sequence[Mapping[str, str]], facts: ClusterFacts, findings: Findings
) -> Sequence[Object] | None:
    """The nodes of the flavours that hold most pods; None where they cannot be judged."""
    if not facts.is_known(ObjectKind.NODE):
        return None
    if checks := _admission_checks(fit.spec["spec"]):
        findings.note(
            f"not checked: the nodes of {fit.where}, because ClusterQueue {fit.queue} has admission checks "
            f"({listed(checks)}), which may add nodes or send the job elsewhere"
        )
        return None
    offers = [(flavors, _nodes(fit, flavors, facts)) for flavors in choices]
    flavors, nodes = max(offers, key=lambda offer: _capacity(offer[1], fit.pod))
    name = listed(set(flavors.values()))
    if not nodes:
        findings.add(_no_node(fit, name, facts))
    elif not _capacity(nodes, fit.pod):
        findings.add(_no_node_that_big(fit, name, nodes))
    elif (capacity := _capacity(nodes, fit.pod)) < fit.placement.nodes:
        findings.add(
            ConfigError(
                f"{fit.where}: its {fit.placement.nodes} pods need more nodes than flavour {name} has: the "
                f"{len(nodes)} there hold {capacity} such pods when empty. Admitted by Kueue, the others would stay "
                f"Pending and hold the quota. Lower {fit.where}.nodes, or have nodes added."
            )
        )
    elif (ready := _capacity([node for node in nodes if is_ready(node)], fit.pod)) < fit.placement.nodes:
        findings.note(
            f"{fit.where}: of the {len(nodes)} nodes of flavour {name} those that are ready hold {ready} of its "
            f"{fit.placement.nodes} pods; the others are cordoned or ill"
        )
    return nodes


def _nodes(fit: PlacementFit, flavors: Mapping[str, str], facts: ClusterFacts) -> list[Object]:
    """Nodes that all flavours of a choice share."""
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
        f"no node of flavour {flavor} is there (labels {wanted}; taints that {RUNTIME_PREFIX}{fit.placement.pool} "
        f"tolerates). Admitted by Kueue, the pods of pool={fit.placement.pool!r} would stay Pending and hold the "
        "quota. Have nodes of the pool added or labelled."
    )


def _no_node_that_big(fit: PlacementFit, flavor: str, nodes: Sequence[Object]) -> ConfigError:
    small = [
        f"{amount(name, each)} where the largest has {amount(name, largest)}"
        for name, each, largest in _shortages(fit, nodes)
    ] or ["more together than any one of them has"]
    return ConfigError(
        f"{fit.where}: no node of flavour {flavor} holds one of its pods: it asks {joined(small)} allocatable "
        f"({len(nodes)} nodes looked at). Lower what a node asks and raise {fit.where}.nodes, or name a pool of larger "
        "nodes."
    )


def _shortages(fit: PlacementFit, nodes: Sequence[Object]) -> Iterator[tuple[str, Decimal, Decimal]]:
    for name, each in fit.pod.requests.items():
        largest = max(allocatable(node, name) for node in nodes)
        if each > largest:
            yield name, each, largest


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
        pods=f"{placement.nodes} x {each.normalize():f} {unit}",
        queue=placement.queue,
        quota=_quota_cell(fit, leading, unit, choices),
        nodes=_UNKNOWN if nodes is None else str(len(nodes)),
    )


def _quota_cell(fit: PlacementFit | None, leading: str, unit: str, choices: Sequence[Mapping[str, str]] | None) -> str:
    if fit is None:
        return _UNKNOWN
    groups = fit.spec["spec"].get("resourceGroups") or ()
    names = {choice[leading] for choice in choices or ()} or {
        flavor["name"] for group in groups if leading in group["coveredResources"] for flavor in group["flavors"]
    }
    maximum = max((fit.quotas.maximum(fit.queue, name, leading) for name in names), default=Decimal(0))
    return f"{fit.total[leading].normalize():f} of {maximum.normalize():f} {unit}"
