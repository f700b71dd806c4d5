"""Whether a cluster has what the jobs need: APIs, rights, the namespace."""

from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import KUEUE, TRAINER, TRAINJOB_FIELDS, ClusterFacts, ObjectKind
from vl3.launch.check.findings import Findings, joined
from vl3.launch.check.needs import STAGE, JobNeeds, Placements, ServedApi, all_needs


def judge_platform(placements: Placements, facts: ClusterFacts, findings: Findings) -> None:
    """Judge everything that depends on the placements only by the kinds of jobs that they become."""
    for needs in all_needs(placements):
        _judge_apis(needs, facts, findings)
    _judge_kueue(facts, findings)
    _judge_namespace(facts, findings)
    if facts.denied:
        misspelt = "" if facts.is_known(ObjectKind.NAMESPACE) else ", and check the name of the namespace"
        findings.add(
            ConfigError(
                f"forbidden by RBAC: this identity may not {joined(facts.denied)} in namespace {facts.namespace} of "
                f"{facts.server}, so jobs could not be started, followed or deleted. Bind the Role vl3-launcher of "
                f"manifests/base/rbac to it, or use another identity{misspelt}."
            )
        )
    for job, refusal in facts.refusals.items():
        findings.add(
            ClusterError(
                f"the API server {facts.server} would refuse a {job} in namespace {facts.namespace}: "
                f"{refusal}. {_remedy_of_refusal(refusal)}"
            )
        )
    if facts.unreadable:
        findings.note(
            f"not checked: {joined([kind.plural for kind in facts.unreadable])} cannot be read "
            f"({next(iter(facts.unreadable.values()))}). The ClusterRole vl3-cluster-reader and the Role vl3-launcher "
            "of manifests/base/rbac allow it"
        )


def _remedy_of_refusal(refusal: str) -> str:
    if "webhook" in refusal and "denied the request" not in refusal:
        return "A controller is down or has just started: `kubectl get pods -A` for kueue-system and kubeflow-system."
    if "exceeded quota" in refusal:
        return "Delete finished jobs (`vl3 cluster gc --older-than 1d`), or have the ResourceQuota raised."
    return "Check the placement and the versions of manifests/third-party."


_KUEUE_API = ServedApi(
    version=KUEUE[0],
    kinds={"localqueues": "LocalQueue", "clusterqueues": "ClusterQueue", "workloads": "Workload"},
    product="Kueue",
    product_version="0.17",
)


def _judge_apis(needs: JobNeeds, facts: ClusterFacts, findings: Findings) -> None:
    for api in needs.apis:
        if not api.kinds.keys() <= facts.apis.get(api.version, frozenset()):
            findings.add(_missing(facts, api, needs.without))
        elif api.version == TRAINER:
            _judge_fields(facts, findings)


def _judge_fields(facts: ClusterFacts, findings: Findings) -> None:
    if facts.trainjob_fields is None:
        findings.note(f"not checked: {facts.server} publishes no schema of TrainJob, so Trainer may be too old")
    elif lacking := [name for name in TRAINJOB_FIELDS if name not in facts.trainjob_fields]:
        findings.add(
            ClusterError(
                f"CRD trainjobs.trainer.kubeflow.org at {facts.server} is too old: TrainJob.spec has no "
                f"{joined(lacking)}, which every job of vl3 sets. Update Kubeflow Trainer there to 2.2 or newer, "
                "including its CRDs (manifests/third-party/trainer)."
            )
        )


def _judge_kueue(facts: ClusterFacts, findings: Findings) -> None:
    if facts.kueue is None or not _KUEUE_API.kinds.keys() <= facts.apis[facts.kueue]:
        findings.add(_missing(facts, _KUEUE_API, STAGE.without))


def _missing(facts: ClusterFacts, api: ServedApi, without: str) -> ClusterError:
    folder = api.product.rpartition(" ")[2].lower()
    return ClusterError(
        f"CRD missing: {facts.server} does not serve {joined(list(api.kinds.values()))} of {api.version}, {without}. "
        f"Install {api.product} {api.product_version} or newer (manifests/third-party/{folder}), or use another "
        "cluster."
    )


def _judge_namespace(facts: ClusterFacts, findings: Findings) -> None:
    if facts.is_known(ObjectKind.NAMESPACE) and facts.namespace not in facts.known(ObjectKind.NAMESPACE):
        findings.add(
            ConfigError(
                f"namespace {facts.namespace!r} does not exist at {facts.server}. Set another one with --namespace, or "
                "create it: kubectl apply -k manifests/overlays/<overlay>."
            )
        )
