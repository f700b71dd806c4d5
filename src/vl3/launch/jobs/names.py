"""Names, labels and annotations of what the launcher creates: all derived from the run, so they can be found again."""

import hashlib
import re

from vl3.errors import ConfigError

RUN_LABEL = "vl3.dev/run"
STAGE_LABEL = "vl3.dev/stage"
ATTEMPT_LABEL = "vl3.dev/attempt"
RUN_ID_ANNOTATION = "vl3.dev/run-id"
DIGEST_ANNOTATION = "vl3.dev/spec-sha256"
HISTORY_ANNOTATION = "vl3.dev/history"
"""How the earlier attempts ended, as `cause@step` joined by commas; their own objects are deleted by then."""
RUNTIME_PREFIX = "vl3-torch-"
"""A pool's ClusterTrainingRuntime is this and the name of the pool."""
LAUNCHER_ANNOTATION = "vl3.dev/launcher-pod"
"""Pod of the launcher that follows a job: if it has ended, the job is an orphan."""
DEADLINE_MARGIN_SECONDS = 300
"""The cluster's own deadline is this much later than the launcher's, whose message says more."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MANAGER = "vl3.dev/launcher"
"""Owner of our part of a TrainJob's runtime patches."""

OUR_LABELS = {
    "app.kubernetes.io/name": "vl3",
    "app.kubernetes.io/part-of": "vl3",
    "app.kubernetes.io/component": "trainer",
    "app.kubernetes.io/managed-by": "vl3-launcher",
}

_MAX_RUN_ID = 253
_STAGE = re.compile(r"[a-z]([a-z0-9_]{0,30}[a-z0-9])?")


def run_hash(run_id: str) -> str:
    """Ten hex digits that identify a run in names and labels, whatever characters its id has.

    Raises:
        ConfigError: the id is empty, too long, or has characters that cannot be printed.
    """
    if not run_id or len(run_id) > _MAX_RUN_ID or not run_id.isprintable():
        raise ConfigError(
            f"run_id={run_id!r} is not valid on the cluster. Use 1 to {_MAX_RUN_ID} printable characters."
        )
    return hashlib.sha256(run_id.encode()).hexdigest()[:10]


def job_name(run_id: str, stage: str, attempt: int) -> str:
    """Name of the job: `vl3-<run hash>-<stage>-<attempt>`.

    job_name("night 7", "vision_adaptation", 2) is `vl3-0942e4dbcf-vision-adaptation-2`, and the first attempt of the
    run's next stage is `vl3-0942e4dbcf-alignment-1`.
    """
    return f"vl3-{run_hash(run_id)}-{_checked_stage(stage).replace('_', '-')}-{attempt}"


def job_labels(run_id: str, stage: str, attempt: int, *, queue: str, priority: str) -> dict[str, str]:
    """All labels of a job."""
    return {
        **OUR_LABELS,
        RUN_LABEL: run_hash(run_id),
        STAGE_LABEL: _checked_stage(stage),
        ATTEMPT_LABEL: str(attempt),
        QUEUE_LABEL: queue,
        PRIORITY_LABEL: priority,
    }


def selector(run_id: str | None = None, stage: str | None = None) -> str:
    """Label selector of our jobs: all, those of a run, or those of one stage of a run.

    selector("night 7", "video") is
    `app.kubernetes.io/managed-by=vl3-launcher,vl3.dev/run=0942e4dbcf,vl3.dev/stage=video`.
    """
    labels = {"app.kubernetes.io/managed-by": OUR_LABELS["app.kubernetes.io/managed-by"]}
    if run_id is not None:
        labels[RUN_LABEL] = run_hash(run_id)
    if stage is not None:
        labels[STAGE_LABEL] = _checked_stage(stage)
    return ",".join(f"{key}={value}" for key, value in labels.items())


def stage_selector(run_id: str, stage: str) -> str:
    """Label selector of the pods of all attempts of a stage."""
    return ",".join(f"{key}={value}" for key, value in pod_labels(run_id, stage).items())


def pod_labels(run_id: str, stage: str) -> dict[str, str]:
    """Labels that we give to the pods; the same for all attempts."""
    return {RUN_LABEL: run_hash(run_id), STAGE_LABEL: _checked_stage(stage)}


def _checked_stage(stage: str) -> str:
    if not _STAGE.fullmatch(stage):
        raise ConfigError(
            f"stage={stage!r} is not a valid stage name. Use up to 32 characters of a-z, 0-9 and '_', with "
            "a letter first and a letter or digit last."
        )
    return stage
