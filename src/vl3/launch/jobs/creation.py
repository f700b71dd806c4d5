"""Creates a job exactly once, whatever requests are repeated and whatever answers are lost."""

import logging
import re
import threading
import time
from typing import Any

from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch.jobs.kinds import JobKind
from vl3.launch.jobs.names import DIGEST_ANNOTATION, PRIORITY_LABEL, QUEUE_LABEL
from vl3.launch.kube.client import REQUEST_SECONDS, ApiError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, annotations_of, is_being_deleted, labels_of, name_of
from vl3.launch.kube.outages import until_answered
from vl3.launch.kube.resources import LOCAL_QUEUES, PRIORITY_CLASSES
from vl3.system.retry import StoppedError

log = logging.getLogger("vl3.launch")

_POLL_SECONDS = 0.5
_NO_RUNTIME = re.compile(r"must be created before|runtime '.*' not found")
"""How Trainer's and Kueue's webhooks report a missing ClusterTrainingRuntime."""


def check_queue(client: Client, manifest: Object, limits: LaunchLimits) -> None:
    """Check that the queue and the priority class exist, before anything is created.

    Raises:
        ConfigError: one of them is missing.
    """
    labels = labels_of(manifest)
    queue, priority = labels[QUEUE_LABEL], labels[PRIORITY_LABEL]
    if not _exists(client, LOCAL_QUEUES, queue, limits):
        found = until_answered(lambda: client.list(LOCAL_QUEUES), client, limits)
        names = ", ".join(sorted(name_of(one) for one in found.get("items") or ())) or "none"
        raise ConfigError(
            f"namespace {client.namespace} has no LocalQueue {queue!r} (it has: {names}). Set the placement's queue to "
            "one of them, or ask the administrator to apply manifests/base/local-queues."
        )
    try:
        is_there = _exists(client, PRIORITY_CLASSES, priority, limits)
    except Vl3Error:  # no right to read them: Kueue will report it
        return
    if not is_there:
        raise ConfigError(
            f"the cluster has no WorkloadPriorityClass {priority!r}. Set the placement's priority to one that "
            "`kubectl get workloadpriorityclasses` lists, or ask the administrator to apply manifests/cluster."
        )


def _exists(client: Client, resource: Any, name: str, limits: LaunchLimits) -> bool:
    try:
        until_answered(lambda: client.get(resource, name), client, limits)
    except ApiError as error:
        if error.status == 404:
            return False
        raise ClusterError(f"the API server refused to {error.action}: {error.message}.") from error
    return True


class Creation(threading.Thread):
    """The creation of one job, in its own thread, so that a signal cannot interrupt it before the answer."""

    def __init__(self, client: Client, kind: JobKind, manifest: Object, limits: LaunchLimits) -> None:
        super().__init__(name="create-job", daemon=True)
        self._client = client
        self._kind = kind
        self._manifest = manifest
        self._limits = limits
        self._stop_request = threading.Event()
        self._done = threading.Event()
        self._result: Object | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Create or adopt."""
        try:
            self._result = create_or_adopt(self._client, self._kind, self._manifest, self._limits, self._stop_request)
        except BaseException as error:  # noqa: BLE001 - raised again by the launching thread
            self._error = error
        self._done.set()

    def wait(self) -> Object:
        """The job.

        Raises:
            Vl3Error: it could not be created, or another job has the name.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def settle(self) -> Object | None:
        """After an interrupt: wait for the request in flight; returns the job if there is one now."""
        self._stop_request.set()
        self._done.wait(2 * REQUEST_SECONDS)
        if self._result is not None or isinstance(self._error, Vl3Error):
            return self._result
        # No answer came, but the request may have succeeded.
        return find_own(self._client, self._kind, self._manifest, self._limits)


def find_own(client: Client, kind: JobKind, manifest: Object, limits: LaunchLimits) -> Object | None:
    """The job with a manifest's name and digest, if it exists."""
    try:
        found = until_answered(lambda: client.get(kind.resource, name_of(manifest)), client, limits)
    except ApiError:
        return None
    return found if _digest(found) == _digest(manifest) else None


def create_or_adopt(
    client: Client, kind: JobKind, manifest: Object, limits: LaunchLimits, stop: threading.Event
) -> Object:
    """Create a job, or adopt the existing one with the same digest.

    Raises:
        ConfigError: one with another digest has the name, or the API server refuses the manifest.
        ClusterError: the platform is at fault.
    """
    name = name_of(manifest)
    while True:
        try:
            created = until_answered(lambda: client.create(kind.resource, manifest), client, limits, stop)
        except ApiError as error:
            if error.status != 409:
                raise _refused(error, kind, manifest, client) from error
        else:
            log.info("created %s %s in namespace %s", kind.name, name, client.namespace)
            return created
        try:
            found = until_answered(lambda: client.get(kind.resource, name), client, limits, stop)
        except ApiError:  # it was deleted between the two requests
            continue
        if not is_being_deleted(found):
            return adopt(kind, found, manifest)
        if stop.wait(_POLL_SECONDS):
            raise StoppedError


def adopt(kind: JobKind, found: Object, manifest: Object) -> Object:
    """Adopt a job that already exists.

    Raises:
        ConfigError: it was created from another configuration.
    """
    if _digest(found) != _digest(manifest):
        raise ConfigError(
            f"{kind.name} {name_of(found)} already exists and was made from another configuration (its spec has the "
            f"digest {_digest(found)[:12] or 'none'}, this launch {_digest(manifest)[:12]}). Two different jobs must "
            "not write to one run. Use another run id, or delete it: "
            f"kubectl delete {kind.name.lower()} {name_of(found)}."
        )
    log.info("adopted %s %s, which already exists", kind.name, name_of(found))
    return found


def wait_for_deletion(client: Client, kind: JobKind, job: Object, limits: LaunchLimits) -> None:
    """Wait until a job that is being deleted is gone.

    Raises:
        ClusterError: a finalizer holds it.
    """
    name, deadline = name_of(job), time.monotonic() + limits.replace_seconds
    while _exists(client, kind.resource, name, limits):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{kind.name} {name} is still being deleted after {limits.replace_seconds:.0f} s (finalizers: "
                f"{job['metadata'].get('finalizers')}). Check the controllers that have to remove them."
            )
        time.sleep(_POLL_SECONDS)


def _refused(error: ApiError, kind: JobKind, manifest: Object, client: Client) -> Vl3Error:
    name = name_of(manifest)
    if _NO_RUNTIME.search(error.message):
        runtime = manifest["spec"]["runtimeRef"]["name"]
        return ConfigError(
            f"the cluster has no ClusterTrainingRuntime {runtime}, which the placement's pool needs. Set the pool to "
            "one that `kubectl get clustertrainingruntimes` lists as vl3-torch-<pool>, or ask the administrator to "
            "apply manifests/cluster."
        )
    if error.status == 404:
        return ConfigError(
            f"there is no namespace {client.namespace}: {error.message}. Apply an overlay of manifests/overlays, or "
            "set another namespace in the kubeconfig's context."
        )
    if "exceeded quota" in error.message or "is being terminated" in error.message:
        return ClusterError(
            f"namespace {client.namespace} does not accept {kind.name} {name}: {error.message}. Delete finished jobs, "
            "or ask the administrator to raise the ResourceQuota."
        )
    return ConfigError(
        f"the API server refuses {kind.name} {name} ({error.status} {error.reason}): {error.message}. Check the "
        "placement, and with `vl3 cluster check` that the controllers have the versions of manifests/third-party."
    )


def _digest(item: Object) -> str:
    return annotations_of(item).get(DIGEST_ANNOTATION, "")
