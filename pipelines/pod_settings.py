"""What each task's pod asks of a cluster and gets from it: size, identity, settings, secrets, retries, time.

One function is applied to every task, so that the compiled workflow says everything and no default of a server
decides. kfp.local ignores all of it but the retries, which the local runner leaves out (pipelines/local/child.py).
"""

from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

SETTINGS = "vl3-settings"
"""ConfigMap of the namespace with what every pod needs to know."""
CREDENTIALS = "vl3-s3"
"""Secret of the namespace with the keys of the object store."""
AUTHORITY = "vl3-ca"
"""ConfigMap with the certificate of a private authority, where AWS_CA_BUNDLE names it; may be missing."""
USER_ID = 65532
"""The images' ordinary user."""

_AUTHORITY_FOLDER = "/etc/vl3/ca"
_SETTING_KEYS: tuple[str, ...] = ("HOME",)
_OPTIONAL_SETTING_KEYS: tuple[str, ...] = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_CREDENTIAL_KEYS: tuple[str, ...] = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OPTIONAL_CREDENTIAL_KEYS: tuple[str, ...] = ("AWS_SESSION_TOKEN",)


@dataclass(frozen=True, kw_only=True, slots=True)
class PodSettings:
    """What a task's pod asks for."""

    role: str
    """Value of the label app.kubernetes.io/component; names the image."""
    cpus: tuple[str, str]
    """Cores, request and limit."""
    memory: tuple[str, str]
    """Memory, request and limit; shared memory counts as memory."""
    shm: str | None = None
    """Size of /dev/shm; None leaves the container runtime's 64 MiB."""
    timeout_seconds: int | None = None
    """Time that a pod may run; None where the task keeps limits of its own."""
    max_retries: int = 2
    """New pods after a failed one."""


_LIGHT = PodSettings(role="launcher", cpus=("250m", "2"), memory=("1Gi", "4Gi"), timeout_seconds=3600)
_SETTINGS = {
    # Wrong configurations show here, where a person waits for the answer: nothing is tried twice.
    "check-prerequisites": PodSettings(
        role="launcher", cpus=("250m", "2"), memory=("1Gi", "4Gi"), timeout_seconds=3600, max_retries=0
    ),
    "validate-data": PodSettings(role="data", cpus=("4", "8"), memory=("8Gi", "16Gi"), timeout_seconds=24 * 3600),
    "evaluate": PodSettings(
        role="evaluator", cpus=("4", "16"), memory=("16Gi", "64Gi"), shm="4Gi", timeout_seconds=24 * 3600
    ),
    "promote": _LIGHT,
    "report": _LIGHT,
    # Frees GPUs: worth more attempts than anything else.
    "finish": PodSettings(
        role="launcher", cpus=("250m", "2"), memory=("1Gi", "4Gi"), timeout_seconds=1800, max_retries=4
    ),
}
_TRAINING = PodSettings(role="launcher", cpus=("250m", "1"), memory=("512Mi", "2Gi"))
"""The launcher keeps the stage's own limits, for waiting in the queue and for running; a deadline of its pod besides
would only end it without a word."""


def settings_of(name: str) -> PodSettings:
    """The settings of the task `name`."""
    return _TRAINING if name.startswith("train-") else _SETTINGS[name]


def apply_pod_settings(task: Any, name: str) -> Any:
    """Give a task of the workflow its pod's settings."""
    settings = settings_of(name)
    task.set_cpu_request(settings.cpus[0]).set_cpu_limit(settings.cpus[1])
    task.set_memory_request(settings.memory[0]).set_memory_limit(settings.memory[1])
    kubernetes.set_security_context(task, run_as_user=USER_ID, run_as_group=USER_ID, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")  # tags are never moved
    if settings.max_retries:
        task.set_retry(settings.max_retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="300s")
    if settings.timeout_seconds is not None:
        kubernetes.set_timeout(task, settings.timeout_seconds)
    _mount(task, settings)
    _pass_environment(task)
    _label(task, name, settings.role)
    return task


def _mount(task: Any, settings: PodSettings) -> None:
    """The images run with a read-only root; what is downloaded and unpacked goes to /tmp."""
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108 - the pod's own
    kubernetes.use_config_map_as_volume(task, AUTHORITY, mount_path=_AUTHORITY_FOLDER, optional=True)
    if settings.shm is not None:
        path = "/dev/shm"  # noqa: S108
        kubernetes.empty_dir_mount(task, volume_name="shm", mount_path=path, medium="Memory", size_limit=settings.shm)


def _pass_environment(task: Any) -> None:
    """Settings and credentials by name only; their values never come into the compiled workflow."""
    for keys, optional in ((_SETTING_KEYS, False), (_OPTIONAL_SETTING_KEYS, True)):
        kubernetes.use_config_map_as_env(task, SETTINGS, {key: key for key in keys}, optional=optional)
    for keys, optional in ((_CREDENTIAL_KEYS, False), (_OPTIONAL_CREDENTIAL_KEYS, True)):
        kubernetes.use_secret_as_env(task, CREDENTIALS, {key: key for key in keys}, optional=optional)


def _label(task: Any, name: str, role: str) -> None:
    labels = {"name": "vl3", "part-of": "vl3", "component": role, "managed-by": "kubeflow-pipelines"}
    for key, value in labels.items():
        kubernetes.add_pod_label(task, f"app.kubernetes.io/{key}", value)
    kubernetes.add_pod_label(task, "vl3.dev/task", name)
    # A launcher that an autoscaler moves would find its job again, but the steps beside it start anew.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")
