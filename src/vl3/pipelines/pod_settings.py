"""The settings of each task's pod: size, user, configuration, secrets, retries, timeout.

One function is applied to every task, so that the compiled workflow is explicit and nothing depends on a server's
defaults. kfp.local ignores everything except retries, which the local runner removes (vl3.pipelines.local.child).
"""

from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

from vl3.config.step_pods import PodSize, StepPodsConfig, cpu_quantity, memory_quantity
from vl3.conventions import ENDPOINT_KEY, ENDPOINT_SECRET

SETTINGS = "vl3-settings"
"""ConfigMap of the namespace with the settings of every pod."""
CREDENTIALS = "vl3-s3"
"""Secret of the namespace with the keys of the object store."""
HUB = "vl3-hub"
"""Secret of the namespace with the hub's address and a token for it; may be missing."""
AUTHORITY = "vl3-ca"
"""ConfigMap with the certificate of a private authority, to which AWS_CA_BUNDLE points; may be missing."""
USER_ID = 65532
"""The images' unprivileged user."""

_AUTHORITY_FOLDER = "/etc/vl3/ca"
_SETTING_KEYS: tuple[str, ...] = ("HOME",)
_OPTIONAL_SETTING_KEYS: tuple[str, ...] = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_CREDENTIAL_KEYS: tuple[str, ...] = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_OPTIONAL_CREDENTIAL_KEYS: tuple[str, ...] = ("AWS_SESSION_TOKEN",)
_HUB_KEYS: tuple[str, ...] = ("HF_TOKEN", "HF_ENDPOINT")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodSettings:
    """Settings of a task's pod that are the same for every recipe."""

    role: str
    """Value of the label app.kubernetes.io/component; names the image, and the size in the recipe's `step_pods`."""
    timeout_seconds: int | None = None
    """Time that a pod may run, image pull included; None if the task enforces its own limits."""
    max_retries: int = 2
    """Retries after a failed pod; which failures count is the server's setting (docs/submission.md, "Retries")."""
    uses_hub: bool = False
    """Whether it gets the settings of the hub of models: no other task asks the hub."""
    uses_endpoints: bool = False
    """Whether it gets the key of endpoints: no other task asks one."""


_LAST_RESORT_SECONDS = 7 * 24 * 3600
"""Limit of the pods whose work grows with the data. Kubernetes cannot see progress, so this is no stall limit: it is
longer than any build, and frees the node of a pod that hangs for ever. The light tasks take minutes, whatever the
data."""
_RETRY_SECONDS = 365 * 24 * 3600
"""Age of a task's first pod after which it gets no other one (Argo's `backoff.maxDuration`). No limit is wanted here:
the number of tries is one already, and each try has its own deadline. So it is longer than any step, also than a
launcher that waits for quota and trains for weeks and has no deadline. It counts the time in which a pod waits for a
node, which a deadline does not, so a multiple of the deadlines would not do."""
_LIGHT = PodSettings(role="launcher", timeout_seconds=3600)
_SETTINGS = {
    # This task finds wrong configurations, for which a retry does not help and a user is waiting.
    "check-prerequisites": PodSettings(role="launcher", timeout_seconds=3600, max_retries=0),
    "build-data": PodSettings(role="data", timeout_seconds=_LAST_RESORT_SECONDS),
    "validate-data": PodSettings(role="data", timeout_seconds=_LAST_RESORT_SECONDS),
    "check-curation": PodSettings(role="data", timeout_seconds=3600, max_retries=0),
    "curate-images": PodSettings(role="curator", timeout_seconds=_LAST_RESORT_SECONDS, uses_endpoints=True),
    "curate-videos": PodSettings(role="curator", timeout_seconds=_LAST_RESORT_SECONDS, uses_endpoints=True),
    "validate-curation": PodSettings(role="data", timeout_seconds=_LAST_RESORT_SECONDS),
    "report-curation": _LIGHT,
    "promote": _LIGHT,
    "report": _LIGHT,
    "report-evaluation": _LIGHT,
    "compare-arms": _LIGHT,
    # More retries than any other task, because it frees GPUs.
    "finish": PodSettings(role="launcher", timeout_seconds=1800, max_retries=4),
}
_TRAINING = PodSettings(role="launcher")
"""The launcher enforces the stage's limits for queueing and running itself; a timeout of its pod would only kill it
without a message."""
_PLANNING = PodSettings(role="data", timeout_seconds=_LAST_RESORT_SECONDS)
_IMPORTING = PodSettings(role="data", timeout_seconds=_LAST_RESORT_SECONDS, uses_hub=True)
_EVALUATING = PodSettings(role="evaluator", timeout_seconds=_LAST_RESORT_SECONDS, uses_endpoints=True)
_OF_MANY = {"import": _IMPORTING, "plan": _PLANNING, "train": _TRAINING, "evaluate": _EVALUATING}
"""The settings of the tasks that every stage or arm has one of, by the first word of their names."""


def settings_of(name: str) -> PodSettings:
    """The settings of the task `name`."""
    return _OF_MANY.get(name.partition("-")[0]) or _SETTINGS[name]


def named(task: Any, name: str, pods: StepPodsConfig) -> Any:
    """Set a task's name and pod, and switch off KFP's cache: it would reuse results without verifying them."""
    task.set_display_name(name)
    task.set_caching_options(False)
    return apply_pod_settings(task, name, pods)


def apply_pod_settings(task: Any, name: str, pods: StepPodsConfig) -> Any:
    """Apply the pod settings to a task of the workflow, with the size that the recipe gives to its kind."""
    settings = settings_of(name)
    size: PodSize = getattr(pods, settings.role)
    memory = memory_quantity(size.memory_gib)
    task.set_cpu_request(cpu_quantity(size.cpus)).set_cpu_limit(cpu_quantity(size.cpu_limit))
    task.set_memory_request(memory).set_memory_limit(memory)
    kubernetes.set_security_context(task, run_as_user=USER_ID, run_as_group=USER_ID, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")  # tags are never moved
    # Also for none: a task that says nothing gets the server's own number (two, in Kubeflow Pipelines 2.17).
    task.set_retry(
        settings.max_retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration=f"{_RETRY_SECONDS}s"
    )
    if settings.timeout_seconds is not None:
        kubernetes.set_timeout(task, settings.timeout_seconds)
    _mount(task, size)
    _pass_environment(task)
    if settings.uses_hub:
        kubernetes.use_secret_as_env(task, HUB, {key: key for key in _HUB_KEYS}, optional=True)
    if settings.uses_endpoints:
        kubernetes.use_secret_as_env(task, ENDPOINT_SECRET, {ENDPOINT_KEY: ENDPOINT_KEY}, optional=True)
    _label(task, name, settings.role)
    return task


def _mount(task: Any, size: PodSize) -> None:
    """Mount a writable /tmp for downloads: the images run with a read-only root. Also certificates and /dev/shm."""
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")  # noqa: S108 - the pod's own
    kubernetes.use_config_map_as_volume(task, AUTHORITY, mount_path=_AUTHORITY_FOLDER, optional=True)
    if size.shm_gib:
        path, limit = "/dev/shm", memory_quantity(size.shm_gib)  # noqa: S108
        kubernetes.empty_dir_mount(task, volume_name="shm", mount_path=path, medium="Memory", size_limit=limit)


def _pass_environment(task: Any) -> None:
    """Pass settings and credentials by name only; the compiled workflow never contains their values."""
    for keys, optional in ((_SETTING_KEYS, False), (_OPTIONAL_SETTING_KEYS, True)):
        kubernetes.use_config_map_as_env(task, SETTINGS, {key: key for key in keys}, optional=optional)
    for keys, optional in ((_CREDENTIAL_KEYS, False), (_OPTIONAL_CREDENTIAL_KEYS, True)):
        kubernetes.use_secret_as_env(task, CREDENTIALS, {key: key for key in keys}, optional=optional)


def _label(task: Any, name: str, role: str) -> None:
    labels = {"name": "vl3", "part-of": "vl3", "component": role, "managed-by": "kubeflow-pipelines"}
    for key, value in labels.items():
        kubernetes.add_pod_label(task, f"app.kubernetes.io/{key}", value)
    kubernetes.add_pod_label(task, "vl3.dev/task", name)
    # If an autoscaler moves a launcher's pod, it finds its job again, but other steps would start from the beginning.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")
