"""Lists our TrainJobs on the cluster, one line each, with three requests."""

import time
from dataclasses import dataclass

from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, annotations_of, labels_of, name_of, uid_of, unix_time
from vl3.launch.kube.outages import list_now
from vl3.launch.kube.resources import PODS, TRAINJOBS, WORKLOADS
from vl3.launch.trainjob.names import ATTEMPT_LABEL, RUN_ID_ANNOTATION, STAGE_LABEL, selector
from vl3.launch.trainjob.state import observe

_LIMITS = LaunchLimits(api_outage_seconds=10.0)
"""Short, because a person waits for the answer."""
_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedJob:
    """One of our TrainJobs."""

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
    """Our TrainJobs of a namespace, or those of one run, oldest first.

    Raises:
        ConfigError: we have no right to list them, or the run id is not valid.
        ClusterError: the API server does not answer.
    """
    jobs = list_now(client, TRAINJOBS, _LIMITS, labelSelector=selector(run_id))
    if not jobs:
        return []
    workloads = {
        owner["uid"]: item
        for item in list_now(client, WORKLOADS, _LIMITS)
        for owner in item["metadata"].get("ownerReferences") or ()
    }
    pods: dict[str, list[Object]] = {}
    for pod in list_now(client, PODS, _LIMITS, labelSelector=_JOBSET_LABEL):
        pods.setdefault(labels_of(pod)[_JOBSET_LABEL], []).append(pod)
    listed = [_listed(job, workloads.get(uid_of(job)), pods.get(name_of(job), [])) for job in jobs]
    return sorted(listed, key=lambda job: -job.age_seconds)


def _listed(job: Object, workload: Object | None, pods: list[Object]) -> ListedJob:
    seen = observe(job, workload, pods, nodes=job["spec"]["trainer"]["numNodes"])
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
