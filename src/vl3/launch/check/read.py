"""Reads a cluster's facts with about thirty small requests; writes nothing and reads no secret."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vl3.errors import ClusterError
from vl3.launch.check.facts import JOBSET, KUEUE, TRAINER, TRAINJOB_FIELDS, ClusterFacts, Object, ObjectKind
from vl3.launch.check.placement import Placements, companions
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.names import RUNTIME_PREFIX
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.outages import LostTouchError, raise_refusal
from vl3.launch.kube.resources import TRAINJOBS, Resource
from vl3.launch.trainjob.spec import build_trainjob
from vl3.system.retry import Pauses, retry

_PAGE = 500
_RIGHTS = (
    ("trainer.kubeflow.org", "trainjobs", ("create", "get", "list", "watch", "patch", "delete")),
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("kueue.x-k8s.io", "workloads", ("list",)),
)
"""Rights that the launcher needs: (group, resource, verbs), as manifests/base/rbac grants them."""
_PAUSES = Pauses(first_seconds=0.5, longest_seconds=4.0)
"""Back-off while the server is busy or its storage for a kind is not ready yet."""
_TRIES = 6
"""About ten seconds in all."""
_REVIEWS = Resource("apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", is_namespaced=False)


def read_facts(client: Client, version: str, placements: Placements, *, of_all_nodes: bool = False) -> ClusterFacts:
    """Take the snapshot that the checks judge.

    Args:
        client: client of a reachable server.
        version: the server's version.
        placements: the placements to judge.
        of_all_nodes: whether to read nodes of other pools, too.

    Raises:
        ConfigError: the server rejects our credentials.
        ClusterError: the server failed during the requests.
    """
    try:
        return _read(client, version, placements, of_all_nodes=of_all_nodes)
    except ApiUnreachableError as error:
        raise ClusterError(f"{error}: it stopped answering during the check. Check again when it is back.") from error
    except ApiError as error:
        try:
            raise_refusal(error, client)
        except LostTouchError as lost:
            raise lost.error from error
        raise ClusterError(
            f"the API server {client.server} could not {error.action} ({error.status} {error.reason}: "
            f"{error.message}). Check again later; if that does not help, ask the cluster's owner."
        ) from error


def _ask(call: Callable[..., dict[str, Any]], *arguments: Any, **query: str) -> dict[str, Any]:
    """The answer to a request, with a few retries while the server is busy."""
    return retry(
        lambda: call(*arguments, **query),
        may_pass=lambda error: isinstance(error, ApiError) and error.is_passing,
        pauses=_PAUSES,
        tries=_TRIES,
        asked_for=lambda error: min(getattr(error, "retry_after_seconds", 0.0), _PAUSES.longest_seconds),
    )


def _read(client: Client, version: str, placements: Placements, *, of_all_nodes: bool) -> ClusterFacts:
    apis = _served(client)
    reading = _Reading(client, apis)
    reading.read_one(ObjectKind.NAMESPACE, client.namespace)
    has_namespace = client.namespace in reading.objects.get(ObjectKind.NAMESPACE, {client.namespace: {}})
    for kind in (
        ObjectKind.RUNTIME,
        ObjectKind.CLUSTER_QUEUE,
        ObjectKind.COHORT,
        ObjectKind.FLAVOR,
        ObjectKind.PRIORITY,
    ):
        reading.read_all(kind)
    if has_namespace:
        reading.read_all(ObjectKind.LOCAL_QUEUE)
        _read_companions(reading, placements)
    if of_all_nodes:
        reading.read_all(ObjectKind.NODE)
    else:
        _read_nodes(reading, placements)
    denied = tuple(_denied(client)) if has_namespace else ()
    fields = _trainjob_fields(client) if TRAINER in apis else None
    may_try = has_namespace and not denied and fields is not None and fields.issuperset(TRAINJOB_FIELDS)
    return ClusterFacts(
        server=client.server,
        version=version,
        namespace=client.namespace,
        apis=apis,
        trainjob_fields=fields,
        denied=denied,
        refusal=_rehearse(client, reading, placements) if may_try else None,
        objects=reading.objects,
        unreadable=reading.unreadable,
    )


def _document(client: Client, path: str) -> Object | None:
    """A document of the API server such as discovery or a schema; None if it is missing or forbidden."""
    api, _, name = path.rpartition("/")
    try:
        return _ask(client.list, Resource(api, name, is_namespaced=False))
    except ApiError as error:
        if error.status in (403, 404):
            return None
        raise


def _served(client: Client) -> dict[str, frozenset[str]]:
    """Plural names by `group/version`, for those of the needed APIs that the server has."""
    apis: dict[str, frozenset[str]] = {}
    for version in (TRAINER, JOBSET, *KUEUE):
        found = None if KUEUE[0] in apis else _document(client, f"apis/{version}")
        if found is not None:
            apis[version] = frozenset(resource["name"] for resource in found["resources"])
    return apis


def _trainjob_fields(client: Client) -> frozenset[str] | None:
    """Fields of TrainJob.spec in the published schema, which every identity may read (unlike the CRD)."""
    found = _document(client, f"openapi/v3/apis/{TRAINER}")
    schemas: Mapping[str, Object] = {} if found is None else found["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith(".TrainJob"):
            return frozenset(schema["properties"]["spec"]["properties"])
    return None


def _denied(client: Client) -> Iterator[str]:
    """The launcher's rights that this identity lacks: `create/patch trainjobs.trainer.kubeflow.org`."""
    for group, resource, verbs in _RIGHTS:
        name, _, part = resource.partition("/")
        lacking = [verb for verb in verbs if not _is_allowed(client, group, name, part, verb)]
        if lacking:
            yield f"{'/'.join(lacking)} {resource}{f'.{group}' if group else ''}"


def _is_allowed(client: Client, group: str, resource: str, part: str, verb: str) -> bool:
    attributes = {
        "namespace": client.namespace,
        "group": group,
        "resource": resource,
        "subresource": part,
        "verb": verb,
    }
    answer = _ask(
        client.create,
        _REVIEWS,
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(answer["status"]["allowed"])


def _rehearse(client: Client, reading: "_Reading", placements: Placements) -> str | None:
    """Why the server would reject a TrainJob, by a dry run, which passes all its webhooks; None if it accepts."""
    runtimes, queues = reading.objects.get(ObjectKind.RUNTIME, {}), reading.objects.get(ObjectKind.LOCAL_QUEUE, {})
    tried = [
        (stage, placement)
        for stage, placement in placements.items()
        if RUNTIME_PREFIX + placement.pool in runtimes and placement.queue in queues
    ]
    if not tried:
        return None
    stage, placement = tried[0]
    job = LaunchJob(
        name="check",
        backend="trainjob",
        run_id=f"check-{secrets.token_hex(8)}",
        stage=stage,
        module="vl3.pod.entry",
        document={},
        processes_per_node=placement.processes_per_node,
        threads_per_process=1,
        placement=placement,
        events_path=Path(os.devnull),
        failure_path=Path(os.devnull),
        work_uri="",
    )
    try:
        client.create(TRAINJOBS, build_trainjob(job, attempt=1), dryRun="All")
    except ApiError as error:
        return error.message
    return None


class _Reading:
    """The objects read so far, and the kinds that could not be read."""

    def __init__(self, client: Client, apis: Mapping[str, frozenset[str]]) -> None:
        self._client = client
        kueue = next((version for version in KUEUE if version in apis), None)
        self._versions: dict[ObjectKind, str | None] = {ObjectKind.RUNTIME: TRAINER if TRAINER in apis else None}
        for kind in (
            ObjectKind.LOCAL_QUEUE,
            ObjectKind.CLUSTER_QUEUE,
            ObjectKind.COHORT,
            ObjectKind.FLAVOR,
            ObjectKind.PRIORITY,
        ):
            self._versions[kind] = kueue
        self.objects: dict[ObjectKind, dict[str, Object]] = {}
        self.unreadable: dict[ObjectKind, str] = {}

    def read_all(self, kind: ObjectKind, selector: Mapping[str, str] | None = None) -> None:
        """Read all objects of a kind, or those with some labels, page by page. Nothing if the API is not served."""
        resource = self._resource(kind)
        if resource is None:
            return
        query = {"limit": str(_PAGE)}
        if selector:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in selector.items())
        found = self.objects.get(kind, {})
        try:
            while True:
                page = _ask(self._client.list, resource, **query)
                found |= {item["metadata"]["name"]: item for item in page["items"]}
                query["continue"] = page["metadata"].get("continue") or ""
                if not query["continue"]:
                    break
        except ApiError as error:
            if error.status != 404:  # a kind that this version of the API lacks has no objects
                self._keep_refusal(kind, error)
                return
        self.objects[kind] = found

    def read_one(self, kind: ObjectKind, name: str) -> None:
        """Read one object; the kind counts as read even if the object is missing."""
        resource = self._resource(kind)
        assert resource is not None
        found: dict[str, Object] = {}
        try:
            found[name] = _ask(self._client.get, resource, name)
        except ApiError as error:
            if error.status != 404:
                self._keep_refusal(kind, error)
                return
        self.objects[kind] = self.objects.get(kind, {}) | found

    def _keep_refusal(self, kind: ObjectKind, error: ApiError) -> None:
        if error.status != 403:
            raise error
        self.unreadable[kind] = error.message

    def _resource(self, kind: ObjectKind) -> Resource | None:
        version = self._versions.get(kind, "")
        if version is None:
            return None
        return Resource(f"apis/{version}" if version else "api/v1", kind.plural, kind.is_namespaced)


def _read_companions(reading: _Reading, placements: Placements) -> None:
    """Read the objects that the pods of the placements' runtimes refer to."""
    runtimes = reading.objects.get(ObjectKind.RUNTIME, {})
    names = dict.fromkeys(RUNTIME_PREFIX + placement.pool for placement in placements.values())
    wanted = dict.fromkeys(item for name in names if name in runtimes for item in companions(runtimes[name]))
    for kind, name in wanted:
        reading.read_one(kind, name)


def _read_nodes(reading: _Reading, placements: Placements) -> None:
    """Read the nodes of the flavours of the placements' queues, so that not all nodes of a large cluster are read."""
    locals_, queues = reading.objects.get(ObjectKind.LOCAL_QUEUE, {}), reading.objects.get(ObjectKind.CLUSTER_QUEUE, {})
    flavors = reading.objects.get(ObjectKind.FLAVOR, {})
    named = {
        locals_[placement.queue]["spec"].get("clusterQueue")
        for placement in placements.values()
        if placement.queue in locals_
    }
    names = {
        flavor["name"]
        for queue in named & queues.keys()
        for group in queues[queue]["spec"].get("resourceGroups") or ()
        for flavor in group["flavors"]
    }
    selectors = [(flavors[name].get("spec") or {}).get("nodeLabels") or {} for name in sorted(names & flavors.keys())]
    for selector in selectors:
        reading.read_all(ObjectKind.NODE, selector)
