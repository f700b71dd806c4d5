"""The check before submission: can this cluster run these placements, and if not, what is missing?"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from vl3.errors import Vl3Error
from vl3.launch.check.facts import ClusterFacts
from vl3.launch.check.findings import Findings, PlacementRow
from vl3.launch.check.fit import judge_fit
from vl3.launch.check.placement import Placements, judge_names
from vl3.launch.check.platform import judge_platform
from vl3.launch.check.reach import server_version
from vl3.launch.check.read import read_facts
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
    """Namespace that was looked at."""
    rows: Sequence[PlacementRow]
    """One a stage."""
    problems: Sequence[Vl3Error]
    """All that stops the run."""
    notes: Sequence[str]
    """What does not stop it and should be known."""


def judge(placements: Placements, facts: ClusterFacts) -> CheckReport:
    """Judge placements by a snapshot of a cluster; asks nobody anything."""
    findings = Findings()
    judge_platform(facts, findings)
    judge_names(placements, facts, findings)
    rows = judge_fit(placements, facts, findings)
    return CheckReport(
        server=facts.server,
        version=facts.version,
        namespace=facts.namespace,
        rows=rows,
        problems=findings.problems,
        notes=findings.notes,
    )


def inspect_cluster(placements: Placements, namespace: str | None = None, context: str | None = None) -> CheckReport:
    """Look at the cluster that the environment names, and judge.

    Args:
        placements: what the stages ask for.
        namespace: namespace of the jobs; None takes that of the pod or of the kubeconfig.
        context: context of the kubeconfig; None takes the pod's own cluster, else the current one.

    Raises:
        ConfigError: no cluster is configured, or it does not know our credentials.
        ClusterError: it cannot be reached.
    """
    connection = connect(namespace, context=context)
    version = server_version(connection)
    return judge(placements, read_facts(Client(connection), version, placements))


def check_cluster(placements: Placements) -> list[Vl3Error]:
    """All that keeps these placements from running on the cluster; remarks go to the log.

    A cluster that cannot be asked is one problem like the others.
    """
    try:
        report = inspect_cluster(placements)
    except Vl3Error as error:
        return [error]
    for note in report.notes:
        log.warning("cluster: %s", note)
    return list(report.problems)
