"""RayJobs of KubeRay, as a kind of job."""

from functools import partial

from vl3.launch.jobs.kinds import JobKind
from vl3.launch.kube.objects import Object, labels_of
from vl3.launch.kube.resources import RAYJOBS
from vl3.launch.rayjob.spec import JOB_LABEL, ROLE_LABEL, SUBMITTER, build_rayjob
from vl3.launch.rayjob.state import as_conditions, why_failed


def num_pods(job: Object) -> int:
    """Head, workers, and the pod that hands the driver in."""
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return 2 + sum(int(group["replicas"]) for group in groups)


def rayjob(template: Object) -> JobKind:
    """RayJobs whose pods are made after a PodTemplate."""
    return JobKind(
        name="RayJob",
        resource=RAYJOBS,
        build=partial(build_rayjob, template=template),
        pod_label=JOB_LABEL,
        view=as_conditions,
        num_pods=num_pods,
        tells=lambda pod: labels_of(pod).get(ROLE_LABEL) == SUBMITTER,
        why_failed=why_failed,
        has_long_grace=False,
    )


RAYJOB = rayjob({})
"""To find, follow and delete RayJobs; whoever creates one needs a template."""
