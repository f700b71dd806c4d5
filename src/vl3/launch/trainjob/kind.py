"""TrainJobs of Kubeflow Trainer, as a kind of job."""

from vl3.launch.diagnosis.failure import classify
from vl3.launch.jobs.kinds import JobKind
from vl3.launch.kube.objects import COMPLETION_INDEX, labels_of
from vl3.launch.kube.resources import TRAINJOBS
from vl3.launch.trainjob.sizing import affordable
from vl3.launch.trainjob.spec import build_trainjob

TRAINJOB = JobKind(
    name="TrainJob",
    resource=TRAINJOBS,
    build=build_trainjob,
    pod_label="jobset.sigs.k8s.io/jobset-name",  # Trainer's JobSet has the TrainJob's name
    view=lambda job: job,
    num_pods=lambda job: int(job["spec"]["trainer"]["numNodes"]),
    tells=lambda pod: labels_of(pod).get(COMPLETION_INDEX, "0") == "0",  # node rank 0
    why_failed=classify,
    affordable=affordable,
    has_long_grace=True,
)
