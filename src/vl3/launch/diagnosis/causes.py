"""Why an attempt can fail: who acts, whether a retry may help, and the remedy."""

from dataclasses import dataclass

from vl3.errors import ClusterError, ConfigError, DataError, StorageError, Vl3Error


@dataclass(frozen=True, slots=True)
class Cause:
    """A kind of failure."""

    name: str
    """Short name, as in the history of a TrainJob."""
    family: type[Vl3Error]
    """Who acts."""
    retry: str
    """`never`; `count`: up to placements.<stage>.max_retries; `progress`: the same, and only after a new step."""
    remedy: str
    """What to do, with `{stage}` for the stage."""
    patience: str | None = None
    """Field of LaunchLimits with the time that the problem must last before it counts; None counts at once."""


NODE_LOST = Cause("node_lost", ClusterError, "count", "Check the node: `kubectl describe node`.")
NODE_SILENT = Cause("node_lost", ClusterError, "count", NODE_LOST.remedy, "lost_node_seconds")
"""The same, seen before the job has failed: a pod on a dead node never reports its end."""
EVICTED = Cause("evicted", ClusterError, "count", "Check what evicted the pod: `kubectl get events`.")
STOPPED = Cause("stopped", ClusterError, "count", "Something stopped the pod; check its node's events.")
VANISHED = Cause("vanished", ClusterError, "count", "Check `kubectl get events` of that time.")
POD_REPLACED = Cause(
    "pod_replaced", ClusterError, "count", "Check what deleted the pod: `kubectl get events`.", "replaced_pod_seconds"
)
CRASH = Cause("crash", ClusterError, "progress", "The step's log has the last lines of every pod.")
CLUSTER = Cause("cluster", ClusterError, "count", "Start the run again: it resumes from what it saved last.")
CONFIG = Cause("config", ConfigError, "never", "")
DATA = Cause("data", DataError, "never", "")
STORAGE = Cause("storage", StorageError, "never", "")
OUT_OF_MEMORY = Cause(
    "out_of_memory",
    ConfigError,
    "never",
    "Raise placements.{stage}.memory_gib, or lower stages.{stage}.packs_per_step (of an evaluation "
    "evaluation.batch_size) or data.max_length_tokens.",
)
SHM_FULL = Cause(
    "volume_full", ConfigError, "never", "Raise placements.{stage}.shm_gib (and memory_gib, which includes it)."
)
CANNOT_START = Cause(
    "cannot_start",
    ConfigError,
    "never",
    "Check the image and the command of the ClusterTrainingRuntime, or of the RayJob if it is the build; `make images` "
    "builds the project's own.",
)
BAD_CONTAINER = Cause(
    "bad_container",
    ConfigError,
    "never",
    "Check that ConfigMap vl3-settings and Secret vl3-s3 are in the namespace and that the image runs as non-root.",
    "container_config_seconds",
)
IMAGE_MISSING = Cause(
    "image_missing",
    ConfigError,
    "never",
    "Set `images:` in the overlay to an existing image, and give the pods a pull secret if it is private.",
    "image_certain_seconds",
)
IMAGE_UNREACHABLE = Cause(
    "image_unreachable",
    ClusterError,
    "never",
    "Check that the nodes can reach the registry, or load the image into the nodes; then start the run again.",
    "image_pull_seconds",
)
IMAGE_SLOW = Cause(
    "image_slow",
    ClusterError,
    "never",
    "Check the registry's speed and the node's disk, or load the image into the nodes beforehand.",
    "image_pull_seconds",
)
UNSCHEDULABLE = Cause(
    "unschedulable",
    ClusterError,
    "never",
    "The quota allows it but no node accepts it: check the pool's nodes (label vl3.dev/pool, free GPUs, taints).",
    "unschedulable_seconds",
)
NO_PODS = Cause(
    "no_pods",
    ClusterError,
    "never",
    "Check `kubectl get events` and the logs of the JobSet and Trainer controllers.",
    "unschedulable_seconds",
)
QUOTA_NEVER = Cause(
    "quota_never",
    ConfigError,
    "never",
    "Lower placements.{stage}.nodes or gpus_per_node, set another pool, or ask the administrator to raise the quota.",
    "quota_certain_seconds",
)
QUEUE_MISSING = Cause(
    "queue_missing",
    ConfigError,
    "never",
    "Set placements.{stage}.queue to a LocalQueue of the namespace: `kubectl get localqueues`.",
    "quota_certain_seconds",
)
QUEUE_TIMEOUT = Cause(
    "queue_timeout",
    ClusterError,
    "never",
    "Start the run again later, raise placements.{stage}.queue_timeout_seconds or set a higher priority.",
)
STALLED = Cause("stalled", ClusterError, "progress", "Start the run again: it resumes from what it saved last.")
"""The job has hung. A lost message or a broken node may be why, so that another attempt may do better."""
RESIZED = Cause("resized", ClusterError, "count", "Start the run again: it resumes from what it saved last.")
"""The job waited for quota, and there is quota for fewer nodes, with which its placement lets it run."""
DEADLINE = Cause(
    "deadline", ConfigError, "never", 'Raise the limit or set none: SET="stages.{stage}.timeout_seconds=null".'
)
"""The job ran longer than the recipe allows."""
DELETED = Cause(
    "deleted",
    ClusterError,
    "never",
    "If that was not intended, start the run again: it resumes from what it saved last.",
)
UNSUPPORTED = Cause("unsupported", ConfigError, "never", "Check placements.{stage}.pool against the training runtimes.")

OF_FAMILY = {"ConfigError": CONFIG, "DataError": DATA, "StorageError": STORAGE, "ClusterError": CLUSTER}
"""Cause by the family that the training recorded."""
OF_EXIT_CODE = {2: CONFIG, 3: DATA, 4: CLUSTER, 6: STORAGE, 143: STOPPED}
"""Cause by exit code, if nothing else is known."""


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """What ended an attempt, or is about to."""

    cause: Cause
    """The kind."""
    text: str
    """What is wrong and where: names of objects, values, the cluster's own message."""
    pod: str = ""
    """The pod that failed first."""
    remedy: str = ""
    """What to do, where that depends on more than the cause; empty for the cause's own remedy."""

    def error(self, task: str, stage: str, *, attempts: int, last_lines: str = "") -> Vl3Error:
        """The error that ends the launch."""
        tries = f" (attempt {attempts})" if attempts > 1 else ""
        shown = f" Last lines of {self.pod}:\n{last_lines}" if last_lines else ""
        remedy = self.remedy or self.cause.remedy.format(stage=stage)
        return self.cause.family(f"{task}{tries}: {self.text}{_stop(self.text)} {remedy}{shown}".strip())


def _stop(text: str) -> str:
    return "" if text.endswith((".", "!", "?")) else "."
