"""What a kind of job needs of a cluster: TrainJobs for stages, RayJobs for a dataset's build and for a curation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from vl3.config.placement import BUILD, CURATE, PlacementConfig
from vl3.launch.check.facts import JOBSET, RAY, TRAINER, Object, ObjectKind
from vl3.launch.check.quota import Amounts
from vl3.launch.grace import LONGEST_GRACE_SECONDS
from vl3.launch.job import BUILDING, TRAINING, LaunchJob, Words
from vl3.launch.jobs.names import RUNTIME_PREFIX
from vl3.launch.kube.objects import CONTAINER, parse_quantity
from vl3.launch.kube.resources import RAYJOBS, TRAINJOBS, Resource
from vl3.launch.rayjob.spec import HEAD_RESOURCES, SUBMITTER_RESOURCES, TEMPLATE_PREFIXES, build_rayjob
from vl3.launch.trainjob.spec import build_trainjob

Placements = Mapping[str, PlacementConfig]
"""What is judged: a placement by the name of its stage, or of the build."""

GPU = "nvidia.com/gpu"
"""Resource name of a GPU."""
_NODE = "node"
"""Name of a runtime's replicated job that trains."""
_KUBERNETES_GRACE_SECONDS = 30
"""What a pod has that says nothing."""
_ANCESTOR = "trainer.kubeflow.org/trainjob-ancestor-step"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedApi:
    """An API that a server must have, and who brings it."""

    version: str
    """Its `group/version`."""
    kinds: Mapping[str, str]
    """The kinds that are used of it, by their plural names."""
    product: str
    """Who brings it: its last word is the folder of manifests/third-party."""
    product_version: str
    """The oldest version that does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobNeeds:
    """What one kind of job needs."""

    job: str
    """The kind of job."""
    resource: Resource
    """Where such jobs are made."""
    words: Words
    """How messages speak of its work."""
    apis: Sequence[ServedApi]
    """The APIs without which there are none."""
    without: str
    """What a cluster without them cannot do, and what is another way out than to install them."""
    rights: Sequence[tuple[str, str, tuple[str, ...]]]
    """Rights that the launcher needs beside those for every job: (group, resource, verbs)."""
    kind: ObjectKind
    """Kind of the object that a pool names, after which the pods are made."""
    prefix: str
    """Its name is this and the name of the pool."""
    folder: str
    """Where the project has it."""
    pod_spec: Callable[[Object], Mapping[str, Any] | None]
    """The spec of the pods of such an object; None if it has none that the job could use."""
    defects: Callable[[Object], Iterator[str]]
    """What is wrong with such an object."""
    others: Amounts
    """What the job's other pods request together, beside those that the placement counts."""
    others_name: str
    """What they are, for messages."""
    build: Callable[[LaunchJob, Object], Object]
    """The job that would be made, and the object of the pool."""

    def object_name(self, pool: str) -> str:
        """Name of a pool's object."""
        return self.prefix + pool

    def placed(self, placements: Placements) -> dict[str, PlacementConfig]:
        """Those of some placements that become a job of this kind."""
        return {name: placement for name, placement in placements.items() if needs_of(name) is self}


def _runtime_pod(runtime: Object) -> Mapping[str, Any] | None:
    """The pod of a runtime's training nodes; None if the runtime has none of that name."""
    for job in runtime["spec"]["template"]["spec"].get("replicatedJobs") or ():
        pod = job["template"]["spec"]["template"]["spec"]
        if job["name"] == _NODE and _has_container(pod):
            return pod
    return None


def _template_pod(template: Object) -> Mapping[str, Any] | None:
    pod = (template.get("template") or {}).get("spec") or {}
    return pod if _has_container(pod) else None


def _has_container(pod: Mapping[str, Any]) -> bool:
    return any(container["name"] == CONTAINER for container in pod.get("containers") or ())


def _runtime_defects(runtime: Object) -> Iterator[str]:
    spec = runtime["spec"]
    jobset = spec["template"]["spec"]
    if "torch" not in (spec.get("mlPolicy") or {}):
        yield "it has no mlPolicy.torch, so the processes would not find each other"
    pod = _runtime_pod(runtime)
    if pod is None:
        yield f"it has no replicated job {_NODE!r} with a container {CONTAINER!r}, in which the training runs"
    elif (seconds := pod.get("terminationGracePeriodSeconds", _KUBERNETES_GRACE_SECONDS)) < LONGEST_GRACE_SECONDS:
        yield (
            f"its pods are killed {seconds} s after they are asked to end (terminationGracePeriodSeconds), so a "
            f"preempted stage whose checkpoint takes longer would lose it. It must be {LONGEST_GRACE_SECONDS}: a pod "
            "ends by itself as soon as its checkpoint is written"
        )
    for job in jobset.get("replicatedJobs") or ():
        labels = job["template"].get("metadata", {}).get("labels", {})
        if job["name"] == _NODE and labels.get(_ANCESTOR) != "trainer":
            yield f"its job {_NODE!r} lacks the label {_ANCESTOR}=trainer, so a TrainJob's settings would not reach it"
    if (ttl := jobset.get("ttlSecondsAfterFinished")) is not None:
        yield f"its JobSet has ttlSecondsAfterFinished={ttl}: Trainer would recreate it and run a finished job twice"


def _template_defects(template: Object) -> Iterator[str]:
    if _template_pod(template) is None:
        yield f"it has no container {CONTAINER!r}, in which Ray runs"


def _sum(*resources: Mapping[str, str]) -> Amounts:
    """{"cpu": "250m"} and {"cpu": "100m", "memory": "1Gi"} are 0.35 cores and 1 GiB."""
    names = dict.fromkeys(name for one in resources for name in one)
    return {name: sum((parse_quantity(one.get(name, 0)) for one in resources), Decimal(0)) for name in names}


_JOB_VERBS = ("create", "get", "list", "watch", "patch", "delete")

STAGE = JobNeeds(
    job="TrainJob",
    resource=TRAINJOBS,
    words=TRAINING,
    apis=(
        ServedApi(
            version=TRAINER,
            kinds={"trainjobs": "TrainJob", "clustertrainingruntimes": "ClusterTrainingRuntime"},
            product="Kubeflow Trainer",
            product_version="2.2",
        ),
        ServedApi(version=JOBSET, kinds={"jobsets": "JobSet"}, product="JobSet", product_version="0.12"),
    ),
    without="so no stage can be started there",
    rights=(("trainer.kubeflow.org", "trainjobs", _JOB_VERBS),),
    kind=ObjectKind.RUNTIME,
    prefix=RUNTIME_PREFIX,
    folder="manifests/cluster/training-runtimes",
    pod_spec=_runtime_pod,
    defects=_runtime_defects,
    others={},
    others_name="",
    build=lambda job, _: build_trainjob(job, attempt=1),
)
RAY_BUILD = JobNeeds(
    job="RayJob",
    resource=RAYJOBS,
    words=BUILDING,
    apis=(ServedApi(version=RAY, kinds={"rayjobs": "RayJob"}, product="KubeRay", product_version="1.5"),),
    without=f"so placements.{BUILD}, without which a step builds the dataset itself, cannot be met there",
    rights=(("ray.io", "rayjobs", _JOB_VERBS), ("", "podtemplates", ("get",))),
    kind=ObjectKind.POD_TEMPLATE,
    prefix=TEMPLATE_PREFIXES[BUILD],
    folder="manifests/base/ray",
    pod_spec=_template_pod,
    defects=_template_defects,
    others=_sum(HEAD_RESOURCES, SUBMITTER_RESOURCES),
    others_name="head and submitter",
    build=lambda job, template: build_rayjob(job, template=dict(template), attempt=1),
)
RAY_CURATION = replace(
    RAY_BUILD,
    without=f"so placements.{CURATE}, without which a step scores the images itself, cannot be met there",
    prefix=TEMPLATE_PREFIXES[CURATE],
)


def needs_of(name: str) -> JobNeeds:
    """What the placement of a stage, of the build, or of a curation needs."""
    return {BUILD: RAY_BUILD, CURATE: RAY_CURATION}.get(name, STAGE)


def all_needs(placements: Placements) -> list[JobNeeds]:
    """What some placements need, each kind of job once."""
    return list({needs.prefix: needs for needs in map(needs_of, placements)}.values())
