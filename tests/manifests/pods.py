"""Pod templates in any object, and what Pod Security "restricted" requires of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]

_VOLUME_TYPES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_ACCOUNTS_WITH_RIGHTS = {"vl3-launcher"}
_PATHS = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind has its pod, with metadata and spec."""
_RUNTIMES = ("ClusterTrainingRuntime", "TrainingRuntime", "JobSet")


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The specification of a pod that some object makes."""

    spec: Spec
    labels: dict[str, str]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All containers, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    def references(self) -> Iterator[tuple[str, str]]:
        """Kind and name of the objects without which the pod does not start."""
        if account := self.spec.get("serviceAccountName"):
            yield "ServiceAccount", account
        for volume in self.spec.get("volumes", []):
            yield from _required(volume, "configMap", "ConfigMap", "name")
            yield from _required(volume, "secret", "Secret", "secretName")
        for container in self.containers:
            for source in container.get("envFrom", []):
                yield from _required(source, "configMapRef", "ConfigMap", "name")
                yield from _required(source, "secretRef", "Secret", "name")
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                yield from _required(source, "configMapKeyRef", "ConfigMap", "name")
                yield from _required(source, "secretKeyRef", "Secret", "name")


def _required(holder: Mapping[str, Any], field: str, kind: str, name: str) -> Iterator[tuple[str, str]]:
    reference = holder.get(field)
    if reference and not reference.get("optional"):
        yield kind, reference[name]


def pod_templates(obj: Mapping[str, Any]) -> list[PodTemplate]:
    """The pod templates of an object of any kind."""
    kind = obj["kind"]
    if kind in _PATHS:
        pod: Any = obj
        for key in _PATHS[kind]:
            pod = pod[key]
        return [_template(pod)]
    if kind in _RUNTIMES:
        job_set = obj["spec"] if kind == "JobSet" else obj["spec"]["template"]["spec"]
        return [_template(job["template"]["spec"]["template"]) for job in job_set["replicatedJobs"]]
    return []


def _template(pod: dict[str, Any]) -> PodTemplate:
    return PodTemplate(pod["spec"], pod.get("metadata", {}).get("labels", {}))


def pod_problems(template: PodTemplate) -> Iterator[str]:
    """What the pod as a whole asks for and may not have."""
    spec = template.spec
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"has {field}: true and sees the node. Remove it."
    for volume in spec.get("volumes", []):
        types = set(volume) - {"name"}
        if not types <= _VOLUME_TYPES:
            yield f"mounts volume {volume['name']} of type {', '.join(sorted(types))}. Use one of {_listed()}."
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sets sysctls. Remove them."
    account = spec.get("serviceAccountName", "default")
    if account == "default":
        yield "runs as the service account 'default', whose rights anyone may widen. Give it one of its own."
    if account not in _ACCOUNTS_WITH_RIGHTS and spec.get("automountServiceAccountToken") is not False:
        yield "mounts a token of the API server that it does not need. Set automountServiceAccountToken: false."


def container_problems(template: PodTemplate, container: Mapping[str, Any]) -> Iterator[str]:
    """What one container asks for and may not have."""
    pod, own = template.spec.get("securityContext", {}), container.get("securityContext", {})
    if own.get("privileged"):
        yield "is privileged. Remove it."
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges. Set allowPrivilegeEscalation: false."
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "keeps capabilities. Set capabilities.drop: [ALL]."
    if added := _beyond(capabilities.get("add", []), {"NET_BIND_SERVICE"}):
        yield f"adds the capabilities {added}. Remove them."
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "may run as root. Set runAsNonRoot: true."
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as user 0. Set runAsUser: 65532."
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "may make any system call. Set seccompProfile.type: RuntimeDefault."
    if own.get("readOnlyRootFilesystem") is not True:
        yield "can write to its image. Set readOnlyRootFilesystem: true and mount an emptyDir at /tmp."
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"takes port {port['hostPort']} of its node. Use a Service."


def _beyond(values: Sequence[str], allowed: set[str]) -> list[str]:
    return sorted(set(values) - allowed)


def _listed() -> str:
    return ", ".join(sorted(_VOLUME_TYPES))
