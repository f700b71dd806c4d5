"""Whether a cluster has what every job needs: APIs, rights, the namespace."""

from vl3.errors import ClusterError, ConfigError
from vl3.launch.check.facts import JOBSET, TRAINER, TRAINJOB_FIELDS, ClusterFacts, ObjectKind
from vl3.launch.check.findings import Findings, joined


def judge_platform(facts: ClusterFacts, findings: Findings) -> None:
    """Judge everything that does not depend on a placement."""
    _judge_apis(facts, findings)
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
    if facts.refusal is not None:
        findings.add(
            ClusterError(
                f"the API server {facts.server} would refuse a TrainJob in namespace {facts.namespace}: "
                f"{facts.refusal}. {_remedy_of_refusal(facts.refusal)}"
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


def _judge_apis(facts: ClusterFacts, findings: Findings) -> None:
    if not {"trainjobs", "clustertrainingruntimes"} <= facts.apis.get(TRAINER, frozenset()):
        findings.add(_missing(facts, f"TrainJob and ClusterTrainingRuntime of {TRAINER}", "Kubeflow Trainer", "2.2"))
    elif facts.trainjob_fields is None:
        findings.note(f"not checked: {facts.server} publishes no schema of TrainJob, so Trainer may be too old")
    elif lacking := [name for name in TRAINJOB_FIELDS if name not in facts.trainjob_fields]:
        findings.add(
            ClusterError(
                f"CRD trainjobs.trainer.kubeflow.org at {facts.server} is too old: TrainJob.spec has no "
                f"{joined(lacking)}, which every job of vl3 sets. Update Kubeflow Trainer there to 2.2 or newer, "
                "including its CRDs (manifests/third-party/trainer)."
            )
        )
    if "jobsets" not in facts.apis.get(JOBSET, frozenset()):
        findings.add(_missing(facts, f"JobSet of {JOBSET}", "JobSet", "0.12"))
    if facts.kueue is None or not {"localqueues", "clusterqueues", "workloads"} <= facts.apis[facts.kueue]:
        findings.add(
            _missing(facts, "LocalQueue, ClusterQueue and Workload of kueue.x-k8s.io/v1beta2", "Kueue", "0.17")
        )


def _missing(facts: ClusterFacts, what: str, product: str, version: str) -> ClusterError:
    folder = product.rpartition(" ")[2].lower()
    return ClusterError(
        f"CRD missing: {facts.server} does not serve {what}, so no stage can be started there. Install {product} "
        f"{version} or newer (manifests/third-party/{folder}), or use another cluster."
    )


def _judge_namespace(facts: ClusterFacts, findings: Findings) -> None:
    if facts.is_known(ObjectKind.NAMESPACE) and facts.namespace not in facts.known(ObjectKind.NAMESPACE):
        findings.add(
            ConfigError(
                f"namespace {facts.namespace!r} does not exist at {facts.server}. Set another one with --namespace, or "
                "create it: kubectl apply -k manifests/overlays/<overlay>."
            )
        )
