"""Lists our jobs on the cluster, one line each, with a few requests."""

import time
from dataclasses import dataclass

from vl3.launch.jobs.kinds import JobKind
from vl3.launch.jobs.names import ATTEMPT_LABEL, RUN_ID_ANNOTATION, STAGE_LABEL, selector
from vl3.launch.jobs.state import observe
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, annotations_of, labels_of, name_of, uid_of, unix_time
from vl3.launch.kube.outages import NoSuchApiError, list_now
from vl3.launch.kube.resources import PODS, WORKLOADS
from vl3.launch.rayjob.kind import RAYJOB
from vl3.launch.trainjob.kind import TRAINJOB

_LIMITS = LaunchLimits(api_outage_seconds=10.0)
"""Short, because a person waits for the answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedJob:
    """One of our jobs."""

    name: str
    run_id: str
    stage: str
    attempt: str
    state: str
    """As the launcher names states: queued, running, complete..."""
    text: str
    """One line about the state."""
    age_seconds: float
    """Time since it was created."""


def list_jobs(client: Client, run_id: str | None = None) -> list[ListedJob]:
    """Our jobs of a namespace, or those of one run, oldest first.

    Raises:
        ConfigError: we have no right to list them, or the run id is not valid.
        ClusterError: the API server does not answer.
    """
    jobs = [(kind, kind.view(job)) for kind in (TRAINJOB, RAYJOB) for job in _jobs_of(client, kind, run_id)]
    if not jobs:
        return []
    workloads = {
        owner["uid"]: item
        for item in list_now(client, WORKLOADS, _LIMITS)
        for owner in item["metadata"].get("ownerReferences") or ()
    }
    pods: dict[str, list[Object]] = {}
    for label in dict.fromkeys(kind.pod_label for kind, _ in jobs):
        for pod in list_now(client, PODS, _LIMITS, labelSelector=label):
            pods.setdefault(labels_of(pod)[label], []).append(pod)
    listed = [_listed(kind, job, workloads.get(uid_of(job)), pods.get(name_of(job), [])) for kind, job in jobs]
    return sorted(listed, key=lambda job: -job.age_seconds)


def _jobs_of(client: Client, kind: JobKind, run_id: str | None) -> list[Object]:
    try:
        return list_now(client, kind.resource, _LIMITS, labelSelector=selector(run_id))
    except NoSuchApiError:
        if kind is TRAINJOB:
            raise
        return []  # a cluster on which nothing is built by Ray


def _listed(kind: JobKind, job: Object, workload: Object | None, pods: list[Object]) -> ListedJob:
    seen = observe(job, workload, pods, nodes=kind.num_pods(job))
    created = unix_time(job["metadata"].get("creationTimestamp")) or time.time()
    return ListedJob(
        name=name_of(job),
        run_id=annotations_of(job).get(RUN_ID_ANNOTATION, ""),
        stage=labels_of(job).get(STAGE_LABEL, ""),
        attempt=labels_of(job).get(ATTEMPT_LABEL, ""),
        state=seen.state,
        text=seen.text,
        age_seconds=max(0.0, time.time() - created),
    )
