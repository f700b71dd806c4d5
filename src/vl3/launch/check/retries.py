"""Which failed steps Kubeflow Pipelines retries, by the defaults of its workflow controller.

A task of the workflow can say how often it is retried, but not after which failures. The policy comes from the server:
Argo Workflows merges `spec.templateDefaults.retryStrategy` of its defaults into every template, field by field.
"""

import copy
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from vl3.launch.check.findings import Findings, joined
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.resources import Resource

CONFIG_MAP = "workflow-controller-configmap"
NAMESPACES = ("kubeflow", "argo")
"""Where the controller is, in this order: as Kubeflow Pipelines installs it, and as Argo Workflows does."""
_DEFAULTS, _CONFIG = "workflowDefaults", "config"
_PATH = ("spec", "templateDefaults", "retryStrategy")
_REMEDY = {"limit": "0", "retryPolicy": "Always"}
"""The limit is for templates without one, which are the levels above a task, drivers and tasks that want no retry."""
_UNRETRIED = {
    "OnError": "a step that ends with an exit code (an outage, a kill for its memory)",
    "OnFailure": "a step whose pod is deleted or whose node is lost",
    "OnTransientError": "a step whose message the controller's TRANSIENT_ERROR_PATTERN does not match",
}
"""What is not retried, by policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowDefaults:
    """What the workflow controller adds to every workflow."""

    namespace: str = ""
    """Namespace of its ConfigMap."""
    key: str = _DEFAULTS
    """Key of the ConfigMap that has them: `workflowDefaults`, or `config` with everything in one."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """The content of that key."""
    unknown: str = ""
    """Why they are not known; empty if they are."""

    @property
    def strategy(self) -> Mapping[str, Any]:
        """The retry strategy of templates; empty if there is none."""
        node: Any = self.document
        for name in self._path:
            node = node.get(name) if isinstance(node, Mapping) else None
        return node if isinstance(node, Mapping) else {}

    @property
    def remedy(self) -> str:
        """The command that sets the policy and leaves all else as it is."""
        node = document = copy.deepcopy(dict(self.document))
        for name in self._path:
            node[name] = child = node[name] if isinstance(node.get(name), dict) else {}
            node = child
        node.pop("expression", None)
        node |= _REMEDY
        patch = json.dumps({"data": {self.key: yaml.safe_dump(document, sort_keys=False)}})
        return (
            f"kubectl --namespace {self.namespace} patch configmap {CONFIG_MAP} --type merge "
            f"--patch {shlex.quote(patch)}"
        )

    @property
    def _path(self) -> tuple[str, ...]:
        return (_DEFAULTS, *_PATH) if self.key == _CONFIG else _PATH


def read_workflow_defaults(client: Client) -> WorkflowDefaults:
    """The defaults of the cluster's workflow controller, or why they cannot be read: they are another team's."""
    reasons = []
    for namespace in NAMESPACES:
        resource = Resource(f"api/v1/namespaces/{namespace}", "configmaps", is_namespaced=False)
        try:
            key, document = _content(client.get(resource, CONFIG_MAP))
        except ApiUnreachableError as error:
            return WorkflowDefaults(unknown=str(error))
        except ApiError as error:
            reasons.append(f"namespace {namespace}: {'there is none' if error.status == 404 else error.message}")
        except (yaml.YAMLError, ValueError):
            reasons.append(f"namespace {namespace}: the answer is no ConfigMap that the controller could read")
        else:
            return WorkflowDefaults(namespace=namespace, key=key, document=document)
    return WorkflowDefaults(unknown=joined(reasons))


def _content(config_map: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The key with the defaults, and its content."""
    data = config_map.get("data") or {}
    if "metadata" not in config_map or not isinstance(data, Mapping):
        raise ValueError("not a ConfigMap")
    key = _CONFIG if _CONFIG in data else _DEFAULTS
    document = yaml.safe_load(str(data.get(key) or "")) or {}
    if not isinstance(document, Mapping):
        raise ValueError("not an object")
    return key, document


def judge_retries(defaults: WorkflowDefaults, findings: Findings) -> None:
    """Note what a Kubeflow Pipelines server of this cluster would not retry, or would retry too much."""
    if defaults.unknown:
        findings.note(
            f"not checked: which failed steps Kubeflow Pipelines retries, because its ConfigMap {CONFIG_MAP} cannot be "
            f'read ({defaults.unknown}). docs/submission.md, "Retries", says what it must have'
        )
        return
    strategy = defaults.strategy
    expression, limit = strategy.get("expression"), str(strategy.get("limit", "without limit"))
    policy = strategy.get("retryPolicy") or ("Always" if expression else "OnFailure")
    where = f"in {_DEFAULTS} of ConfigMap {defaults.namespace}/{CONFIG_MAP}"
    if expression:
        findings.note(f"not checked: an expression {where} decides which failed steps are retried ({expression})")
    elif policy in _UNRETRIED:
        given = f"retryPolicy {policy}" if "retryPolicy" in strategy else f"no retryPolicy, which means {policy},"
        findings.note(
            f"Kubeflow Pipelines will not retry {_UNRETRIED[policy]}, whatever the workflow asks for: there is {given} "
            f"{where}. Its owner can change that, for all its pipelines: {defaults.remedy}"
        )
    elif strategy and limit != "0":
        findings.note(
            f"Kubeflow Pipelines may repeat a failed workflow as a whole, and each of its levels again: there is "
            f"retryPolicy {policy} with limit {limit} {where}. Its owner can change that: {defaults.remedy}"
        )
