"""What our manifests must satisfy, as pure functions over rendered objects; every finding says what to do.

A policy takes all objects of one overlay and yields findings. Pod templates wherever they lie (Deployment, CronJob,
ClusterTrainingRuntime ...) are checked alike, see `pods.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.manifests.pods import PodTemplate, container_problems, pod_problems, pod_templates

Object = Mapping[str, Any]

_OURS = ("app.kubernetes.io/part-of", "vl3")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api_?key|access_?key|credential)")
_SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{12}|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@|eyJ[\w-]{20,}\.eyJ")
_WRITING_VERBS = {"create", "update", "patch", "delete", "deletecollection"}
_FORBIDDEN_VERBS = {"escalate", "bind", "impersonate"}
_FORBIDDEN_RESOURCES = {"secrets", "pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule."""

    where: str
    """Kind and name of the object."""
    rule: str
    """Short name of the rule."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{self.where}: [{self.rule}] {self.message}"


Policy = Callable[[Sequence[Object]], Iterator[Finding]]


def name_of(obj: Object) -> str:
    """Kind and name, with the namespace if there is one."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{obj['kind']} {namespace + '/' if namespace else ''}{metadata['name']}"


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [obj for obj in objects if obj["kind"] in kinds]


def names(objects: Sequence[Object], kind: str) -> set[str]:
    """The names of all objects of a kind."""
    return {obj["metadata"]["name"] for obj in of_kind(objects, kind)}


def _templates(objects: Sequence[Object]) -> Iterator[tuple[str, PodTemplate]]:
    for obj in objects:
        for template in pod_templates(obj):
            yield name_of(obj), template


def pods_are_restricted(objects: Sequence[Object]) -> Iterator[Finding]:
    """Pod Security Standard "restricted", and our own additions to it."""
    for where, template in _templates(objects):
        for problem in pod_problems(template):
            yield Finding(where, "pod-security", problem)
        for container in template.containers:
            for problem in container_problems(template, container):
                yield Finding(where, "pod-security", f"container {container['name']}: {problem}")


def resources_are_set(objects: Sequence[Object]) -> Iterator[Finding]:
    """The scheduler and the queues count requests; a memory limit protects the neighbours."""
    for where, template in _templates(objects):
        for container in template.containers:
            resources = container.get("resources", {})
            wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
            missing = [f"{kind}.{what}" for kind, what in wanted if what not in resources.get(kind, {})]
            if missing:
                yield Finding(
                    where,
                    "resources",
                    f"container {container['name']} has no resources.{' and no resources.'.join(missing)}. The pod "
                    "could starve its neighbours. Set them from what it was measured to use.",
                )


def images_have_versions(objects: Sequence[Object]) -> Iterator[Finding]:
    """What runs is what was tested."""
    for where, template in _templates(objects):
        for container in template.containers:
            image = container.get("image", "")
            if image.endswith(":latest") or (":" not in image.rpartition("/")[2] and "@" not in image):
                yield Finding(
                    where,
                    "image-version",
                    f"container {container['name']} runs {image!r}, which may be another image tomorrow. Name a "
                    "version in manifests/components/release-images.",
                )


def images_have_digests(objects: Sequence[Object]) -> Iterator[Finding]:
    """Production: a tag can be moved, a digest cannot."""
    for where, template in _templates(objects):
        for container in template.containers:
            if not _DIGEST.search(container.get("image", "")):
                yield Finding(
                    where,
                    "image-digest",
                    f"container {container['name']} runs {container.get('image')!r} by tag. Pin the pushed images: "
                    "make pin-images.",
                )


def secrets_are_references(objects: Sequence[Object]) -> Iterator[Finding]:
    """No secret value is in git."""
    for obj in of_kind(objects, "Secret"):
        yield Finding(
            name_of(obj),
            "secret-in-git",
            "holds its values in git. Use an ExternalSecret (manifests/components/external-secrets).",
        )


def values_are_no_secrets(objects: Sequence[Object]) -> Iterator[Finding]:
    """Neither do literal environment variables, arguments or settings."""
    for where, key, value in _literals(objects):
        if _SECRET_VALUE.search(value) or (_SECRET_NAME.search(key) and value):
            yield Finding(
                where,
                "secret-value",
                f"{key} looks like a secret with its value written out. Put it into the vault and refer to it by "
                "secretKeyRef or envFrom.",
            )


def _literals(objects: Sequence[Object]) -> Iterator[tuple[str, str, str]]:
    for obj in of_kind(objects, "ConfigMap"):
        for key, value in obj.get("data", {}).items():
            yield name_of(obj), key, value
    for where, template in _templates(objects):
        for container in template.containers:
            for variable in container.get("env", []):
                yield where, variable["name"], variable.get("value", "")
            for word in [*container.get("command", []), *container.get("args", [])]:
                key, _, value = word.partition("=") if word.startswith("-") else ("command", "", word)
                yield where, key, value


def namespaces_deny_by_default(objects: Sequence[Object]) -> Iterator[Finding]:
    """A pod that no policy selects may talk to everybody."""
    denied = {
        policy["metadata"].get("namespace", "")
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["spec"].get("podSelector") == {}
        and set(policy["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
    }
    used = {obj["metadata"]["namespace"] for obj in objects if obj["metadata"].get("namespace")}
    for namespace in sorted((used | names(objects, "Namespace")) - denied):
        yield Finding(
            f"Namespace {namespace}",
            "default-deny",
            "has no network policy that selects all pods and denies both directions. Add base/network/default-deny.",
        )


def namespaces_keep_their_labels(objects: Sequence[Object]) -> Iterator[Finding]:
    """A namespace may be a profile of Kubeflow, whose own labels decide what may reach Pipelines."""
    ours = ("vl3.dev/", "pod-security.kubernetes.io/")
    for namespace in of_kind(objects, "Namespace"):
        for label in namespace["metadata"].get("labels", {}):
            if not label.startswith(ours):
                yield Finding(
                    name_of(namespace), "others-label", f"sets {label}, which may be its owner's. Leave it out."
                )


def bindings_stay_in_the_namespace(objects: Sequence[Object]) -> Iterator[Finding]:
    """A binding to an account of another namespace gives rights to a stranger, and none to ours."""
    used = {obj["metadata"]["namespace"] for obj in objects if obj["metadata"].get("namespace")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        for subject in binding["subjects"]:
            if subject.get("namespace") not in used:
                yield Finding(
                    name_of(binding),
                    "other-namespace",
                    f"binds {subject['name']} of namespace {subject.get('namespace')}; the objects are in "
                    f"{', '.join(sorted(used))}. Set it in the overlay's namespace/namespace.yaml.",
                )


def pods_are_ours_by_label(objects: Sequence[Object]) -> Iterator[Finding]:
    """In a namespace with others the network policies find our pods by this label."""
    for where, template in _templates(objects):
        if template.labels.get(_OURS[0]) != _OURS[1]:
            yield Finding(where, "unlabelled", f"makes pods without the label {_OURS[0]}: {_OURS[1]}. Add it.")


def others_are_left_alone(objects: Sequence[Object]) -> Iterator[Finding]:
    """A namespace in which others run: nothing of ours selects, limits, admits or owns what is theirs."""
    for policy in of_kind(objects, "NetworkPolicy"):
        peers = [
            peer["podSelector"]
            for direction, side in (("ingress", "from"), ("egress", "to"))
            for rule in policy["spec"].get(direction) or []
            for peer in rule.get(side) or []
            if "podSelector" in peer and "namespaceSelector" not in peer
        ]
        for selector in (policy["spec"]["podSelector"], *peers):
            if not selector.get("matchLabels", {}).keys() & {_OURS[0], "app.kubernetes.io/name"}:
                yield Finding(name_of(policy), "others-pods", f"selects {selector}, also pods of others.")
        if policy["spec"]["podSelector"].get("matchLabels", {}).get(_OURS[0]) != _OURS[1]:
            yield Finding(name_of(policy), "others-pods", f"isolates pods without {_OURS[0]}: {_OURS[1]}, of others.")
    for obj in of_kind(objects, "LimitRange", "ResourceQuota", "Namespace"):
        yield Finding(name_of(obj), "others-namespace", f"a {obj['kind']} is for everybody there. Leave it out.")


def openings_are_narrow(objects: Sequence[Object]) -> Iterator[Finding]:
    """A rule without peers and without ports opens everything again."""
    for policy in of_kind(objects, "NetworkPolicy"):
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction) or []:
                if not rule.get(peers) and not rule.get("ports"):
                    yield Finding(
                        name_of(policy),
                        "open-network",
                        f"an {direction} rule has neither {peers!r} nor 'ports' and opens everything. Name one.",
                    )


def roles_are_least(objects: Sequence[Object]) -> Iterator[Finding]:
    """Rights are listed one by one, cluster-wide ones only read, and none reads secrets or executes in pods."""
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role.get("rules") or []:
            for problem in _rule_problems(role["kind"], rule):
                yield Finding(name_of(role), "rbac", problem)
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        role = binding["roleRef"]["name"]
        if role in ("cluster-admin", "admin", "edit"):
            yield Finding(
                name_of(binding),
                "rbac",
                f"gives {role} to {', '.join(subject['name'] for subject in binding['subjects'])}. Write a role with "
                "the rights that are needed.",
            )
        for subject in binding["subjects"]:
            if subject["kind"] != "ServiceAccount" or subject["name"] == "default":
                yield Finding(
                    name_of(binding),
                    "rbac",
                    f"binds {subject['kind']} {subject['name']}, which is more than one program. Bind a service "
                    "account of its own.",
                )


def _rule_problems(kind: str, rule: Mapping[str, Sequence[str]]) -> Iterator[str]:
    verbs, resources = set(rule.get("verbs", [])), set(rule.get("resources", []))
    if "*" in verbs | resources | set(rule.get("apiGroups", [])):
        yield f"has '*' in {dict(rule)}, which grows with every new kind. List what is needed."
    if verbs & _FORBIDDEN_VERBS:
        yield f"may {'/'.join(sorted(verbs & _FORBIDDEN_VERBS))} and so give itself any right. Remove the verb."
    if resources & _FORBIDDEN_RESOURCES:
        yield f"reaches {', '.join(sorted(resources & _FORBIDDEN_RESOURCES))}. Remove it: nothing of ours needs it."
    if kind == "ClusterRole" and verbs & _WRITING_VERBS:
        yield f"may {'/'.join(sorted(verbs & _WRITING_VERBS))} {sorted(resources)} in every namespace. Use a Role."


def services_stay_inside(objects: Sequence[Object]) -> Iterator[Finding]:
    """What has no login must not be reachable from outside."""
    for service in of_kind(objects, "Service"):
        kind = service["spec"].get("type", "ClusterIP")
        if kind != "ClusterIP":
            yield Finding(
                name_of(service), "exposed", f"is of type {kind}. Use ClusterIP and a gateway that asks who comes."
            )


def queues_lead_to_quota(objects: Sequence[Object]) -> Iterator[Finding]:
    """LocalQueue -> ClusterQueue -> ResourceFlavor, and a runtime for each flavour."""
    cluster_queues, flavors = names(objects, "ClusterQueue"), names(objects, "ResourceFlavor")
    for queue in of_kind(objects, "LocalQueue"):
        target = queue["spec"]["clusterQueue"]
        if target not in cluster_queues:
            yield Finding(
                name_of(queue), "queues", f"points to ClusterQueue {target!r}; there are {sorted(cluster_queues)}."
            )
    for queue in of_kind(objects, "ClusterQueue"):
        for flavor in _flavors(queue):
            if flavor["name"] not in flavors:
                yield Finding(
                    name_of(queue), "queues", f"uses ResourceFlavor {flavor['name']!r}; there are {sorted(flavors)}."
                )
            for resource in flavor["resources"]:
                if str(resource["nominalQuota"]) == "0":
                    yield Finding(
                        name_of(queue),
                        "queues",
                        f"has no {resource['name']} of {flavor['name']}, so nothing is ever admitted. Set the quota in "
                        "the overlay's cluster/quota-*.yaml.",
                    )


def _flavors(queue: Object) -> Iterator[Mapping[str, Any]]:
    for group in queue["spec"]["resourceGroups"]:
        yield from group["flavors"]


def quota_of(objects: Sequence[Object], cluster_queue: str, resource: str) -> str:
    """The nominal quota of a resource, over the flavours of a cluster queue there is one; "0" where none is named."""
    for queue in of_kind(objects, "ClusterQueue"):
        if queue["metadata"]["name"] == cluster_queue:
            for flavor in _flavors(queue):
                for entry in flavor["resources"]:
                    if entry["name"] == resource:
                        return str(entry["nominalQuota"])
    return "0"


def runtimes_never_repeat(objects: Sequence[Object]) -> Iterator[Finding]:
    """The launcher alone decides about another attempt, and a finished job is never run again."""
    for runtime in of_kind(objects, "ClusterTrainingRuntime", "TrainingRuntime"):
        spec = runtime["spec"]["template"]["spec"]
        if "ttlSecondsAfterFinished" in spec:
            yield Finding(
                name_of(runtime),
                "runs-twice",
                "has ttlSecondsAfterFinished: Trainer makes a deleted JobSet again and runs the finished job twice. "
                "Remove it; vl3-gc deletes the TrainJob itself.",
            )
        if spec.get("failurePolicy", {}).get("maxRestarts") != 0:
            yield Finding(
                name_of(runtime), "blind-retry", "restarts failed jobs by itself. Set failurePolicy.maxRestarts: 0."
            )
        for job in spec["replicatedJobs"]:
            job_spec = job["template"]["spec"]
            if job_spec.get("backoffLimit") != 0 or job_spec["template"]["spec"].get("restartPolicy") != "Never":
                yield Finding(
                    name_of(runtime),
                    "blind-retry",
                    f"job {job['name']} restarts its pods by itself, also after a wrong configuration. Set "
                    "backoffLimit: 0 and restartPolicy: Never.",
                )


def references_exist(objects: Sequence[Object]) -> Iterator[Finding]:
    """A pod that names a missing object waits forever in ContainerCreating."""
    secrets = names(objects, "Secret") | names(objects, "ExternalSecret")
    maps, accounts = names(objects, "ConfigMap"), names(objects, "ServiceAccount")
    for where, template in _templates(objects):
        for kind, name in template.references():
            known = {"Secret": secrets, "ConfigMap": maps, "ServiceAccount": accounts}[kind]
            if name not in known:
                yield Finding(
                    where, "missing-reference", f"refers to {kind} {name!r}, which the overlay does not have."
                )


ANYWHERE: tuple[Policy, ...] = (
    pods_are_restricted,
    pods_are_ours_by_label,
    resources_are_set,
    images_have_versions,
    values_are_no_secrets,
    openings_are_narrow,
    namespaces_keep_their_labels,
    bindings_stay_in_the_namespace,
    roles_are_least,
    queues_lead_to_quota,
    runtimes_never_repeat,
    references_exist,
)
OWN_NAMESPACE: tuple[Policy, ...] = (*ANYWHERE, namespaces_deny_by_default)
SHARED_CLUSTERS: tuple[Policy, ...] = (*OWN_NAMESPACE, secrets_are_references, services_stay_inside)
SHARED_NAMESPACE: tuple[Policy, ...] = (*ANYWHERE, secrets_are_references, services_stay_inside, others_are_left_alone)
PRODUCTION: tuple[Policy, ...] = (*SHARED_CLUSTERS, images_have_digests)


def findings(objects: Sequence[Object], policies: Sequence[Policy]) -> list[str]:
    """What the policies find, as lines."""
    return [str(finding) for policy in policies for finding in policy(objects)]
