"""Reads a cluster's facts with about thirty small requests; writes nothing and reads no secret."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vl3.config.placement import PlacementConfig
from vl3.errors import ClusterError
from vl3.launch.check.facts import KUEUE, TRAINER, TRAINJOB_FIELDS, ClusterFacts, Object, ObjectKind
from vl3.launch.check.needs import STAGE, JobNeeds, Placements, all_needs
from vl3.launch.check.placement import companions
from vl3.launch.job import LaunchJob
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.outages import LostTouchError, raise_refusal
from vl3.launch.kube.resources import Resource
from vl3.system.retry import Pauses, retry

_PAGE = 500
_RIGHTS = (
    ("", "pods", ("list", "watch")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("kueue.x-k8s.io", "workloads", ("list",)),
)
"""Rights that every launcher needs: (group, resource, verbs), as manifests/base/rbac grants them."""
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
    kinds = all_needs(placements)
    apis = _served(client, kinds)
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
        _read_templates(reading, placements)
        _read_companions(reading, placements)
    if of_all_nodes:
        reading.read_all(ObjectKind.NODE)
    else:
        _read_nodes(reading, placements)
    denied = tuple(_denied(client, kinds)) if has_namespace else ()
    fields = _trainjob_fields(client) if TRAINER in apis else None
    tried = kinds if has_namespace and not denied else []
    if fields is None or not fields.issuperset(TRAINJOB_FIELDS):
        tried = [needs for needs in tried if needs is not STAGE]
    return ClusterFacts(
        server=client.server,
        version=version,
        namespace=client.namespace,
        apis=apis,
        trainjob_fields=fields,
        denied=denied,
        refusals=dict(_refusals(client, reading, placements, tried, apis)),
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


def _served(client: Client, kinds: Sequence[JobNeeds]) -> dict[str, frozenset[str]]:
    """Plural names by `group/version`, for those of the needed APIs that the server has."""
    apis: dict[str, frozenset[str]] = {}
    for version in (*(api.version for needs in kinds for api in needs.apis), *KUEUE):
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


def _denied(client: Client, kinds: Sequence[JobNeeds]) -> Iterator[str]:
    """The launcher's rights that this identity lacks: `create/patch trainjobs.trainer.kubeflow.org`."""
    for group, resource, verbs in (*(right for needs in kinds for right in needs.rights), *_RIGHTS):
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


def _refusals(
    client: Client,
    reading: "_Reading",
    placements: Placements,
    kinds: Sequence[JobNeeds],
    apis: Mapping[str, frozenset[str]],
) -> Iterator[tuple[str, str]]:
    """Kinds of jobs of which the server would reject one, and why."""
    for needs in kinds:
        if all(api.version in apis for api in needs.apis):
            refusal = _rehearse(client, reading, needs, needs.placed(placements))
            if refusal is not None:
                yield needs.job, refusal


def _rehearse(client: Client, reading: "_Reading", needs: JobNeeds, placements: Placements) -> str | None:
    """Why the server would reject a job, by a dry run, which passes all its webhooks; None if it accepts."""
    templates, queues = reading.objects.get(needs.kind, {}), reading.objects.get(ObjectKind.LOCAL_QUEUE, {})
    for stage, placement in placements.items():
        template = templates.get(needs.object_name(placement.pool))
        if template is not None and needs.pod_spec(template) is not None and placement.queue in queues:
            job = needs.build(_rehearsal(stage, placement), template)
            try:
                client.create(needs.resource, job, dryRun="All")
            except ApiError as error:
                return error.message
            return None
    return None


def _rehearsal(stage: str, placement: PlacementConfig) -> LaunchJob:
    return LaunchJob(
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

    def read_each(self, wanted: Iterable[tuple[ObjectKind, str]]) -> None:
        """Read some objects, those that were read before left out."""
        for kind, name in wanted:
            if name not in self.objects.get(kind, {}):
                self.read_one(kind, name)

    def _keep_refusal(self, kind: ObjectKind, error: ApiError) -> None:
        if error.status != 403:
            raise error
        self.unreadable[kind] = error.message

    def _resource(self, kind: ObjectKind) -> Resource | None:
        version = self._versions.get(kind, "")
        if version is None:
            return None
        return Resource(f"apis/{version}" if version else "api/v1", kind.plural, kind.is_namespaced)


def _read_templates(reading: _Reading, placements: Placements) -> None:
    """Read what the pools name in the namespace, each by its name: a launcher may not list it."""
    for needs in all_needs(placements):
        if needs.kind.is_namespaced:
            for name in _template_names(needs, placements):
                reading.read_one(needs.kind, name)


def _read_companions(reading: _Reading, placements: Placements) -> None:
    """Read the objects that the pods of the placements' pools refer to."""
    for needs in all_needs(placements):
        found = reading.objects.get(needs.kind, {})
        for name in _template_names(needs, placements):
            reading.read_each(companions(needs.pod_spec(found[name])) if name in found else ())


def _template_names(needs: JobNeeds, placements: Placements) -> dict[str, None]:
    return dict.fromkeys(needs.object_name(placement.pool) for placement in needs.placed(placements).values())


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
