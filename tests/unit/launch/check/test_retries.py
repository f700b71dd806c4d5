"""What Kubeflow Pipelines retries, by the defaults of its workflow controller: read, judged, and the remedy."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.api_server import ApiServer, Fault
from vl3.launch.check.cluster import judge
from vl3.launch.check.facts import ClusterFacts
from vl3.launch.check.findings import Findings
from vl3.launch.check.retries import CONFIG_MAP, WorkflowDefaults, judge_retries, read_workflow_defaults
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect

STOCK = """\
metadata:
  labels: {team: ml}
spec:
  templateDefaults:
    retryStrategy:
      limit: 2
      retryPolicy: OnError
      backoff: {duration: 10s}
"""
"""The defaults of Kubeflow Pipelines 2.17: a policy, a limit and a pause; with something else beside them."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path)
    yield server
    server.stop()


def _read(server: ApiServer, data: Any = None) -> WorkflowDefaults:
    if data is not None:
        server.put("configmaps", {"kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "data": data})
    return read_workflow_defaults(Client(connect(kubeconfig=server.kubeconfig)))


def _notes(defaults: WorkflowDefaults) -> list[str]:
    findings = Findings()
    judge_retries(defaults, findings)
    assert findings.problems == []
    return findings.notes


def _with(**strategy: Any) -> WorkflowDefaults:
    return WorkflowDefaults(
        namespace="kubeflow", document={"spec": {"templateDefaults": {"retryStrategy": strategy}} if strategy else {}}
    )


def _patched(defaults: WorkflowDefaults) -> tuple[list[str], str]:
    """The words of the remedy before the patch, and what the patch makes of the defaults' key."""
    *words, patch = shlex.split(defaults.remedy)
    ((key, text),) = json.loads(patch)["data"].items()
    assert key == defaults.key
    return words, text


def test_the_stock_defaults_are_told_with_a_patch_that_keeps_the_rest(server: ApiServer) -> None:
    defaults = _read(server, {"workflowDefaults": STOCK, "executor": "imagePullPolicy: IfNotPresent\n"})
    (note,) = _notes(defaults)
    assert note.startswith(
        "Kubeflow Pipelines will not retry a step that ends with an exit code (an outage, a kill for its memory), "
        "whatever the workflow asks for: there is retryPolicy OnError in workflowDefaults of ConfigMap "
        "kubeflow/workflow-controller-configmap. Its owner can change that, for all its pipelines: kubectl --namespace "
    )
    assert note.endswith(defaults.remedy)
    words, text = _patched(defaults)
    assert shlex.join(words) == (
        "kubectl --namespace kubeflow patch configmap workflow-controller-configmap --type merge --patch"
    )
    assert yaml.safe_load(text) == {
        "metadata": {"labels": {"team": "ml"}},
        "spec": {
            "templateDefaults": {
                "retryStrategy": {"limit": "0", "retryPolicy": "Always", "backoff": {"duration": "10s"}}
            }
        },
    }
    assert _notes(_read(server, {"workflowDefaults": text})) == [], "the remedy is one"


def test_a_config_map_with_everything_in_one_key_is_read_and_patched_there(server: ApiServer) -> None:
    config = {"nodeEvents": {"enabled": True}, "workflowDefaults": yaml.safe_load(STOCK)}
    defaults = _read(server, {"config": yaml.safe_dump(config)})
    assert defaults.key == "config"
    assert "retryPolicy OnError" in _notes(defaults)[0]
    _, text = _patched(defaults)
    assert yaml.safe_load(text)["nodeEvents"] == {"enabled": True}
    assert _notes(_read(server, {"config": text})) == []


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ({}, "will not retry a step whose pod is deleted or whose node is lost, whatever the workflow asks for: there "
             "is no retryPolicy, which means OnFailure,"),
        ({"limit": 2}, "a step whose pod is deleted"),
        ({"retryPolicy": "OnFailure", "limit": 0}, "there is retryPolicy OnFailure in workflowDefaults"),
        ({"retryPolicy": "OnTransientError"}, "TRANSIENT_ERROR_PATTERN does not match"),
        ({"retryPolicy": "Always", "limit": 2}, "may repeat a failed workflow as a whole, and each of its levels "
                                                "again: there is retryPolicy Always with limit 2 in"),
        ({"retryPolicy": "Always"}, "retryPolicy Always with limit without limit"),
        ({"expression": "asInt(lastRetry.exitCode) > 1"}, "an expression in workflowDefaults of ConfigMap "
                                                          "kubeflow/workflow-controller-configmap decides"),
    ],
    ids=str,
)  # fmt: skip
def test_other_defaults_are_judged(strategy: dict[str, Any], told: str) -> None:
    (note,) = _notes(_with(**strategy))
    assert told in note
    _, text = _patched(_with(**strategy))
    assert _notes(WorkflowDefaults(namespace="kubeflow", document=yaml.safe_load(text))) == []


@pytest.mark.parametrize("limit", [0, "0"])
def test_every_failure_of_the_tasks_that_ask_for_it_is_retried(limit: Any) -> None:
    assert _notes(_with(retryPolicy="Always", limit=limit)) == []


def test_argos_own_namespace_is_looked_at_too(server: ApiServer) -> None:
    server.faults.append(Fault("GET configmaps", 404))
    defaults = _read(server, {"workflowDefaults": STOCK})
    assert defaults.namespace == "argo"
    assert "--namespace argo patch" in _notes(defaults)[0]


def test_what_cannot_be_read_is_said(server: ApiServer) -> None:
    (note,) = _notes(_read(server))
    assert note == (
        "not checked: which failed steps Kubeflow Pipelines retries, because its ConfigMap "
        "workflow-controller-configmap cannot be read (namespace kubeflow: there is none and namespace argo: there is "
        'none). docs/submission.md, "Retries", says what it must have'
    )
    server.faults.append(Fault("GET configmaps", 403, 'configmaps "x" is forbidden: User "u" cannot get it'))
    assert 'namespace kubeflow: configmaps "x" is forbidden: User "u" cannot get it' in _notes(_read(server))[0]
    server.stop()
    assert "does not answer" in _notes(_read(server))[0]


@pytest.mark.parametrize(
    "data",
    [
        {"workflowDefaults": "a: [1"},
        {"workflowDefaults": "- 1"},
        {"workflowDefaults": ["x"]},
        ["x"],
        {"config": "text"},
    ],
    ids=str,
)
def test_a_damaged_config_map_is_said(server: ApiServer, data: Any) -> None:
    assert "namespace kubeflow: the answer is no ConfigMap that" in _notes(_read(server, data))[0]


@pytest.mark.parametrize(
    "text", ["", "spec:", "spec: {templateDefaults: 3}", "spec: {templateDefaults: {retryStrategy: a}}"]
)
def test_defaults_without_a_strategy_have_argos_own_policy(server: ApiServer, text: str) -> None:
    (note,) = _notes(_read(server, {"workflowDefaults": text}))
    assert "no retryPolicy, which means OnFailure" in note


def test_an_answer_that_is_not_an_api_servers_is_said(server: ApiServer) -> None:
    server.faults.append(Fault("GET configmaps", 200, body=b"<html>sign in</html>"))
    assert "the answer is no ConfigMap" in _notes(_read(server))[0]


def test_the_snapshots_judge_tells_it_and_a_steps_own_check_does_not(bare_facts: ClusterFacts) -> None:
    assert not any("Kubeflow Pipelines" in note for note in judge({}, bare_facts).notes)
    asked = replace(bare_facts, workflow_defaults=_with(retryPolicy="OnError"))
    assert any("retryPolicy OnError" in note for note in judge({}, asked).notes)


@pytest.fixture
def bare_facts() -> ClusterFacts:
    return ClusterFacts(
        server="https://10.0.0.1:6443", version="v1.36.3", namespace="vl3", apis={}, trainjob_fields=None, denied=(),
        refusals={}, objects={}, unreadable={},
    )  # fmt: skip
