"""The check before submission: can this cluster run these placements and step pods, and if not, what is missing?"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vl3.config.step_pods import PodSize
from vl3.errors import Vl3Error
from vl3.launch.check.fabric import judge_fabric
from vl3.launch.check.facts import ClusterFacts
from vl3.launch.check.findings import Findings, PlacementRow
from vl3.launch.check.fit import judge_fit
from vl3.launch.check.needs import Placements
from vl3.launch.check.placement import judge_names
from vl3.launch.check.platform import judge_platform
from vl3.launch.check.reach import server_version
from vl3.launch.check.read import read_facts
from vl3.launch.check.retries import judge_retries, read_workflow_defaults
from vl3.launch.check.step_pods import judge_step_pods
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect

log = logging.getLogger("vl3.launch")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """What was found, for people and for programs."""

    server: str
    """Address of the API server."""
    version: str
    """Version of Kubernetes there."""
    namespace: str
    """Namespace that was checked."""
    rows: Sequence[PlacementRow]
    """One per placement and per kind of step pod that was judged."""
    problems: Sequence[Vl3Error]
    """Everything that prevents the run."""
    notes: Sequence[str]
    """What does not prevent it but is worth knowing."""


def judge(placements: Placements, facts: ClusterFacts, step_pods: Mapping[str, PodSize] | None = None) -> CheckReport:
    """Judge placements, and step pods if any, by a snapshot of a cluster; makes no requests."""
    findings = Findings()
    judge_platform(placements, facts, findings)
    judge_names(placements, facts, findings)
    judge_fabric(placements, facts, findings)
    rows = judge_fit(placements, facts, findings)
    if step_pods is not None:
        rows += judge_step_pods(step_pods, facts, findings)
    if facts.workflow_defaults is not None:
        judge_retries(facts.workflow_defaults, findings)
    return CheckReport(
        server=facts.server,
        version=facts.version,
        namespace=facts.namespace,
        rows=rows,
        problems=findings.problems,
        notes=findings.notes,
    )


def inspect_cluster(
    placements: Placements,
    namespace: str | None = None,
    context: str | None = None,
    *,
    step_pods: Mapping[str, PodSize] | None = None,
) -> CheckReport:
    """Read the facts of the cluster that the environment names, and judge what the workflow asks of it.

    Args:
        placements: what the stages, and the dataset's build if it has one, ask for.
        namespace: namespace of the jobs; None uses that of the pod or of the kubeconfig.
        context: context of the kubeconfig; None uses the pod's own cluster, otherwise the current context.
        step_pods: what the other steps' pods ask for, by kind; None does not judge them. A step that runs does not:
            where nodes are added on demand, the one that its successors need may not be there yet.

    Raises:
        ConfigError: no cluster is configured, or it rejects our credentials.
        ClusterError: it cannot be reached.
    """
    client, facts = _look(placements, namespace, context, of_all_nodes=step_pods is not None)
    return judge(placements, replace(facts, workflow_defaults=read_workflow_defaults(client)), step_pods)


def check_cluster(placements: Placements) -> list[Vl3Error]:
    """Everything that prevents these placements from running on the cluster; notes go to the log.

    A cluster that cannot be reached is returned as a problem, too. This is for a step and for its account, which sees
    only its own namespace, so what concerns the server of the pipelines is left to `inspect_cluster`.
    """
    try:
        _, facts = _look(placements)
        report = judge(placements, facts)
    except Vl3Error as error:
        return [error]
    for note in report.notes:
        log.warning("cluster: %s", note)
    return list(report.problems)


def _look(
    placements: Placements, namespace: str | None = None, context: str | None = None, *, of_all_nodes: bool = False
) -> tuple[Client, ClusterFacts]:
    connection = connect(namespace, context=context)
    version = server_version(connection)
    client = Client(connection)
    return client, read_facts(client, version, placements, of_all_nodes=of_all_nodes)
